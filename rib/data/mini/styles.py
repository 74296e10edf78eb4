"""Distribution shifts of mini: renderers other than a photograph, and filters of finished pictures.

Renderers take the layers of a scene. Filters take a picture of val, as the real Cartoon, Drawing and C were made from
val's images. Pictures are int32 of shape (SIDE, SIDE, 3), 0..255 but not clipped.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rib.data.mini.arithmetic import SIDE, Dice, Ints, between, blend, size
from rib.data.mini.patterns import mute
from rib.data.mini.scene import Layers, flat

LUMA = np.array([77, 150, 29], dtype=np.int32)
"""Weights of red, green and blue in the brightness, in 1/256."""


def luma(picture: Ints) -> Ints:
    """Return the brightness of each pixel of an RGB picture, 0..255, shape (SIDE, SIDE)."""
    return np.asarray((picture * LUMA).sum(2, dtype=np.int32) >> 8, dtype=np.int32)


def edges(plane: Ints) -> Ints:
    """Return the strength of edges at each pixel: the sum of absolute horizontal and vertical differences."""
    padded = np.pad(plane, 1, mode="edge")
    return size(padded[1:-1, 2:] - padded[1:-1, :-2]) + size(padded[2:, 1:-1] - padded[:-2, 1:-1])


def smooth(picture: Ints) -> Ints:
    """Smooth a picture with a 3 x 3 binomial filter."""
    p = np.pad(picture, ((1, 1), (0, 0), (0, 0)), mode="edge")
    p = p[:-2] + 2 * p[1:-1] + p[2:]
    p = np.pad(p, ((0, 0), (1, 1), (0, 0)), mode="edge")
    return (p[:, :-2] + 2 * p[:, 1:-1] + p[:, 2:]) >> 4


def lines(layers: Layers) -> Ints:
    """Return a line drawing of the object's outline and texture, from 0 to 256 on a line, shape (SIDE, SIDE)."""
    return between(edges((layers.cover + (layers.cover * layers.weave >> 8)) >> 1) * 3 >> 1, 0, 256)


def grey(plane: Ints) -> Ints:
    """Return a grey picture, shape (SIDE, SIDE, 3), with the given brightness, shape (SIDE, SIDE)."""
    return np.repeat(plane[:, :, None], 3, axis=2)


def vivid(dice: Dice) -> Ints:
    """Return a random saturated RGB colour, with one strong and one weak channel, shape (3,)."""
    channels = [dice.between(190, 250), dice.between(10, 80), dice.between(20, 230)]
    order = dice.pick(((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)))
    return np.array([channels[i] for i in order], dtype=np.int32)


def own_or_wrong(layers: Layers, dice: Dice, wrong: int) -> Ints:
    """Return the object's two colours or, with a probability of ``wrong`` per cent, two random ones; shape (2, 3)."""
    return np.stack([vivid(dice), vivid(dice)]) if dice.chance(wrong) else layers.colours


