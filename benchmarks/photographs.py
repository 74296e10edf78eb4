"""Photographs for the benchmarks: eight sets in the real datasets' layouts, each with the same number of images.

The photographs are those of the folder that the environment variable PHOTOS names, ``<wnid>/<file>.JPEG``; without it
they are drawn here, like photographs in size (500 x 375) and bytes (about 100 kB). Every set changes them a little, so
that no two files are alike. Accuracies on such sets say nothing; times are those of real images of the same size.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from rib.data import catalog
from tests.support.photos import class_folder

SETS = (
    *("imagenet_val", "imagenet_v2", "imagenet_a", "imagenet_r", "imagenet_sketch"),
    *("objectnet", "imagenet_cartoon", "imagenet_drawing"),
)
SOURCES = SETS[1:]


def drawn(wnid: str, number: int) -> Image.Image:
    """Draw an image with the detail of a photograph: noise of all scales, 500 x 375."""
    dice = np.random.default_rng([number, *wnid.encode()])
    image = np.zeros((375, 500, 3))
    for cells in (3, 8, 20, 60, 150):
        noise = dice.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        image += np.asarray(Image.fromarray(noise).resize((500, 375), Image.Resampling.BICUBIC)) / cells**0.35
    return Image.fromarray((image / image.max() * 255).astype(np.uint8))


def photographs() -> Iterator[tuple[str, Image.Image]]:
    """Yield pairs of a class and an image, over and over again."""
    if given := os.environ.get("PHOTOS"):
        files = sorted(f for f in Path(given).rglob("*") if f.suffix.lower() in (".jpg", ".jpeg"))
        if not files:
            raise SystemExit(f"PHOTOS: expected a folder with <wnid>/<file>.JPEG, got {given}")
        for file in itertools.cycle(files):
            with Image.open(file) as image:
                yield file.parent.name, image.convert("RGB")
    wnids = [*catalog.real()["imagenet_a"].classes, *catalog.real()["imagenet_r"].classes]
    for number in itertools.count():
        wnid = wnids[number % len(wnids)]
        yield wnid, drawn(wnid, number)


def changed(image: Image.Image, number: int, place: int) -> Image.Image:
    """Return an image mirrored, turned upside down or brightened, differently for every set and number."""
    if place % 2:
        image = ImageOps.mirror(image)
    if place % 4 > 1:
        image = ImageOps.flip(image)
    brightness = 1 + 0.02 * (place + number % 7)
    return image.point(lambda value: min(255, int(value * brightness)))


def build(root: Path, count: int, only: tuple[str, ...] = SETS) -> Path:
    """Write ``count`` images of each set under ``root`` and return it; a tree that is there already stays."""
    if (root / f"built-{count}").exists():
        return root
    specs, output = catalog.real().specs, {wnid: i for i, wnid in enumerate(catalog.real().outputs)}
    missing = dict.fromkeys(only, count)
    for number, (wnid, image) in enumerate(photographs()):
        for place, name in enumerate(only):
            folder = class_folder(specs[name], wnid, output[wnid])
            if folder is None or not missing[name]:
                continue
            missing[name] -= 1
            file = {"imagenet_a": f"0.{number:06}_a _ a_0.86.jpg", "imagenet_r": f"art_{number}.jpg"}.get(name)
            file = file or f"{wnid}_{number}.{'png' if name == 'objectnet' else 'JPEG'}"
            target = root / specs[name].folders[0] / folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            changed(image, number, place).save(target, quality=95)
        if not any(missing.values()):
            break
        assert number < 1000 * count, f"no photographs for {missing}"
    (root / f"built-{count}").touch()
    return root
