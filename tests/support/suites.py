"""Suites of drawn photographs: domains x classes of small JPEG files, with a signal that a classifier can learn.

A class is a coloured texture of soft blobs, a domain is a look and a shift of the colours: within a domain a linear
classifier tells the classes apart, and between domains it is right more often than by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image, ImageFilter, ImageOps

Look = Callable[[Image.Image], Image.Image]

CLASSES = ("bear", "bottle", "camel", "guitar", "hammer", "mug", "zebra")
DOMAINS = ("photo", "sketch", "paint", "toy")

LOOKS: tuple[Look, ...] = (
    lambda image: image,
    lambda image: _contours(image),
    lambda image: ImageOps.posterize(image.filter(ImageFilter.MedianFilter(5)), 2),
    lambda image: image.resize((12, 12)).resize(image.size, Image.Resampling.NEAREST),
    lambda image: ImageOps.invert(image),
    lambda image: image.filter(ImageFilter.GaussianBlur(2)).point(lambda v: v // 2),
)
"""Look of the first domain (none), the second, ...; further domains begin again."""


def _contours(image: Image.Image) -> Image.Image:
    grey = np.asarray(image.convert("L").filter(ImageFilter.GaussianBlur(2)), dtype=np.float32)
    slope = np.hypot(*np.gradient(grey))
    lines = Image.fromarray((255 * (1 - slope / slope.max())).astype(np.uint8))
    return Image.blend(lines, ImageOps.autocontrast(image.convert("L")), 0.5).convert("RGB")


def make_photo_suite(
    root: Path,
    domains: Sequence[str] = DOMAINS,
    classes: Sequence[str] | int = CLASSES,
    per_class: int = 4,
    *,
    size: int = 56,
    lacks: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
    **keys: Any,
) -> Path:
    """Draw ``root/DOMAIN/CLASS/000.jpg`` and return the suite's file ``root/photos.yaml``.

    Args:
        root: Folder to create.
        domains: Names of the domains.
        classes: Names of the classes, or their number.
        per_class: Images of each class in each domain.
        size: Side of the images, pixels.
        lacks: Classes that a domain has no image of.
        seed: Another one draws other images of the same classes.
        **keys: Further keys of the suite's file, which replace those of the same name.
    """
    names = [f"class_{i:02}" for i in range(classes)] if isinstance(classes, int) else list(classes)
    for number, domain in enumerate(domains):
        for label, name in enumerate(names):
            if name in (lacks or {}).get(domain, ()):
                continue
            folder = root / domain / name
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(per_class):
                photo(label, number, i, size, seed).save(folder / f"{i:03}.jpg", quality=92)
    file = root / "photos.yaml"
    file.write_text(yaml.safe_dump(suite_document(domains, names) | keys, sort_keys=False))
    return file


def suite_document(domains: Sequence[str] = DOMAINS, classes: Sequence[str] = CLASSES) -> dict[str, Any]:
    """Return what a suite's file says of domains that are folders of class folders."""
    return {
        "name": "photos",
        "title": "Drawn photographs",
        "classes": list(classes),
        "domains": {name: {"title": name.title(), "folder": name} for name in domains},
    }


def write_suite(folder: Path, name: str = "pets", **keys: object) -> Path:
    """Write the file of a suite, and the folders of its domains without any image."""
    for domain in DOMAINS:
        (folder / domain).mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.yaml"
    document = {**suite_document(DOMAINS), "name": name, "sources": [*DOMAINS], "reported": ["toy"], **keys}
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    return file


def work_among_suites(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with pets.yaml and "my dätä/own.yaml", without a data root in the environment."""
    write_suite(folder)
    write_suite(folder / "my dätä", "own")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("RIB_DATA", raising=False)
    return folder


def photo(label: int, domain: int, number: int, size: int = 56, seed: int = 0) -> Image.Image:
    """Return one image of a class in a domain's look; another one for each number."""
    rng = np.random.default_rng([seed, label, domain, number])
    blobs = np.random.default_rng([7, label]).uniform(85, 170, (5, 5, 3))
    shift = np.random.default_rng([9, domain]).normal(0, 30, blobs.shape) if domain else 0.0
    moved = np.clip(blobs + shift + rng.normal(0, 40, blobs.shape), 0, 255).astype(np.uint8)
    grown = Image.fromarray(moved).resize((size + 8, size + 8), Image.Resampling.BICUBIC)
    left, top = rng.integers(0, 8, 2).tolist()
    pixels = np.asarray(grown.crop((left, top, left + size, top + size)), dtype=np.float32)
    pixels = pixels * rng.uniform(0.85, 1.15) + rng.normal(0, 8, pixels.shape)
    return LOOKS[domain % len(LOOKS)](Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)))
