"""A torch dataset over the images of one dataset, held in memory, read from the cache of crops, or decoded."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.utils.data import Dataset

from rib.data.crop_cache import CropCache, Crops
from rib.data.transform import Transform, augmentation
from rib.data.tree import ImageTree
from rib.runtime.files import digest_of
from rib.runtime.stopwatch import counted_beside

Batch = tuple[Tensor, Tensor, Tensor]
"""Images uint8 (B, 3, S, S), labels int64 (B,), positions of the images in the dataset int64 (B,)."""

READING = "reading and decoding images, in all loaders together"
"""Name of the work that a profile counts beside its phases."""


class Images(Dataset[Batch]):
    """Torch dataset over the images of one dataset, uint8, that reads a whole batch of indices at once.

    An index may carry an epoch as ``epoch * N + position``. Together with the seed it determines the augmentation, so
    an augmented image depends on (seed, epoch, position) and not on batches, workers or processes.

    Args:
        tree: Paths and labels of the images.
        transform: The checkpoint's evaluation transform.
        backend: ``torchvision`` or ``pil``.
        cache: Where crops are kept; None: nowhere, and every image is decoded every time.
        augment: ``none``, ``flip`` (of crops, which may come from the cache) or ``random_resized_crop`` (which needs
            the file each time).
        seed: Seed of the augmentation.

    Attributes:
        pixels: False to return labels and positions alone, with images of shape (B, 0).

    Raises:
        RibError: If images were changed after this command began, or ``augment`` is none of these.
    """

    def __init__(
        self,
        tree: ImageTree,
        transform: Transform,
        backend: str = "torchvision",
        cache: CropCache | None = None,
        augment: str = "none",
        seed: int = 0,
    ) -> None:
        self.tree = tree
        self.seed = seed
        self.pixels = True
        self._flips = augment == "flip"
        self._augment = None if self._flips or augment == "none" else augmentation(augment, transform, backend)
        self._crops = Crops(tree, transform, backend, None if self._augment else cache)
        self._memory = self._crops.in_memory()
        self._labels = torch.from_numpy(tree.labels)
        self._reading = counted_beside(READING)

    @property
    def in_memory(self) -> bool:
        """True if all images are in memory, or nobody looks at them."""
        return self._memory is not None or not self.pixels

    def kept(self) -> bool:
        """Return True if all images are in the cache now."""
        return self._crops.kept()

    def say_trouble(self) -> None:
        """Say once if images could not be kept for the next time, and why."""
        self._crops.say_trouble()

    def __len__(self) -> int:
        return len(self.tree)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return the batch of images at some indices; torch's DataLoader calls this instead of `__getitem__`."""
        positions = [index % len(self) for index in indices]
        position = torch.tensor(positions)
        if not self.pixels:
            return torch.empty(len(indices), 0, dtype=torch.uint8), self._labels[position], position
        with nullcontext() if self._reading is None else self._reading.counted():
            if self._augment is not None:
                images = torch.stack([self._read(index) for index in indices])
            elif self._memory is not None:
                images = self._memory.index_select(0, position)
            else:
                images = self._crops.read(positions)
        if self._flips:
            for image, index in zip(images, indices, strict=True):
                # As torchvision's RandomHorizontalFlip draws; the global generator belongs to the main thread.
                if torch.rand(1, generator=torch.Generator().manual_seed(self._seed_of(index))) < 0.5:
                    image.copy_(image.flip(2))
        return images, self._labels[position], position

    def _read(self, index: int) -> Tensor:
        """Read an image from its file with augmentation."""
        assert self._augment is not None, "only an augmented image has no crop"
        file, spec = self.tree.folder / self.tree.paths[index % len(self)], self.tree.spec
        with torch.random.fork_rng(devices=[]):
            # Seed the CPU generator only: torch.manual_seed also seeds the GPU's, which fork_rng does not restore here.
            torch.default_generator.manual_seed(self._seed_of(index))
            return self._augment(file, spec.border, spec.precropped)

    def _seed_of(self, index: int) -> int:
        return int(digest_of(["augment", self.seed, *divmod(index, len(self))])[:15], 16)
