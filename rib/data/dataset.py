"""A torch dataset over the images of one dataset, decoded on the fly or read from the crop cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from rib.data.transform import Transform, augmentation, read_image
from rib.data.tree import ImageTree
from rib.runtime.files import digest_of

Batch = tuple[Tensor, Tensor, Tensor]
"""Images uint8 (B, 3, S, S), labels int64 (B,), positions of the images in the dataset int64 (B,)."""


class Images(Dataset[Batch]):
    """Torch dataset over the images of one dataset, uint8, that reads a whole batch of indices at once.

    An index may carry an epoch as ``epoch * N + position``. Together with the seed it determines the augmentation, so
    an augmented image depends on (seed, epoch, position) and not on batches, workers or processes.

    Args:
        tree: Paths and labels of the images.
        transform: The checkpoint's evaluation transform.
        backend: ``torchvision`` or ``pil``.
        crops: Decoded images from `crops_of`, uint8 (N, 3, S, S), or None to read files.
        augment: ``none``, or a name that `augmentation` accepts.
        seed: Seed of the augmentation.

    Attributes:
        pixels: False to return labels and positions alone, with images of shape (B, 0).
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
        self.crops = crops if augment == "none" else None  # augmented images differ every epoch: no fixed crop fits
        self.augment = None if augment == "none" else augmentation(augment, transform, backend)
        self.seed = seed
        self.pixels = True
        self._labels = torch.from_numpy(tree.labels)

    def __len__(self) -> int:
        return len(self.tree)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return the batch of images at some indices; torch's DataLoader calls this instead of `__getitem__`."""
        position = torch.tensor([index % len(self) for index in indices])
        if not self.pixels:
            images = torch.empty(len(indices), 0, dtype=torch.uint8)
        elif self.crops is not None:
            images = self.crops[position]
        else:
            images = torch.stack([self._read(*divmod(index, len(self))) for index in indices])
        return images, self._labels[position], position

    def _read(self, epoch: int, position: int) -> Tensor:
        file, spec = self.tree.folder / self.tree.paths[position], self.tree.spec
        if self.augment is None:
            return read_image(file, self.transform, self.backend, spec.border, spec.precropped)
        with torch.random.fork_rng(devices=[]):
            # Seed the CPU generator only: torch.manual_seed also seeds the GPU's, which fork_rng does not restore here.
            torch.default_generator.manual_seed(int(digest_of(["augment", self.seed, epoch, position])[:15], 16))
            return self.augment(file, spec.border, spec.precropped)
