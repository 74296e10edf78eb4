"""Outlines, textures, palettes and backgrounds that mini's scenes are drawn from.

A class is one of eight outlines with one of eight textures in one of eight palettes. The palette is fixed by the other
two, like the check digit of a code: any two of the three determine the class, and no single one does. So a rendition
in wrong colours or a sketch without colours can be classified, but not by a model that relies on colour alone.

Object coordinates (u, v) run from 0 at the centre to 1024 at the rim; v points down.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rib.data.mini.arithmetic import PIXEL, SIDE, Dice, Ints, between, blend, greater, lesser, pixel_grid, rotate, size

PALETTES: tuple[tuple[tuple[int, int, int], tuple[int, int, int]], ...] = (
    ((200, 48, 44), (240, 225, 190)),
    ((48, 84, 190), (236, 204, 64)),
    ((52, 150, 68), (26, 34, 30)),
    ((232, 130, 36), (40, 56, 140)),
    ((128, 60, 165), (236, 236, 240)),
    ((230, 200, 60), (40, 30, 30)),
    ((36, 165, 170), (190, 40, 50)),
    ((232, 130, 165), (40, 110, 60)),
)
"""Main and second colour, sRGB."""


def _disc(u: Ints, v: Ints, radius: int = 900) -> Ints:
    return (radius * radius - u * u - v * v) // (2 * radius)


def _square(u: Ints, v: Ints) -> Ints:
    return 780 - greater(size(u), size(v))


def _triangle(u: Ints, v: Ints) -> Ints:
    return lesser(650 - v, ((v + 950) * 492 - size(u) * 898) >> 10)


def _ring(u: Ints, v: Ints) -> Ints:
    return lesser(_disc(u, v, 980), -_disc(u, v, 440))


def _cross(u: Ints, v: Ints) -> Ints:
    a, b = size(u), size(v)
    return lesser(980 - greater(a, b), 350 - lesser(a, b))


def _star(u: Ints, v: Ints) -> Ints:
    a, b = size(u), size(v)
    return (1200 - a - b - 2 * lesser(a, b)) >> 1


def _crescent(u: Ints, v: Ints) -> Ints:
    return lesser(_disc(u + 80, v, 960), -_disc(u - 480, v, 680))


def _hourglass(u: Ints, v: Ints) -> Ints:
    return lesser(880 - size(v), ((size(v) + 130 - size(u)) * 724) >> 10)


OUTLINES: tuple[Callable[[Ints, Ints], Ints], ...] = (
    _disc, _square, _triangle, _ring, _cross, _star, _crescent, _hourglass,
)  # fmt: skip
"""Functions from object coordinates (u, v) to the signed distance to the outline, positive inside."""


def _wave(x: Ints, period: int) -> Ints:
    """Return a texture of soft-edged stripes along ``x``: the share of the second colour at each point, 0..256."""
    return between(128 + 4 * (size(x % period - period // 2) - period // 4), 0, 256)


def _plain(u: Ints, v: Ints) -> Ints:
    return np.zeros_like(u)


def _lying(u: Ints, v: Ints) -> Ints:
    return _wave(v, 620)


def _standing(u: Ints, v: Ints) -> Ints:
    return _wave(u, 620)


def _slanted(u: Ints, v: Ints) -> Ints:
    return _wave(u + v, 860)


def _checks(u: Ints, v: Ints) -> Ints:
    a, b = _wave(u + 190, 760), _wave(v + 190, 760)
    return a + b - (a * b >> 7)


def _dots(u: Ints, v: Ints) -> Ints:
    a, b = (u + 280) % 560 - 280, (v + 280) % 560 - 280
    return between(128 + 4 * ((180 * 180 - a * a - b * b) // 360), 0, 256)


def _target(u: Ints, v: Ints) -> Ints:
    a, b = size(u), size(v)
    return _wave(greater(a, b) + (3 * lesser(a, b) >> 3) + 160, 640)


def _halves(u: Ints, v: Ints) -> Ints:
    return between(128 + 4 * v, 0, 256)


TEXTURES: tuple[Callable[[Ints, Ints], Ints], ...] = (
    _plain, _lying, _standing, _slanted, _checks, _dots, _target, _halves,
)  # fmt: skip
"""Functions from object coordinates (u, v) to the share of the palette's second colour, 0..256."""


def mute(dice: Dice, greyness: int = 110) -> Ints:
    """Return a random RGB colour, shape (3,), mixed with ``greyness``/256 of grey of the same brightness."""
    colour = np.array([dice.between(20, 235) for _ in range(3)], dtype=np.int32)
    return blend(colour, np.full(3, colour.sum() // 3, dtype=np.int32), greyness)


def _gradient(x: Ints, y: Ints, dice: Dice) -> Ints:
    along, _ = rotate(x, y, dice.between(0, 359))
    return between(128 + along // 3, 0, 256)


def _horizon(x: Ints, y: Ints, dice: Dice) -> Ints:
    along, _ = rotate(x, y, 90 + dice.between(-12, 12))
    return between(128 + 8 * (along - dice.between(-160, 200)), 0, 256)


def _blobs(x: Ints, y: Ints, dice: Dice) -> Ints:
    """Return soft blobs: the share of the second colour, 0..256, in a coarse random grid enlarged to picture size."""
    coarse = dice.field(7, 7) + 127
    step = SIDE * PIXEL // 6 + 1
    column, row = x[0] + SIDE * PIXEL // 2, y[:, 0] + SIDE * PIXEL // 2
    i, fraction = row // step, (row % step)[:, None]
    rows = coarse[i] * (step - fraction) + coarse[i + 1] * fraction
    j, fraction = column // step, column % step
    return between((rows[:, j] * (step - fraction) + rows[:, j + 1] * fraction) // (step * step), 0, 256)


def _stripes(x: Ints, y: Ints, dice: Dice) -> Ints:
    along, _ = rotate(x, y, dice.between(0, 179))
    return between(128 + 16 * (size(along % 256 - 128) - 64), 0, 256)


def _tiles(x: Ints, y: Ints, dice: Dice) -> Ints:
    a, b = rotate(x, y, dice.between(0, 89))
    side = dice.between(120, 200)
    return np.asarray(((a // side + b // side) & 1) * 256, dtype=np.int32)


def _clutter(x: Ints, y: Ints, dice: Dice) -> Ints:
    share = np.full_like(x, 128)
    for _ in range(dice.between(4, 7)):
        cx, cy, reach = dice.between(-380, 380), dice.between(-380, 380), dice.between(50, 140)
        a, b = rotate(x - cx, y - cy, dice.between(0, 89))
        square = dice.chance(50)
        inside = reach - greater(size(a), size(b)) if square else (reach * reach - a * a - b * b) // (2 * reach)
        share = blend(share, np.full_like(x, dice.between(0, 256)), between(128 + 16 * inside, 0, 256))
    return share


BACKGROUNDS: dict[str, Callable[[Ints, Ints, Dice], Ints]] = {
    "gradient": _gradient,
    "horizon": _horizon,
    "blobs": _blobs,
    "clutter": _clutter,
    "stripes": _stripes,
    "tiles": _tiles,
}
"""Functions from pixel centres (x, y), relative to the middle, to the share of the second background colour, 0..256."""


def background(kind: str, dice: Dice) -> Ints:
    """Draw a background of one of the kinds in `BACKGROUNDS`, in two random colours, shape (SIDE, SIDE, 3)."""
    x, y = pixel_grid()
    middle = SIDE * PIXEL // 2
    share = BACKGROUNDS[kind](x - middle, y - middle, dice)
    return blend(mute(dice), mute(dice), share[:, :, None])
