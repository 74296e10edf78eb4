"""Decoded images, kept: the paper's recipe has no augmentation, so every epoch would decode the same pixels again.

A flat array on disk, mapped into memory: exactly the bytes that decoding gives, for datasets whose crops fit the
budget (all of mini; small sources of real data). Larger ones are decoded as they come.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from rib.data.images import ImageTree
from rib.data.transform import Transform, augmentation, read_image, read_raw
from rib.memo import digest_of
from rib.progress import progress

BUDGET = 256 * 2**20
"""Bytes of crops that a dataset may take on disk."""

Batch = tuple[Tensor, Tensor, Tensor]
"""Images uint8 (B, 3, S, S), labels (B,), places in the dataset (B,)."""


def crops_of(tree: ImageTree, transform: Transform, backend: str, cache: Path | None) -> Tensor | None:
    """All crops of a dataset, uint8 (N, 3, S, S), or None if they do not fit the budget or nothing may be kept.

    Args:
        tree: The dataset.
        transform: The checkpoint's.
        backend: ``torchvision`` or ``pil``.
        cache: Folder for the arrays, or None.

    Raises:
        RibError: If an image cannot be read.
    """
    if cache is None or len(tree) * 3 * transform.size**2 > BUDGET:
        return None
    facts = [
        tree.digest,
        str(tree.folder.resolve()),
        asdict(transform),
        backend,
        tree.spec.border,
        tree.spec.precropped,
    ]
    file = cache / f"{tree.spec.name}-{digest_of(facts)}.npy"
    if not file.is_file():
        _decode_all(tree, transform, backend, file)
    return torch.from_numpy(np.load(file, mmap_mode="c"))  # copy on write: torch wants memory that it may write to


def _decode_all(tree: ImageTree, transform: Transform, backend: str, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    shape = (len(tree), 3, transform.size, transform.size)
    crops = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
    spec = tree.spec

    def decode(place: int) -> None:
        crops[place] = read_image(tree.folder / tree.paths[place], transform, backend, spec.border, spec.precropped)

    try:
        with (
            progress(f"decoding {spec.title}", len(tree)) as advance,
            ThreadPoolExecutor(os.cpu_count()) as pool,
        ):
            for _ in pool.map(decode, range(len(tree))):
                advance(1, "")
        crops.flush()
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


class Images(Dataset[Batch]):
    """A dataset as batches of uint8 images.

    Indices may be tagged with an epoch (``epoch * N + place``), which seeds augmentation: what an image becomes depends
    on (seed, epoch, place) and not on batches, workers or processes.

    Args:
        tree: The dataset.
        transform: The checkpoint's.
        backend: ``torchvision`` or ``pil``.
        crops: From `crops_of`, or None to read files.
        augment: ``none``, or a name that `augmentation` knows.
        seed: Of the augmentation.
    """

    def __init__(
        self,
        tree: ImageTree,
        transform: Transform,
        backend: str = "torchvision",
        crops: Tensor | None = None,
        augment: str = "none",
        seed: int = 0,
    ) -> None:
        self.tree = tree
        self.transform = transform
        self.backend = backend
        self.crops = crops if augment == "none" else None
        self.augment = None if augment == "none" else augmentation(augment, transform)
        self.seed = seed
        self._labels = torch.from_numpy(tree.labels)

    def __len__(self) -> int:
        return len(self.tree)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A whole batch; torch's loader asks for this where it is defined."""
        place = torch.tensor([index % len(self) for index in indices])
        if self.crops is not None:
            images = self.crops[place]
        else:
            images = torch.stack([self._read(*divmod(index, len(self))) for index in indices])
        return images, self._labels[place], place

    def _read(self, epoch: int, place: int) -> Tensor:
        file, spec = self.tree.folder / self.tree.paths[place], self.tree.spec
        if self.augment is None:
            return read_image(file, self.transform, self.backend, spec.border, spec.precropped)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(digest_of(["augment", self.seed, epoch, place])[:15], 16))
            return self.augment(read_raw(file, spec.border))
