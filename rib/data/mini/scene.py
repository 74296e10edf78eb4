"""A scene: one object somewhere in front of something, under some light; and its photograph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rib.data.mini.arithmetic import PIXEL, SIDE, Dice, Ints, between, blend, pixel_grid, rotate, size
from rib.data.mini.classes import Appearance
from rib.data.mini.patterns import OUTLINES, PALETTES, TEXTURES, background, mute


@dataclass(frozen=True)
class Look:
    """How the scenes of a dataset are set up: ranges from which each picture draws.

    Attributes:
        radius: Smallest and largest object radius, in pixels.
        turn: Largest rotation either way, in degrees.
        squeeze: Largest foreshortening, in percent.
        drift: Largest distance of the object from the middle, in pixels.
        backgrounds: Kinds of `rib.data.mini.patterns.BACKGROUNDS`.
        jitter: Largest change of a colour channel of the object, 0..255.
        light: Largest fall or rise of the light across the picture, in 1/256.
        occluded: Percent of objects with a bar in front of them.
        decoys: Percent of backgrounds that wear another class's texture and colours.
        noise: Largest sensor noise, as a standard deviation in 1/255.
    """

    radius: tuple[int, int] = (10, 17)
    turn: int = 15
    squeeze: int = 15
    drift: int = 7
    backgrounds: tuple[str, ...] = ("gradient", "horizon", "blobs", "clutter")
    jitter: int = 38
    light: int = 90
    occluded: int = 20
    decoys: int = 0
    noise: int = 14


@dataclass(frozen=True)
class Layers:
    """What a renderer is given; every array has the picture's height and width.

    Attributes:
        cover: Share of the object in each pixel, 0..256, shape (SIDE, SIDE).
        weave: Share of the palette's second colour, 0..256, shape (SIDE, SIDE).
        colours: Main and second colour, shape (2, 3).
        behind: The background, shape (SIDE, SIDE, 3).
        light: Brightness in 1/256, shape (SIDE, SIDE).
        bar: Cover of an occluding bar, 0..256, shape (SIDE, SIDE).
        noise: Standard deviation of the sensor, in 1/255.
    """

    cover: Ints
    weave: Ints
    colours: Ints
    behind: Ints
    light: Ints
    bar: Ints
    noise: int


def compose(appearance: Appearance, look: Look, dice: Dice) -> Layers:
    """Set up one scene with an object of the given appearance."""
    x, y = pixel_grid()
    middle = SIDE * PIXEL // 2
    radius = dice.between(look.radius[0] * PIXEL, look.radius[1] * PIXEL)
    reach = min(look.drift * PIXEL, middle - radius * 3 // 4)
    cx, cy = middle + dice.between(-reach, reach), middle + dice.between(-reach, reach)
    a, b = rotate(x - cx, y - cy, dice.between(-look.turn, look.turn))
    u = a * 1024 // (radius * (100 - dice.between(0, look.squeeze)) // 100)
    v = b * 1024 // (radius * (100 - dice.between(0, look.squeeze)) // 100)
    u, v = between(u, -8000, 8000), between(v, -8000, 8000)
    distance = between(OUTLINES[appearance.outline](u, v), -4096, 4096)
    cover = between(128 + (distance * radius >> 6), 0, 256)
    phase = dice.between(-60, 60)
    weave = TEXTURES[appearance.texture](u + phase, v - phase)
    shake = np.array([dice.between(-look.jitter, look.jitter) for _ in range(6)], dtype=np.int32).reshape(2, 3)
    behind = background(dice.pick(look.backgrounds), dice)
    if dice.chance(look.decoys):
        behind = _decoy(u, v, dice)
    slope, _ = rotate(x - middle, y - middle, dice.between(0, 359))
    light = 256 + dice.between(-look.light, look.light) * slope // middle + dice.between(-look.light, look.light) // 2
    shading = (u - v) * dice.between(-40, 40) // 2048
    return Layers(
        cover=cover,
        weave=weave,
        colours=between(np.array(PALETTES[appearance.palette], dtype=np.int32) + shake, 0, 255),
        behind=behind,
        light=light + (between(shading, -60, 60) * cover >> 8),
        bar=_bar(a, b, radius, dice) if dice.chance(look.occluded) else np.zeros_like(cover),
        noise=dice.between(look.noise // 3, look.noise),
    )


def _decoy(u: Ints, v: Ints, dice: Dice) -> Ints:
    """A background in the texture and the faded colours of some class."""
    colours = np.array(dice.pick(PALETTES), dtype=np.int32)
    turned_u, turned_v = rotate(u, v, dice.between(20, 160))
    weave = TEXTURES[dice.between(1, len(TEXTURES) - 1)](turned_u, turned_v)
    return blend(blend(colours[0], colours[1], weave[:, :, None]), mute(dice), 110)


def _bar(a: Ints, b: Ints, radius: int, dice: Dice) -> Ints:
    """A bar across the object, off its centre, an eighth to a quarter of its width."""
    across, _ = rotate(a, b, dice.between(0, 359))
    width = radius * dice.between(12, 25) // 100
    return between(128 + 16 * (width - size(across - radius * dice.between(10, 60) // 100)), 0, 256)


def flat(layers: Layers, colours: Ints | None = None) -> Ints:
    """The object's own colours without light, shape (SIDE, SIDE, 3)."""
    first, second = layers.colours if colours is None else colours
    return blend(first, second, layers.weave[:, :, None])


def photograph(layers: Layers, dice: Dice) -> Ints:
    """The scene in its own colours, lit, with sensor noise; shape (SIDE, SIDE, 3), not yet clipped to 0..255."""
    picture = blend(layers.behind, flat(layers), layers.cover[:, :, None])
    picture = blend(picture, mute(dice, 200), layers.bar[:, :, None])
    tint = np.array([dice.between(238, 274) for _ in range(3)], dtype=np.int32)
    picture = (picture * layers.light[:, :, None] >> 8) * tint >> 8
    return picture + dice.field(SIDE, SIDE, 3, layers=2) * layers.noise // 105
