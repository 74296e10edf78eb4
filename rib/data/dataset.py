"""Images of one dataset as a torch dataset, decoded on the fly or taken from the crop cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from rib.data.transform import Transform, augmentation, read_image
from rib.data.tree import ImageTree
from rib.runtime.files import digest_of

Batch = tuple[Tensor, Tensor, Tensor]
"""Images uint8 (B, 3, S, S), labels (B,), places in the dataset (B,)."""


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
        self.augment = None if augment == "none" else augmentation(augment, transform, backend)
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
            # The CPU's generator alone: torch.manual_seed would set the GPU's too, and nothing would set it back.
            torch.default_generator.manual_seed(int(digest_of(["augment", self.seed, epoch, place])[:15], 16))
            return self.augment(file, spec.border, spec.precropped)
