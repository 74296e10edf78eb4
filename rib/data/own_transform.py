"""A torch dataset over the images of one dataset, transformed by a function of the user's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from rib.data.dataset import Batch
from rib.data.decode import open_image, to_rgb
from rib.data.transform import file_errors
from rib.data.tree import ImageTree
from rib.errors import RibError

ImageFunction = Callable[[Any], Tensor]
"""Function from a PIL image in mode RGB to a tensor (C, H, W), such as a torchvision transform."""


class TransformedImages(Dataset[Batch]):
    """Torch dataset over the images of one dataset, each passed through the user's own transform.

    The transform gets every image as a whole, ImageNet-C's too, which are 224 pixels wide already. Only the red border
    of ObjectNet's images, which is not part of the photograph, is cut off before.

    Args:
        tree: Paths and labels of the images.
        transform: Function from a PIL image in mode RGB to a tensor (C, H, W).
    """

    def __init__(self, tree: ImageTree, transform: ImageFunction) -> None:
        self.tree = tree
        self.transform = transform
        self._labels = torch.from_numpy(tree.labels)

    def __len__(self) -> int:
        return len(self.tree)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return the batch of images at some indices; torch's DataLoader calls this instead of `__getitem__`.

        Raises:
            RibError: If a file cannot be read, or the transform returns no tensors (C, H, W) of one shape.
        """
        images = [self._read(index) for index in indices]
        if len(shapes := {tuple(image.shape) for image in images}) > 1:
            one, other = sorted(shapes)[:2]
            raise RibError(
                f"transform: expected tensors of one shape, got {one} and {other}; crop images to one size, as in "
                "torchvision.transforms.v2.CenterCrop(224)"
            )
        position = torch.tensor(list(indices))
        return torch.stack(images), self._labels[position], position

    def _read(self, index: int) -> Tensor:
        file, border = self.tree.folder / self.tree.paths[index], self.tree.spec.border
        with file_errors(file):
            content = file.read_bytes()
            image = to_rgb(open_image(content), content)
            image = image.crop((border, border, image.width - border, image.height - border)) if border else image
        transformed = self.transform(image)
        if not isinstance(transformed, Tensor) or transformed.ndim != 3:
            got = type(transformed).__name__
            if isinstance(transformed, Tensor):
                got = f"one of shape {tuple(transformed.shape)}"
            raise RibError(f"transform: expected it to return a tensor (channels, height, width), got {got}")
        return transformed.as_subclass(Tensor)
