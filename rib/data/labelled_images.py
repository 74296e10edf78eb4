"""A user's own dataset of (image, label), as `RIBDataModule` trains on it: the interface, and its checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from rib.data.dataset import Batch
from rib.errors import RibError
from rib.runtime.files import digest_of


@runtime_checkable
class LabelledImages(Protocol):
    """Interface of a dataset that `RIBDataModule` accepts as ``train`` and ``val``: any map-style torch dataset.

    An item is a pair of an image, a float tensor (C, H, W) as the network takes it, of one shape for all items, and a
    label, an int from 0 to C - 1 (or an int64 tensor without dimensions). `torch.utils.data.TensorDataset` is one, and
    so is a torchvision dataset with a transform that ends in a float tensor.
    """

    def __len__(self) -> int:
        """Return the number N of images."""

    def __getitem__(self, index: int, /) -> tuple[Any, Any]:
        """Return the image and the label at a position from 0 to N - 1."""


class CheckedImages(Dataset[Batch]):
    """Torch dataset over a user's images that reads a whole batch of indices at once, and checks every item.

    An index may carry an epoch as ``epoch * N + position``. With the seed it seeds torch's generator for the item, so
    that an augmentation by torch depends on (seed, epoch, position) and not on batches, workers or processes.
    Augmentations that draw from NumPy or from Python's ``random`` are not covered.

    Args:
        images: The user's dataset.
        name: Its name in messages, ``train`` or ``val``.
        seed: Seed of augmentation.

    Raises:
        RibError: If it is no dataset with a length, or is empty.
    """

    def __init__(self, images: LabelledImages, name: str, seed: int = 0) -> None:
        if isinstance(images, IterableDataset) or not isinstance(images, LabelledImages):
            raise RibError(
                f"{name}: expected a dataset with __len__ and __getitem__, whose items are (image, label), got a "
                f"{type(images).__name__}"
            )
        if not len(images):
            raise RibError(f"{name}: expected at least one image, got none")
        self.images = images
        self.name = name
        self.seed = seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return the batch of images at some indices; torch's DataLoader calls this instead of `__getitem__`.

        Raises:
            RibError: If an item is no pair of a float image (C, H, W) and a label, or the shapes differ.
        """
        items = [self._read(*divmod(index, len(self))) for index in indices]
        images, labels, positions = zip(*items, strict=True)
        if other := next((i for i, image in enumerate(images) if image.shape != images[0].shape), None):
            one, two = tuple(images[0].shape), tuple(images[other].shape)
            raise RibError(
                f"{self.name}[{positions[other]}]: expected images of one shape, got {two} beside {one}; resize or "
                "crop them in the dataset's transform"
            )
        return torch.stack(images), torch.tensor(labels), torch.tensor(positions)

    def _read(self, epoch: int, position: int) -> tuple[Tensor, int, int]:
        with torch.random.fork_rng(devices=[]):
            # The CPU generator only, as in `rib.data.dataset.Images`.
            torch.default_generator.manual_seed(int(digest_of(["own", self.seed, epoch, position])[:15], 16))
            item: Any = self.images[position]
        where = f"{self.name}[{position}]"
        if not isinstance(item, tuple | list) or len(item) != 2:
            size = f" of {len(item)}" if isinstance(item, tuple | list) else ""
            raise RibError(f"{where}: expected a pair (image, label), got a {type(item).__name__}{size}")
        return _image(item[0], where), _label(item[1], where), position


def _image(image: Any, where: str) -> Tensor:
    if not isinstance(image, Tensor):
        raise RibError(
            f"{where}: expected an image as a float tensor (channels, height, width), got a {type(image).__name__}; "
            "end the dataset's transform with v2.ToImage() and v2.ToDtype(torch.float32, scale=True)"
        )
    if image.ndim != 3:
        raise RibError(f"{where}: expected an image (channels, height, width), got shape {tuple(image.shape)}")
    if not image.is_floating_point():
        raise RibError(
            f"{where}: expected an image as a float tensor, got {image.dtype}; convert it as the network needs it, "
            "with v2.ToDtype(torch.float32, scale=True) and v2.Normalize"
        )
    if image.shape[-1] in (1, 3) and image.shape[0] not in (1, 3):
        channels_last = tuple(image.shape)
        raise RibError(
            f"{where}: expected an image (channels, height, width), got {channels_last}, which looks like (height, "
            "width, channels); use image.permute(2, 0, 1)"
        )
    return image.detach().as_subclass(Tensor)


def _label(label: Any, where: str) -> int:
    if isinstance(label, Tensor):
        if label.ndim == 0 and label.dtype == torch.int64:
            return _not_negative(int(label), where)
        got = f"{label.dtype} of shape {tuple(label.shape)}"
        raise RibError(f"{where}: expected a label as an int, or an int64 tensor without dimensions, got {got}")
    if isinstance(label, bool | np.bool_) or not isinstance(label, int | np.integer):
        raise RibError(f"{where}: expected a label as an int from 0 to C - 1, got a {type(label).__name__} ({label!r})")
    return _not_negative(int(label), where)


def _not_negative(label: int, where: str) -> int:
    if label < 0:
        raise RibError(f"{where}: expected a label from 0 to C - 1, got {label}")
    return label
