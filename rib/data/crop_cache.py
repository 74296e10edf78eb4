"""Disk cache of decoded and cropped images, which are the same in every epoch if there is no augmentation.

The cache is a flat array, mapped into memory, with exactly the bytes that decoding gives. It is used for datasets whose
crops fit `BUDGET` (all of mini, small sources of real data); larger ones are decoded on the fly. The file name is a
digest of the files' present content (or, if images are identified by sizes, of their times and inodes), so an array is
never used for files that have changed.
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
"""Largest array of crops that is saved, bytes."""

DIGEST = ".sha256"
"""Suffix of the file beside an array that holds the array's digest."""

STALE_SECONDS = 86_400
"""Age above which a temporary file is taken as left over from a killed process, seconds."""

Pixels = NDArray[np.uint8]


def crops_of(tree: ImageTree, transform: Transform, backend: str, cache: Path | None) -> Tensor | None:
    """Return all decoded and cropped images of a dataset from the cache, filling it on first use.

    Args:
        tree: The dataset.
        transform: The checkpoint's evaluation transform.
        backend: ``torchvision`` or ``pil``.
        cache: Folder for the arrays, or None to save none.

    Returns:
        uint8 (N, 3, S, S); None if the crops exceed `BUDGET` or there is no cache folder.

    Raises:
        RibError: If an image cannot be read, or changes while it is read.
    """
    if cache is None or len(tree) * 3 * transform.size**2 > BUDGET:
        return None
    on_disk = tree.on_disk()
    key_fields = [
        tree.digest,
        on_disk,
        str(tree.folder.resolve()),
        asdict(transform),
        backend,
        tree.spec.border,
        tree.spec.precropped,
        [version(package) for package in ("torchvision", "pillow")],  # decoders change pixels between versions
    ]
    file = cache / f"{tree.spec.name}-{digest_of(key_fields)}.npy"
    try:
        return _load(file)
    except (OSError, ValueError, EOFError):  # missing, or truncated by a power failure
        crops = _decode_all(tree, transform, backend)
    # Images changed during decoding would be saved under the digest of the old ones.
    if tree.on_disk() != on_disk:
        raise RibError(f"{tree.spec.title}: images in {tree.folder} were changed while they were read; run it again")
    try:
        _publish(crops, file)
    except OSError:  # disk full: keep the crops in memory; writing through a memory map would crash (SIGBUS) instead
        return torch.from_numpy(crops)
    return _load(file)


def _load(file: Path) -> Tensor:
    """Return a saved array as a memory-mapped tensor, after a check of its digest.

    Raises:
        OSError: If it does not exist.
        ValueError: If it does not have the digest that was saved with it.
    """
    expected = file.with_suffix(DIGEST).read_text()
    if not file.is_file() or file_digest_of(file, file.parent / "records") != expected:
        raise ValueError(f"expected {file} to have the digest {expected}")
    return torch.from_numpy(np.load(file, mmap_mode="c"))  # copy on write: torch warns about read-only memory


def _publish(crops: Pixels, file: Path) -> None:
    """Save an array and its digest atomically, so that other processes never load an incomplete array."""
    file.parent.mkdir(parents=True, exist_ok=True)
    for leftover in file.parent.glob("*.tmp"):
        if time.time() - leftover.stat().st_mtime > STALE_SECONDS:
            leftover.unlink(missing_ok=True)
    temporary = temporary_path(file)
    try:
        with temporary.open("wb") as stream:
            np.save(stream, crops)
            stream.flush()
            os.fsync(stream.fileno())  # else a power failure could leave the new name with missing bytes
        write_atomically(file.with_suffix(DIGEST), file_digest(temporary)[:16].encode())
        os.replace(temporary, file)  # after the digest: an array without one, or with another's, is decoded again
    finally:
        temporary.unlink(missing_ok=True)


def _decode_all(tree: ImageTree, transform: Transform, backend: str) -> Pixels:
    crops = np.empty((len(tree), 3, transform.size, transform.size), dtype=np.uint8)
    spec = tree.spec

    def decode(position: int) -> None:
        file = tree.folder / tree.paths[position]
        crops[position] = read_image(file, transform, backend, spec.border, spec.precropped)

    # Threads suffice: the decoders release Python's lock.
    with progress(f"decoding {spec.title}", len(tree)) as advance, ThreadPoolExecutor(cores()) as pool:
        for _ in pool.map(decode, range(len(tree))):
            advance(1, "")
    return crops
