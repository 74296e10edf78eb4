"""Ways to show a scene that are no photograph, and ways to spoil one: the shifts of the benchmark.

Renderers take the layers of a scene; filters take a finished picture, as the real Cartoon, Drawing and C were made
from the images of val. All take and return int32 pictures of shape (SIDE, SIDE, 3).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rib.data.mini.arithmetic import SIDE, Dice, Ints, between, blend, size
from rib.data.mini.patterns import mute
from rib.data.mini.scene import Layers, flat

LUMA = np.array([77, 150, 29], dtype=np.int32)
"""Weights of red, green and blue in brightness, in 1/256."""


def luma(picture: Ints) -> Ints:
    """Brightness 0..255, shape (SIDE, SIDE)."""
    return np.asarray((picture * LUMA).sum(2, dtype=np.int32) >> 8, dtype=np.int32)


def edges(plane: Ints) -> Ints:
    """Absolute differences across and down, shape as given."""
    padded = np.pad(plane, 1, mode="edge")
    return size(padded[1:-1, 2:] - padded[1:-1, :-2]) + size(padded[2:, 1:-1] - padded[:-2, 1:-1])


def smooth(picture: Ints) -> Ints:
    """Mean over 3 x 3 pixels with binomial weights."""
    p = np.pad(picture, ((1, 1), (0, 0), (0, 0)), mode="edge")
    p = p[:-2] + 2 * p[1:-1] + p[2:]
    p = np.pad(p, ((0, 0), (1, 1), (0, 0)), mode="edge")
    return (p[:, :-2] + 2 * p[:, 1:-1] + p[:, 2:]) >> 4


def lines(layers: Layers) -> Ints:
    """Outline and texture borders, 0..256, shape (SIDE, SIDE)."""
    return between(edges((layers.cover + (layers.cover * layers.weave >> 8)) >> 1) * 3 >> 1, 0, 256)


def grey(plane: Ints) -> Ints:
    """A plane as a grey picture."""
    return np.repeat(plane[:, :, None], 3, axis=2)


def vivid(dice: Dice) -> Ints:
    """A random colour with one strong and one weak channel, shape (3,)."""
    channels = [dice.between(190, 250), dice.between(10, 80), dice.between(20, 230)]
    order = dice.pick(((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)))
    return np.array([channels[i] for i in order], dtype=np.int32)


def own_or_wrong(layers: Layers, dice: Dice, wrong: int) -> Ints:
    """The object's colours, or in ``wrong`` percent of pictures the artist's whim; shape (2, 3)."""
    return np.stack([vivid(dice), vivid(dice)]) if dice.chance(wrong) else layers.colours


def sketch(layers: Layers, dice: Dice) -> Ints:
    """Grey on paper: most are soft pencil in the object's own tones, the others contours alone."""
    toned = dice.chance(70)
    tone = 255 - luma(flat(layers))
    shade = layers.cover * tone * (dice.between(190, 250) if toned else dice.between(0, 30)) >> 16
    ink = dice.between(10, 60) if toned else dice.between(110, 200)
    paper = dice.between(186, 246) - shade - (lines(layers) * ink >> 8)
    return grey(paper + dice.field(SIDE, SIDE) * dice.between(4, 22) // 74)


def _art(layers: Layers, dice: Dice) -> Ints:
    """Thick paint, often in wrong colours, on a wash."""
    picture = blend(layers.behind // 2 + 110, flat(layers, own_or_wrong(layers, dice, 50)), layers.cover[:, :, None])
    rough = np.repeat(np.repeat(dice.field(SIDE // 3, SIDE // 3, 3), 3, axis=0), 3, axis=1)
    return picture + rough // 4


def _cartoon(layers: Layers, dice: Dice) -> Ints:
    """Flat bright colours with a black outline."""
    paper = np.broadcast_to(vivid(dice) // 2 + 120, layers.behind.shape)
    picture = blend(paper, flat(layers, own_or_wrong(layers, dice, 50)), layers.cover[:, :, None])
    return blend(picture, np.zeros(3, dtype=np.int32), between(edges(layers.cover), 0, 256)[:, :, None])


def _graffiti(layers: Layers, dice: Dice) -> Ints:
    """Spray paint on a dark wall: a glowing contour, a faint filling."""
    wall = layers.behind // 4 + dice.field(SIDE, SIDE, 1) // 12 + 20
    spray = smooth(grey(lines(layers)) * 2)
    filled = blend(wall, vivid(dice), layers.cover[:, :, None] * layers.weave[:, :, None] * 120 >> 16)
    return blend(filled, vivid(dice), between(spray, 0, 256))


def _sculpture(layers: Layers, dice: Dice) -> Ints:
    """Carved from one stone: texture and outline are relief, lit from above left."""
    relief = (layers.cover + (layers.cover * layers.weave >> 8)) >> 1
    slope: Ints = np.roll(relief, (1, 1), (0, 1)) - relief
    stone = blend(layers.behind // 3 + 60, mute(dice, 180) // 2 + 90, layers.cover[:, :, None])
    return stone - slope[:, :, None] * dice.between(50, 90) // 100


def _tattoo(layers: Layers, dice: Dice) -> Ints:
    """Dark ink on skin."""
    tone = dice.between(0, 256)
    skin = blend(np.array([236, 196, 168], np.int32), np.array([120, 80, 58], np.int32), tone)
    picture = (np.broadcast_to(skin, layers.behind.shape) * layers.light[:, :, None]) >> 8
    ink = between(lines(layers) + (layers.cover * layers.weave * 130 >> 16), 0, 220)
    return blend(picture, np.array([36, 44, 60], np.int32), ink[:, :, None])


def _videogame(layers: Layers, dice: Dice) -> Ints:
    """Coarse pixels of few colours."""
    drawn = flat(layers, own_or_wrong(layers, dice, 50))
    picture = blend(layers.behind, drawn, layers.cover[:, :, None]) // 43 * 51
    return np.repeat(np.repeat(picture[1::2, 1::2], 2, axis=0), 2, axis=1)


Renderer = Callable[[Layers, Dice], Ints]

RENDITIONS: dict[str, Renderer] = {
    "art": _art,
    "cartoon": _cartoon,
    "graffiti": _graffiti,
    "sculpture": _sculpture,
    "tattoo": _tattoo,
    "videogame": _videogame,
}
"""Kinds of ImageNet-R, by the prefix of its file names."""


def to_cartoon(picture: Ints, dice: Dice) -> Ints:
    """Flat areas of few colours with dark seams."""
    calm = smooth(smooth(picture))
    flat_areas = calm // 52 * 52 + 34
    bright = blend(grey(luma(flat_areas)), flat_areas, 330)
    seams = between((edges(luma(calm)) - 36) * 3, 0, 200)
    return blend(bright, np.full(3, 20, dtype=np.int32), seams[:, :, None])


def to_drawing(picture: Ints, dice: Dice) -> Ints:
    """Pencil on paper: contours from brightness, tone as grain, a trace of the colours."""
    tone = luma(smooth(picture))
    stroke = between(edges(tone) * 2 - 12, 0, 190)
    grain = dice.field(SIDE, SIDE, layers=2) * (255 - between(tone, 0, 255)) // 700
    paper = 236 - (255 - tone) // 4 - stroke + grain
    return blend(grey(paper), picture + paper[:, :, None] - tone[:, :, None], 56)


def gaussian_noise(picture: Ints, dice: Dice, severity: int) -> Ints:
    """Noise with a standard deviation of 14 grey levels per step of severity."""
    return picture + dice.field(SIDE, SIDE, 3, layers=4) * (14 * severity) // 148


def defocus_blur(picture: Ints, dice: Dice, severity: int) -> Ints:
    """Binomial smoothing, once and a half per step of severity squared."""
    for _ in range(severity * severity * 3 // 4):
        picture = smooth(picture)
    return picture


CORRUPTIONS: dict[str, Callable[[Ints, Dice, int], Ints]] = {
    "defocus_blur": defocus_blur,
    "gaussian_noise": gaussian_noise,
}
"""Corruptions of ImageNet-C by name; severities are 1..5."""
