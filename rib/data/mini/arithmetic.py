"""Dice that fall the same on every machine, and geometry in whole numbers.

NumPy promises the same stream from a bit generator, not from the distributions on top of it; a cryptographic hash of
a name promises everything. Angles are degrees, sines are Bhaskara's rational formula (within 0.2 %), so that no libm
takes part and every pixel is the same everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]
T = TypeVar("T")

SIDE = 48
"""Height and width of every picture, in pixels."""
PIXEL = 16
"""Sub-pixel units in a pixel: positions and radii count these."""


class Dice:
    """Whole numbers drawn from a name.

    Args:
        name: Every different name gives an independent stream.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._stream = hashlib.shake_256(name.encode())
        self._bytes = self._stream.digest(512)
        self._at = 0

    def between(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``, both included."""
        if self._at + 4 > len(self._bytes):
            self._bytes = self._stream.digest(2 * len(self._bytes))
        word = int.from_bytes(self._bytes[self._at : self._at + 4], "little")
        self._at += 4
        return low + (word * (high - low + 1) >> 32)

    def chance(self, percent: int) -> bool:
        """True in ``percent`` of 100 throws."""
        return self.between(0, 99) < percent

    def pick(self, things: Sequence[T]) -> T:
        """One of the things."""
        return things[self.between(0, len(things) - 1)]

    def field(self, *shape: int, layers: int = 1) -> Ints:
        """Sums of ``layers`` uniform bytes around zero, independent for each element: nearly Gaussian from 3 on.

        The standard deviation is 74 times the square root of ``layers``.
        """
        size = layers * int(np.prod(shape))
        name = f"{self._name}#{self.between(0, 1 << 30)}"
        raw = np.frombuffer(hashlib.shake_256(name.encode()).digest(size), np.uint8)
        summed = raw.reshape(layers, *shape).sum(0, dtype=np.int32)
        return np.asarray(summed - 255 * layers // 2, dtype=np.int32)


def sine(degrees: int) -> int:
    """Sine in 1/16384, by Bhaskara I's formula."""
    turned = degrees % 360
    half = turned % 180
    value = 16384 * 4 * half * (180 - half) // (40500 - half * (180 - half))
    return value if turned < 180 else -value


def rotate(x: Ints, y: Ints, degrees: int) -> tuple[Ints, Ints]:
    """Coordinates as seen from axes that are turned by an angle."""
    s, c = sine(degrees), sine(degrees + 90)
    return (x * c + y * s) >> 14, (y * c - x * s) >> 14


def pixel_grid() -> tuple[Ints, Ints]:
    """Pixel centres (x, y) in sub-pixel units, each of shape (SIDE, SIDE)."""
    axis = np.arange(SIDE, dtype=np.int32) * PIXEL + PIXEL // 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return x, y


size = cast("Callable[[Ints], Ints]", np.abs)
lesser = cast("Callable[[Ints | int, Ints | int], Ints]", np.minimum)
greater = cast("Callable[[Ints | int, Ints | int], Ints]", np.maximum)


def between(x: Ints, low: int, high: int) -> Ints:
    """Values below ``low`` or above ``high`` replaced by these."""
    return lesser(greater(x, low), high)


def blend(under: Ints, over: Ints, share: Ints | int) -> Ints:
    """``over`` upon ``under``, its share in 1/256."""
    return under + ((over - under) * share >> 8)
