"""Read image files through a checkpoint's evaluation transform: resize and centre crop, to uint8 tensors.

There are two backends. torchvision decodes and resizes uint8 tensors with antialiasing; PIL does exactly what timm's
evaluation transform does, at less than half the speed. They differ by at most 2/255, in 0.4 % of values. Mean and std
are applied by the model, on the batch (`rib.models.classifier`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rib.data.decode import decode, open_image, to_rgb, to_tensor
from rib.errors import RibError

if TYPE_CHECKING:
    from torch import Tensor

Reader = Callable[[Path, int, bool], "Tensor"]
"""Function from (file, border in pixels, True if precropped) to an image, uint8 (3, S, S)."""


@dataclass(frozen=True)
class Transform:
    """Evaluation transform of a checkpoint: the size of the crop, resizing, interpolation, mean and std.

    Attributes:
        size: S, side of the square crop, pixels.
        crop_pct: S divided by the length that the shorter side is resized to, 0..1.
        interpolation: ``bicubic`` or ``bilinear``.
        mean: Mean of each channel, in units of full brightness (0..1); used by the model.
        std: Standard deviation of each channel, in the same units.

    Raises:
        RibError: If a value is out of range.
    """

    size: int
    crop_pct: float
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.interpolation not in ("bicubic", "bilinear"):
            raise RibError(f"model.transform.interpolation: expected bicubic or bilinear, got {self.interpolation!r}")
        if self.size < 1 or not 0 < self.crop_pct <= 1:
            raise RibError(
                f"model.transform: expected size >= 1 and 0 < crop_pct <= 1, got {self.size}, {self.crop_pct}"
            )

    @property
    def resized(self) -> int:
        """Length to which an image's shorter side is resized before the crop, pixels, rounded as in timm."""
        return math.floor(self.size / self.crop_pct)


def read_image(
    file: Path, transform: Transform, backend: str = "torchvision", border: int = 0, precropped: bool = False
) -> Tensor:
    """Read one image as the model gets it: decoded, resized and cropped.

    Args:
        file: JPEG, PNG or any other format that PIL reads, whatever the file's suffix.
        transform: The checkpoint's evaluation transform.
        backend: ``torchvision`` or ``pil``.
        border: Pixels to cut from each side first (ObjectNet's red frame).
        precropped: True if the file is cropped already; it is then used as it is if it has the right size.

    Returns:
        uint8, shape (3, S, S).

    Raises:
        RibError: If the file cannot be read as an image; the message names it.
    """
    with file_errors(file):
        return crop(file.read_bytes(), transform, backend, border, precropped)


def crop(content: bytes, transform: Transform, backend: str, border: int, precropped: bool) -> Tensor:
    """Decode the bytes of an image file, resize and crop; arguments and result are those of `read_image`."""
    if backend == "pil":
        return _with_pil(content, transform, border, precropped)
    image = _cut(decode(content), border)
    return image if precropped and image.shape[1:] == (transform.size,) * 2 else _centre(image, transform)


def augmentation(name: str, transform: Transform, backend: str = "torchvision") -> Reader:
    """Return a function that reads a training image with augmentation, in place of `read_image`.

    Args:
        name: ``random_resized_crop`` (with a random flip); ``flip`` needs no file, but the crop (`rib.data.dataset`).
        transform: The checkpoint's evaluation transform.
        backend: ``torchvision`` or ``pil``.

    Returns:
        A reader, which draws from torch's global CPU generator.

    Raises:
        RibError: If the name is unknown.
    """
    from torchvision.transforms import v2

    if name != "random_resized_crop":
        raise RibError(f"data.augment: expected none, flip or random_resized_crop, got {name!r}")
    interpolation = v2.InterpolationMode(transform.interpolation)
    resized_crop = v2.RandomResizedCrop(transform.size, interpolation=interpolation, antialias=True)
    return partial(_read_and_augment, v2.Compose([resized_crop, v2.RandomHorizontalFlip()]), backend)


def _read_and_augment(augment: Any, backend: str, file: Path, border: int, precropped: bool) -> Tensor:
    image = augment(_read_full_size(file, border, precropped, backend))
    return image if hasattr(image, "device") else to_tensor(image)  # the pil backend augments PIL images


def _read_full_size(file: Path, border: int, precropped: bool, backend: str) -> Any:
    """Read an image at its own size, as uint8 (3, H, W) or, with the ``pil`` backend, as a PIL image."""
    with file_errors(file):
        content = file.read_bytes()
        if backend == "pil":
            return _cut_pil(to_rgb(open_image(content), content), border)
        return _cut(decode(content), border)


@contextmanager
def file_errors(file: Path) -> Iterator[None]:
    """Turn any error inside the context into a `RibError` that names the image file.

    Raises:
        RibError: If anything inside raises.
    """
    try:
        yield
    except Exception as error:
        raise RibError(f"{file} cannot be read as an image ({error}); replace it from the archive") from error


def _cut(image: Tensor, border: int) -> Tensor:
    return image[:, border : image.shape[1] - border, border : image.shape[2] - border] if border else image


def _cut_pil(image: Any, border: int) -> Any:
    return image.crop((border, border, image.width - border, image.height - border)) if border else image


def _centre(image: Tensor, transform: Transform) -> Tensor:
    import numpy as np
    import torch
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as F

    if tuple(image.shape[1:]) != (transform.resized,) * 2:
        # On uint8 with antialias: at most 2/255 and 0.034 logits from PIL. On floats the overshoot of bicubic is not
        # clipped (32/255); without antialias the difference is 172/255.
        image = F.resize(image, [transform.resized], InterpolationMode(transform.interpolation), antialias=True)
    cropped = cast("Tensor", F.center_crop(image, [transform.size, transform.size]))
    return torch.from_numpy(np.ascontiguousarray(cropped.numpy()))  # torch takes twice as long over interleaved colours


def _with_pil(content: bytes, transform: Transform, border: int, precropped: bool) -> Tensor:
    """Decode an image and apply timm's evaluation transform (`timm.data.create_transform`) without mean and std."""
    from torchvision import transforms

    image = _cut_pil(to_rgb(open_image(content), content), border)
    if not (precropped and image.size == (transform.size,) * 2):
        interpolation = transforms.InterpolationMode(transform.interpolation)
        image = transforms.Resize(transform.resized, interpolation)(image)
        image = transforms.CenterCrop(transform.size)(image)
    return to_tensor(image)
