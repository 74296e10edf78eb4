"""Scenes of mini (an object on a background, with light and occlusion), and rendering them as a photograph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rib.data.mini.arithmetic import PIXEL, SIDE, Dice, Ints, between, blend, pixel_grid, rotate, size
from rib.data.mini.classes import Appearance
from rib.data.mini.patterns import OUTLINES, PALETTES, TEXTURES, background, mute


@dataclass(frozen=True)
class Look:
    """Ranges of the random parameters (object size, rotation, light, noise, ...) of a dataset's scenes.

    Attributes:
        radius: Smallest and largest radius of the object, pixels.
        turn: Largest rotation either way, degrees.
        squeeze: Largest foreshortening, percent.
        drift: Largest distance of the object from the middle, pixels.
        backgrounds: Kinds of background, keys of `rib.data.mini.patterns.BACKGROUNDS`.
        jitter: Largest change of a colour channel of the object, 0..255.
        light: Largest gradient of the light across the picture, in 1/256.
        occluded: Percentage of objects with a bar in front of them.
        decoys: Percentage of backgrounds with the texture and colours of another class.
        noise: Largest standard deviation of the sensor noise, in 1/255.
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
    """Layers of a scene (object, background, light, occluding bar), from which a renderer makes a picture.

    Attributes:
        cover: Share of each pixel that the object covers, 0..256, shape (SIDE, SIDE).
        weave: Share of the palette's second colour, 0..256, shape (SIDE, SIDE).
        colours: Main and second colour, shape (2, 3).
        behind: Background, shape (SIDE, SIDE, 3).
        light: Brightness in 1/256, shape (SIDE, SIDE).
        bar: Share of each pixel that an occluding bar covers, 0..256, shape (SIDE, SIDE).
        noise: Standard deviation of the sensor noise, in 1/255.
    """

    cover: Ints
    weave: Ints
    colours: Ints
    behind: Ints
    light: Ints
    bar: Ints
    noise: int


def compose(appearance: Appearance, look: Look, dice: Dice) -> Layers:
    """Create a random scene with one object, and return its layers.

    The order in which random numbers are taken determines the images: another order changes every pixel of mini.

    Args:
        appearance: Outline, texture and palette of the object.
        look: Ranges of the parameters.
        dice: Source of random numbers.
    """
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
    """Return a distracting background: a random texture in the faded colours of a random palette."""
    colours = np.array(dice.pick(PALETTES), dtype=np.int32)
    u, v = rotate(u, v, dice.between(20, 160))
    weave = TEXTURES[dice.between(1, len(TEXTURES) - 1)](u, v)
    return blend(blend(colours[0], colours[1], weave[:, :, None]), mute(dice), 110)


def _bar(a: Ints, b: Ints, radius: int, dice: Dice) -> Ints:
    """Return how much of each pixel (0 none, 256 all) is covered by an off-centre bar across the object.

    The bar is an eighth to a quarter as wide as the object.
    """
    across, _ = rotate(a, b, dice.between(0, 359))
    width = radius * dice.between(12, 25) // 100
    return between(128 + 16 * (width - size(across - radius * dice.between(10, 60) // 100)), 0, 256)


def flat(layers: Layers, colours: Ints | None = None) -> Ints:
    """Fill a picture with the object's texture, in its own or two given colours, unshaded; shape (SIDE, SIDE, 3)."""
    first, second = layers.colours if colours is None else colours
    return blend(first, second, layers.weave[:, :, None])


def photograph(layers: Layers, dice: Dice) -> Ints:
    """Render a scene as a photograph with light and noise; shape (SIDE, SIDE, 3), not yet clipped to 0..255."""
    picture = blend(layers.behind, flat(layers), layers.cover[:, :, None])
    picture = blend(picture, mute(dice, 200), layers.bar[:, :, None])
    tint = np.array([dice.between(238, 274) for _ in range(3)], dtype=np.int32)
    picture = (picture * layers.light[:, :, None] >> 8) * tint >> 8
    return picture + dice.field(SIDE, SIDE, 3, layers=2) * layers.noise // 105