def sketch(layers: Layers, dice: Dice) -> Ints:
    """Render a pencil sketch: at random, 70 % shaded in the object's grey tones and 30 % almost only contours."""
    toned = dice.chance(70)
    tone = 255 - luma(flat(layers))
    shade = layers.cover * tone * (dice.between(190, 250) if toned else dice.between(0, 30)) >> 16
    ink = dice.between(10, 60) if toned else dice.between(110, 200)
    paper = dice.between(186, 246) - shade - (lines(layers) * ink >> 8)
    return grey(paper + dice.field(SIDE, SIDE) * dice.between(4, 22) // 74)


def _art(layers: Layers, dice: Dice) -> Ints:
    """Render a painting with rough brush strokes, half of the time in wrong colours."""
    picture = blend(layers.behind // 2 + 110, flat(layers, own_or_wrong(layers, dice, 50)), layers.cover[:, :, None])
    rough = np.repeat(np.repeat(dice.field(SIDE // 3, SIDE // 3, 3), 3, axis=0), 3, axis=1)
    return picture + rough // 4


def _cartoon(layers: Layers, dice: Dice) -> Ints:
    """Render a cartoon: the object in flat, bright colours with a black outline."""
    paper = np.broadcast_to(vivid(dice) // 2 + 120, layers.behind.shape)
    picture = blend(paper, flat(layers, own_or_wrong(layers, dice, 50)), layers.cover[:, :, None])
    return blend(picture, np.zeros(3, dtype=np.int32), between(edges(layers.cover), 0, 256)[:, :, None])


def _graffiti(layers: Layers, dice: Dice) -> Ints:
    """Render spray paint on a dark wall: a bright contour with a faint filling."""
    wall = layers.behind // 4 + dice.field(SIDE, SIDE, 1) // 12 + 20
    spray = smooth(grey(lines(layers)) * 2)
    filled = blend(wall, vivid(dice), layers.cover[:, :, None] * layers.weave[:, :, None] * 120 >> 16)
    return blend(filled, vivid(dice), between(spray, 0, 256))


def _sculpture(layers: Layers, dice: Dice) -> Ints:
    """Render a stone relief of the outline and texture, lit from the upper left."""
    relief = (layers.cover + (layers.cover * layers.weave >> 8)) >> 1
    slope: Ints = np.roll(relief, (1, 1), (0, 1)) - relief
    stone = blend(layers.behind // 3 + 60, mute(dice, 180) // 2 + 90, layers.cover[:, :, None])
    return stone - slope[:, :, None] * dice.between(50, 90) // 100


def _tattoo(layers: Layers, dice: Dice) -> Ints:
    """Render a tattoo: the object in dark ink on skin."""
    tone = dice.between(0, 256)
    skin = blend(np.array([236, 196, 168], np.int32), np.array([120, 80, 58], np.int32), tone)
    picture = (np.broadcast_to(skin, layers.behind.shape) * layers.light[:, :, None]) >> 8
    ink = between(lines(layers) + (layers.cover * layers.weave * 130 >> 16), 0, 220)
    return blend(picture, np.array([36, 44, 60], np.int32), ink[:, :, None])


def _videogame(layers: Layers, dice: Dice) -> Ints:
    """Render the scene as in an old video game: coarse pixels in few colours."""
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
"""Renderers of ImageNet-R, by the prefix of its file names."""


def to_cartoon(picture: Ints, dice: Dice) -> Ints:
    """Filter a picture into flat areas of few colours with dark seams (ImageNet-Cartoon)."""
    calm = smooth(smooth(picture))
    flat_areas = calm // 52 * 52 + 34
    bright = blend(grey(luma(flat_areas)), flat_areas, 330)
    seams = between((edges(luma(calm)) - 36) * 3, 0, 200)
    return blend(bright, np.full(3, 20, dtype=np.int32), seams[:, :, None])


def to_drawing(picture: Ints, dice: Dice) -> Ints:
    """Filter a picture into a coloured pencil drawing, with contours from its brightness (ImageNet-Drawing)."""
    tone = luma(smooth(picture))
    stroke = between(edges(tone) * 2 - 12, 0, 190)
    grain = dice.field(SIDE, SIDE, layers=2) * (255 - between(tone, 0, 255)) // 700
    paper = 236 - (255 - tone) // 4 - stroke + grain
    return blend(grey(paper), picture + paper[:, :, None] - tone[:, :, None], 56)


def gaussian_noise(picture: Ints, dice: Dice, severity: int) -> Ints:
    """Add noise to a picture, with a standard deviation of 14 grey levels per step of severity (1..5)."""
    return picture + dice.field(SIDE, SIDE, 3, layers=4) * (14 * severity) // 148


def defocus_blur(picture: Ints, dice: Dice, severity: int) -> Ints:
    """Blur a picture by smoothing it ``severity * severity * 3 // 4`` times with a 3 x 3 binomial filter."""
    for _ in range(severity * severity * 3 // 4):
        picture = smooth(picture)
    return picture


CORRUPTIONS: dict[str, Callable[[Ints, Dice, int], Ints]] = {
    "defocus_blur": defocus_blur,
    "gaussian_noise": gaussian_noise,
}
"""Corruptions of ImageNet-C by name, as functions of (picture, dice, severity 1..5)."""
