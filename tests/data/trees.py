"""Small data roots: real layouts with few classes, and specs to match."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from rib.data.catalog import DatasetSpec, real
from rib.data.tree import ImageTree

Write = Callable[[Path, int], object]
"""Puts the n-th image of a tree into a file."""


def few(name: str, classes: int = 3, each: int = 2, cells: tuple[str, ...] = ()) -> DatasetSpec:
    """A real dataset's spec cut down to its first classes."""
    spec = real()[name]
    return replace(
        spec,
        groups=spec.groups[:classes],
        classes=spec.classes[:classes],
        cells=cells,
        first=(),
        between=None,
        num_images=None if spec.num_images is None else classes * each * max(1, len(cells)),
    )


def fill(folder: Path, names: Iterable[str], each: int = 2, ending: str = ".JPEG", write: Write | None = None) -> Path:
    """Class folders with files that only look like images, unless told how to write them."""
    number = 0
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(each):
            file = folder / name / f"{name.rpartition('/')[2]}_{i}{ending}"
            if write is None:
                file.write_bytes(bytes(10 + number))
            else:
                write(file, number)
            number += 1
    return folder


def picture(number: int, height: int = 40, width: int = 50) -> Image.Image:
    """Smooth shapes with noise, another one for each number."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:height, :width]
    waves = [127 + 80 * np.sin(x / a + y / b + c) for a, b, c in rng.uniform(2, 9, (3, 3))]
    noise = rng.integers(-30, 30, (height, width, 3))
    return Image.fromarray(np.clip(np.stack(waves, -1) + noise, 0, 255).astype(np.uint8))


def photograph(file: Path, number: int) -> None:
    """Write `picture` as JPEG or PNG, by the file's ending."""
    picture(number).save(file)


def pictures(folder: Path, count: int, classes: int = 3) -> ImageTree:
    """A tree of real JPEG files, made without `scan`."""
    spec = few("imagenet_val", classes)
    folder.mkdir(parents=True, exist_ok=True)
    names = tuple(f"{n:03}.jpg" for n in range(count))
    for n, name in enumerate(names):
        photograph(folder / name, n)
    return ImageTree(spec, folder, names, np.arange(count) % classes, f"pictures {count}")


def age(folder: Path, seconds: int = 60) -> None:
    """Let every folder have changed last a while ago."""
    for place in [folder, *(p for p in folder.rglob("*") if p.is_dir())]:
        then = place.stat().st_mtime_ns - seconds * 10**9
        os.utime(place, ns=(then, then))


def replaced_in_place(file: Path) -> None:
    """Write other bytes of the same number into a file and put its time back, as an archiver or a copy may do."""
    time.sleep(0.02)  # a file system's clock ticks every few milliseconds
    found = file.stat()
    file.write_bytes(bytes(byte ^ 1 for byte in file.read_bytes()))
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
