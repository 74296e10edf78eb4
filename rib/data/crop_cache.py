"""Decoded images, kept: the paper's recipe has no augmentation, so every epoch would decode the same pixels again.

A flat array on disk, mapped into memory: exactly the bytes that decoding gives, for datasets whose crops fit the
budget (all of mini; small sources of real data). Larger ones are decoded as they come. Its name covers what the files
hold at this moment (where only names and sizes tell images: their times and inodes), so that no array is ever of other
bytes, whatever asks for it.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rib.data.transform import Transform, read_image
from rib.data.tree import ImageTree
from rib.errors import RibError
from rib.runtime.content import file_digest_of
from rib.runtime.files import digest_of, file_digest, temporary_path, write_atomically
from rib.runtime.memory import cores
from rib.runtime.progress import progress

BUDGET = 256 * 2**20
"""Bytes of crops that a dataset may take on disk."""

DIGEST = ".sha256"
"""Ending of the file beside an array that says what was written."""

STALE_SECONDS = 86_400
"""Age at which a temporary file was surely left by a killed process."""

Pixels = NDArray[np.uint8]


def crops_of(tree: ImageTree, transform: Transform, backend: str, cache: Path | None) -> Tensor | None:
    """All crops of a dataset, uint8 (N, 3, S, S), or None if they do not fit the budget or nothing may be kept.

    Args:
        tree: The dataset.
        transform: The checkpoint's.
        backend: ``torchvision`` or ``pil``.
        cache: Folder for the arrays, or None.

    Raises:
        RibError: If an image cannot be read, or is changed meanwhile.
    """
    if cache is None or len(tree) * 3 * transform.size**2 > BUDGET:
        return None
    on_disk = tree.on_disk()
    facts = [
        tree.digest,
        on_disk,
        str(tree.folder.resolve()),
        asdict(transform),
        backend,
        tree.spec.border,
        tree.spec.precropped,
        [version(package) for package in ("torchvision", "pillow")],
    ]
    file = cache / f"{tree.spec.name}-{digest_of(facts)}.npy"
    try:
        return _load(file)
    except (OSError, ValueError, EOFError):  # not there, or cut short when the power failed
        crops = _decode_all(tree, transform, backend)
    if tree.on_disk() != on_disk:
        raise RibError(f"{tree.spec.title}: images in {tree.folder} were changed while they were read; run it again")
    try:
        _publish(crops, file)
    except OSError:  # a full disk, which a memory map would answer with a crash, costs time and nothing else
        return torch.from_numpy(crops)
    return _load(file)


def _load(file: Path) -> Tensor:
    """The array in a file.

    Raises:
        ValueError: If it is not what was written.
    """
    written = file.with_suffix(DIGEST).read_text()
    if not file.is_file() or file_digest_of(file, file.parent / "records") != written:
        raise ValueError(f"{file} is not what was written")
    return torch.from_numpy(np.load(file, mmap_mode="c"))  # copy on write: torch wants memory that it may write to


def _publish(crops: Pixels, file: Path) -> None:
    """Put the whole array in its place at once, whoever else does the same."""
    file.parent.mkdir(parents=True, exist_ok=True)
    for left in file.parent.glob("*.tmp"):
        if time.time() - left.stat().st_mtime > STALE_SECONDS:
            left.unlink(missing_ok=True)
    temporary = temporary_path(file)
    try:
        with temporary.open("wb") as stream:
            np.save(stream, crops)
            stream.flush()
            os.fsync(stream.fileno())
        write_atomically(file.with_suffix(DIGEST), file_digest(temporary)[:16].encode())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def _decode_all(tree: ImageTree, transform: Transform, backend: str) -> Pixels:
    crops = np.empty((len(tree), 3, transform.size, transform.size), dtype=np.uint8)
    spec = tree.spec

    def decode(place: int) -> None:
        crops[place] = read_image(tree.folder / tree.paths[place], transform, backend, spec.border, spec.precropped)

    with progress(f"decoding {spec.title}", len(tree)) as advance, ThreadPoolExecutor(cores()) as pool:
        for _ in pool.map(decode, range(len(tree))):
            advance(1, "")
    return crops
