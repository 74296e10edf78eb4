"""Random integers and integer geometry that give the same pixels on every machine.

NumPy guarantees the stream of a bit generator but not that of its distributions, so random numbers are taken from a
cryptographic hash of a name. Angles are in degrees and sines come from Bhaskara's rational formula (error below
0.2 %), since libm's results differ between platforms.
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
"""Height and width of every image, pixels."""
PIXEL = 16
"""Sub-pixel units per pixel, in which positions and radii are measured."""


class Dice:
    """Random number generator seeded with a name, with the same stream on every machine.

    Args:
        name: Seed; different names give independent streams.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._stream = hashlib.shake_256(name.encode())
        self._bytes = self._stream.digest(512)
        self._at = 0

    def between(self, low: int, high: int) -> int:
        """Return a random integer from ``low`` to ``high``, both included."""
        if self._at + 4 > len(self._bytes):
            self._bytes = self._stream.digest(2 * len(self._bytes))
        word = int.from_bytes(self._bytes[self._at : self._at + 4], "little")
        self._at += 4
        return low + (word * (high - low + 1) >> 32)  # in Python's unbounded integers, so nothing overflows

    def chance(self, percent: int) -> bool:
        """Return True with a probability of ``percent`` per cent."""
        return self.between(0, 99) < percent

    def pick(self, things: Sequence[T]) -> T:
        """Return an element of a sequence, chosen uniformly at random."""
        return things[self.between(0, len(things) - 1)]

    def field(self, *shape: int, layers: int = 1) -> Ints:
        """Return an array of independent random integers centred at zero, each a sum of ``layers`` uniform bytes.

        Nearly Gaussian from 3 layers on; the standard deviation is 74 times the square root of ``layers``.
        """
        size = layers * int(np.prod(shape))
        name = f"{self._name}#{self.between(0, 1 << 30)}"
        raw = np.frombuffer(hashlib.shake_256(name.encode()).digest(size), np.uint8)
        summed = raw.reshape(layers, *shape).sum(0, dtype=np.int32)
        return np.asarray(summed - 255 * layers // 2, dtype=np.int32)


def sine(degrees: int) -> int:
    """Return the sine of an angle in degrees as an integer, scaled so that 1 is 16384, by Bhaskara I's formula."""
    angle = degrees % 360
    half = angle % 180
    value = 16384 * 4 * half * (180 - half) // (40500 - half * (180 - half))
    return value if angle < 180 else -value


def rotate(x: Ints, y: Ints, degrees: int) -> tuple[Ints, Ints]:
    """Return the coordinates of points in axes that are rotated by an angle in degrees."""
    s, c = sine(degrees), sine(degrees + 90)
    return (x * c + y * s) >> 14, (y * c - x * s) >> 14


def pixel_grid() -> tuple[Ints, Ints]:
    """Return the pixel centres (x, y) in sub-pixel units, each of shape (SIDE, SIDE)."""
    axis = np.arange(SIDE, dtype=np.int32) * PIXEL + PIXEL // 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return x, y


# NumPy's functions under types that keep integer arrays integer for mypy.
size = cast("Callable[[Ints], Ints]", np.abs)
lesser = cast("Callable[[Ints | int, Ints | int], Ints]", np.minimum)
greater = cast("Callable[[Ints | int, Ints | int], Ints]", np.maximum)


def between(x: Ints, low: int, high: int) -> Ints:
    """Clip an array to the range from ``low`` to ``high``."""
    return lesser(greater(x, low), high)


def blend(under: Ints, over: Ints, share: Ints | int) -> Ints:
    """Mix two arrays of colours: ``share``/256 of ``over``, and the rest of ``under``."""
    return under + ((over - under) * share >> 8)
