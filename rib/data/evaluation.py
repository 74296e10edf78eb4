"""Loaders of images to score, and of any batches of them, without Lightning, which scoring does not need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from rib.data.crop_cache import CropCache
from rib.data.dataset import Batch, Images
from rib.data.labelled_images import CheckedImages
from rib.data.loader import Demand, batch_loader, chunks
from rib.data.sampler import EpochBatches
from rib.data.transform import Transform
from rib.data.tree import ImageTree
from rib.errors import RibError


class EvaluationImages:
    """Loaders over the datasets to score (targets), and over any batches of images with the same transform.

    Args:
        targets: Datasets to score, by name.
        transform: The checkpoint's evaluation transform.
        evaluation_batch_size: Images per batch and process in scoring.
        workers: Number of processes that decode images; None: 0 if they are held in memory, else as many as keep busy
            (`rib.data.loader.Demand`). What is cached needs none.
        image_backend: ``torchvision`` or ``pil``.
        cache: Folder for decoded images, or None to keep none, not in memory either.
        cache_limit: Bytes that the folder may take: ``auto``, ``off``, or a number such as ``60GB``.

    Raises:
        RibError: If a batch has no images.
    """

    def __init__(
        self,
        targets: Mapping[str, ImageTree] | None = None,
        transform: Transform | None = None,
        *,
        evaluation_batch_size: int = 256,
        workers: int | None = None,
        image_backend: str = "torchvision",
        cache: Path | None = None,
        cache_limit: str | int = "auto",
    ) -> None:
        check_batch_size("evaluation_batch_size", evaluation_batch_size)
        self.targets = {} if targets is None else targets
        self.transform = transform
        self.evaluation_batch_size = evaluation_batch_size
        self.workers = workers
        self.image_backend = image_backend
        self.cache = CropCache.of(cache, cache_limit)
        self._demand: dict[bool, Demand] = {}  # of training, and of scoring

    def evaluation_loader(self, name: str, rank: int = 0, world: int = 1) -> DataLoader[Batch]:
        """Return a loader of batches (images, labels, positions) over this process's share of a dataset to score.

        The share is every ``world``-th image from ``rank`` on, in path order. Over all processes each image comes
        exactly once: a padded sampler would count some twice.

        Args:
            name: Name of the dataset, a key of ``targets``.
            rank: Index of this process.
            world: Number of processes.
        """
        return self.loader_of(self.targets[name], rank, world)

    def loader_of(self, tree: ImageTree, rank: int = 0, world: int = 1) -> DataLoader[Batch]:
        """Return a loader like that of `evaluation_loader` for any images, such as those held out of the source."""
        size = self.evaluation_batch_size
        return self._loader(self._images(tree), chunks(range(rank, len(tree), world), size))

    def batches_of(self, tree: ImageTree, batches: Sequence[Sequence[int]]) -> DataLoader[Batch]:
        """Return a loader of the given batches, each a list of positions of images in ``tree``."""
        return self._loader(self._images(tree), batches)

    def _images(self, tree: ImageTree, augment: str = "none", seed: int = 0) -> Images:
        assert self.transform is not None, "rib's images are read with a checkpoint's transform"
        return Images(tree, self.transform, self.image_backend, self.cache, augment, seed)

    def _loader(self, images: Images | CheckedImages, batches: Any) -> DataLoader[Batch]:
        workers = self.workers
        if workers is None and isinstance(images, CheckedImages):
            workers = 0
        demand = self._demand.setdefault(isinstance(batches, EpochBatches), Demand())
        return batch_loader(images, batches, workers, demand)


def check_batch_size(name: str, size: object) -> None:
    """Raise a RibError if a batch size is no whole number of images, 1 or more.

    Args:
        name: Name of the option.
        size: Its value.
    """
    if not isinstance(size, Integral) or size < 1:
        raise RibError(f"{name}: expected a whole number of images, 1 or more, got {size!r}")
