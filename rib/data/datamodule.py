"""The LightningDataModule that serves any source dataset for training and any target datasets for scoring."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader

from rib.data.dataset import Batch, Images
from rib.data.evaluation import EvaluationImages, check_batch_size
from rib.data.labelled_images import CheckedImages, LabelledImages
from rib.data.loader import chunks
from rib.data.sampler import EpochBatches
from rib.data.transform import Transform
from rib.data.tree import ImageTree
from rib.errors import RibError

SOURCE_BATCH = 64
"""Batch size of the source images that a method uses before training (for a Fisher, say)."""


class RIBDataModule(EvaluationImages, L.LightningDataModule):
    """LightningDataModule with loaders over the images to train on (source) and the datasets to score (targets).

    For a dataset of your own: ``RIBDataModule(train=dataset, val=other, batch_size=64)``. `LabelledImages` describes
    what its items must be. The order of images depends on the seed and the epoch alone, also in a resumed fit.

    Args:
        source: Images to fine-tune on, or None.
        targets: Datasets to score, by name.
        transform: The checkpoint's evaluation transform.
        train: Your own dataset to train on, in place of ``source``.
        val: Your own dataset to validate on after each epoch, or None.
        batch_size: Training images per batch over all processes.
        evaluation_batch_size: Images per batch and process in scoring.
        workers: Number of processes that decode images; None: 0 if they are held in memory or the dataset is your own,
            else as many as training or scoring keeps busy (`rib.data.loader.Demand`). What is cached needs none.
        seed: Seed of the order of training images and of augmentation.
        augment: ``none``, ``flip`` or ``random_resized_crop``.
        image_backend: ``torchvision`` or ``pil``.
        cache: Folder for decoded images, or None to keep none, not in memory either.
        cache_limit: Bytes that the folder may take: ``auto``, ``off``, or a number such as ``60GB``.

    Raises:
        RibError: If there are no images to train on, your own dataset is none, or a batch has no images.
    """

    def __init__(
        self,
        source: ImageTree | None = None,
        targets: Mapping[str, ImageTree] | None = None,
        transform: Transform | None = None,
        *,
        train: LabelledImages | None = None,
        val: LabelledImages | None = None,
        batch_size: int = 64,
        evaluation_batch_size: int = 256,
        workers: int | None = None,
        seed: int = 0,
        augment: str = "none",
        image_backend: str = "torchvision",
        cache: Path | None = None,
        cache_limit: str | int = "auto",
    ) -> None:
        L.LightningDataModule.__init__(self)
        if source is not None and not isinstance(source, ImageTree):
            raise RibError(f"source: expected rib's images, got a {type(source).__name__}; give train=DATASET")
        if source is not None and not len(source):
            raise RibError(f"{source.spec.title}: expected at least one image to fine-tune on, got none")
        if train is not None and (source is not None or augment != "none"):
            raise RibError("train: expected no source and no augment beside it; augment in the dataset's transform")
        check_batch_size("batch_size", batch_size)
        EvaluationImages.__init__(
            self,
            targets,
            transform,
            evaluation_batch_size=evaluation_batch_size,
            workers=workers,
            image_backend=image_backend,
            cache=cache,
            cache_limit=cache_limit,
        )
        self.source = source
        self.train_images = None if train is None else CheckedImages(train, "train", seed)
        self.val_images = None if val is None else CheckedImages(val, "val", seed)
        self.batch_size = batch_size
        self.seed = seed
        self.augment = augment
        self._order: EpochBatches | None = None
        self._training: DataLoader[Batch] | None = None
        self._resume: tuple[int, int] | None = None

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return a loader of training batches (images, labels, positions): this process's share of the shuffled source.

        Raises:
            RibError: If there is no source, or the processes cannot share a batch evenly.
        """
        images = self._training_images(self.augment)
        rank, world = _process()
        try:
            self._order = EpochBatches(len(images), self.batch_size, self.seed, rank, world)
        except ValueError as error:
            raise RibError(f"batch_size: {error}") from error
        if self._resume is not None:
            self._order.start_at(*self._resume)
            self._resume = None
        # A batch sampler of our own: Lightning's distributed sampler pads epochs and cannot start in mid-epoch.
        self._training = self._loader(images, self._order)
        return self._training

    @property
    def val_dataloader(self) -> Callable[[], Any]:
        """Function that returns a loader of this process's share of your validation images, if there are any."""
        # A property: without validation images Lightning must find no such hook, or it would ask for a validation step.
        return super().val_dataloader if self.val_images is None else self._validation_loader

    def _validation_loader(self) -> DataLoader[Batch]:
        assert self.val_images is not None, "asked for with validation images only"
        rank, world = _process()
        return self._loader(self.val_images, chunks(range(rank, len(self.val_images), world), self.batch_size))

    def setup(self, stage: str) -> None:
        """Check that Lightning leaves the sharing of your own images among processes to this data module.

        Raises:
            RibError: If the Trainer would replace the loaders' samplers.
        """
        trainer = self.trainer
        if self.train_images is not None and trainer is not None and trainer.world_size > 1:
            connector: Any = trainer._accelerator_connector
            if connector.use_distributed_sampler:
                raise RibError(
                    "Trainer: expected use_distributed_sampler=False, since RIBDataModule shares images among processes"
                )

    def source_images(self, count: int, seed: int, rank: int = 0, world: int = 1) -> tuple[Iterable[Batch], int]:
        """Return batches of randomly selected source images, without augmentation, such as for Fisher information.

        Args:
            count: Number of images; all, if the source has fewer.
            seed: Seed of the selection.
            rank: Index of this process, which gets every ``world``-th selected image from this index on.
            world: Number of processes.

        Returns:
            Batches of images, labels and positions *within the selection*, and the number of images selected.
        """
        images = self._training_images()
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(images), generator=generator)[:count].sort().values
        loader = self._loader(images, chunks(chosen[rank::world].tolist(), SOURCE_BATCH))
        position_of = torch.zeros(len(images), dtype=torch.long)
        position_of[chosen] = torch.arange(len(chosen))
        return ((batch, labels, position_of[positions]) for batch, labels, positions in loader), len(chosen)

    @property
    def batches_an_epoch(self) -> int:
        """Number of batches of an epoch."""
        images = self.source if self.train_images is None else self.train_images
        assert images is not None, "asked for in a fit"
        return -(-len(images) // self.batch_size)

    @property
    def repeats_pixels(self) -> bool:
        """True if every epoch shows the same pixels: images of rib's own, without augmentation."""
        return self.source is not None and self.augment == "none"

    def every_source_image(self, rank: int = 0, world: int = 1) -> tuple[Iterable[Batch], int]:
        """Return batches of all source images in path order, and the number of images.

        Args:
            rank: Index of this process, which gets every ``world``-th batch from this index on.
            world: Number of processes; for any number the batches are the same.
        """
        assert self.source is not None, "asked for where `repeats_pixels`"
        batches = chunks(range(len(self.source)), SOURCE_BATCH)
        return self.batches_of(self.source, batches[rank::world]), len(self.source)

    def serve_pixels(self, wanted: bool) -> None:
        """Serve training batches with images, or without them, as uint8 (B, 0), where nobody looks at them.

        Call it before an epoch begins, or read the images of the batches that are on their way by `images_at`.
        """
        assert self._training is not None, "asked for in a fit"
        images: Images = self._training.dataset  # type: ignore[assignment]
        images.pixels = wanted

    def images_at(self, places: Tensor) -> Tensor:
        """Return the source images at some positions (B,), uint8 (B, 3, S, S)."""
        images, _, _ = self._training_images(self.augment).__getitems__(places.tolist())
        return images

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and how many of its batches are done, to be saved in a checkpoint for resuming."""
        assert self.trainer is not None
        loop = self.trainer.fit_loop
        # Lightning's counters: a batch is `processed` before on_train_batch_end and `completed` after it; `ready`
        # counts epochs from their start, whereas current_epoch is raised at the end of an epoch. These two agree with
        # what was trained whenever a checkpoint is written.
        done = loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]
        return {"epoch": max(0, loop.epoch_progress.current.ready - 1), "batches_done": done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a checkpoint's position: the next `train_dataloader` continues with the batch after it."""
        epoch, done = state_dict["epoch"], state_dict["batches_done"]
        # A checkpoint after an epoch's last batch belongs to that epoch; training goes on with the next.
        self._resume = (epoch, done) if done < self.batches_an_epoch else (epoch + 1, 0)

    def _training_images(self, augment: str = "none") -> Images | CheckedImages:
        """Return the images to train on as a torch dataset.

        Raises:
            RibError: If there are none.
        """
        if self.train_images is not None:
            return self.train_images
        if self.source is None:
            raise RibError("expected a source to fine-tune on, got none; give train=DATASET for a dataset of your own")
        return self._images(self.source, augment, self.seed)


def _process() -> tuple[int, int]:
    """Return the index of this process, and the number of processes."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
