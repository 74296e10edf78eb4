"""From a file to the pixels a checkpoint expects: its own evaluation transform, up to uint8.

Two backends: torchvision decodes and resizes uint8 tensors with antialiasing; PIL does exactly what timm's evaluation
transform does, at less than half the speed. They differ by at most 2 of 255, in 0.4 % of values. What is
left, mean and std, the model does on the batch (`rib.models.classifier`).
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
"""From a file, its border and whether it is precropped to uint8 (3, S, S)."""


@dataclass(frozen=True)
class Transform:
    """A checkpoint's evaluation transform.

    Attributes:
        size: S, side of the square crop, pixels.
        crop_pct: S over the length that the shorter side is resized to, 0..1.
        interpolation: ``bicubic`` or ``bilinear``.
        mean: Of each channel, in units of full brightness; used by the model.
        std: Likewise.
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
        """Length of the shorter side before the crop, pixels (timm's rounding)."""
        return math.floor(self.size / self.crop_pct)


def read_image(
    file: Path, transform: Transform, backend: str = "torchvision", border: int = 0, precropped: bool = False
) -> Tensor:
    """One image as a model will see it.

    Args:
        file: JPEG, PNG or whatever PIL reads, also under a wrong ending; in any mode, as `rib.data.decode` says.
        transform: The checkpoint's.
        backend: ``torchvision`` or ``pil``.
        border: Pixels to cut from each side first.
        precropped: The file is already cropped; where it has the right size it is left as it is.

    Returns:
        uint8, shape (3, S, S).

    Raises:
        RibError: If the file cannot be read as an image, naming it.
    """
    with naming(file):
        content = file.read_bytes()
        if backend == "pil":
            return _with_pil(content, transform, border, precropped)
        image = _cut(decode(content), border)
        return image if precropped and image.shape[1:] == (transform.size,) * 2 else _centre(image, transform)


def augmentation(name: str, transform: Transform, backend: str = "torchvision") -> Reader:
    """How a training image is read in place of `read_image`; draws from torch's global generator.

    Args:
        name: ``flip`` (of the evaluation transform's crop) or ``random_resized_crop`` with a flip.
        transform: The checkpoint's.
        backend: ``torchvision`` or ``pil``.

    Raises:
        RibError: If the name is unknown.
    """
    from torchvision.transforms import v2

    flip = v2.RandomHorizontalFlip()
    if name == "flip":
        return partial(_read_and_change, partial(read_image, transform=transform, backend=backend), flip)
    if name == "random_resized_crop":
        interpolation = v2.InterpolationMode(transform.interpolation)
        crop = v2.RandomResizedCrop(transform.size, interpolation=interpolation, antialias=True)
        return partial(_read_and_change, partial(_read_raw, backend=backend), v2.Compose([crop, flip]))
    raise RibError(f"data.augment: expected none, flip or random_resized_crop, got {name!r}")


def _read_and_change(read: Any, change: Any, file: Path, border: int, precropped: bool) -> Tensor:
    image = change(read(file, border=border, precropped=precropped))
    return image if hasattr(image, "device") else to_tensor(image)


def _read_raw(file: Path, border: int, precropped: bool, backend: str) -> Any:
    """An image at its own size, uint8 (3, H, W) or PIL's."""
    with naming(file):
        content = file.read_bytes()
        if backend == "pil":
            return _cut_pil(to_rgb(open_image(content), content), border)
        return _cut(decode(content), border)


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Whatever is wrong with an image is said with its path.

    Raises:
        RibError: In the place of any error inside.
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
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as F

    if tuple(image.shape[1:]) != (transform.resized,) * 2:
        image = F.resize(image, [transform.resized], InterpolationMode(transform.interpolation), antialias=True)
    return cast("Tensor", F.center_crop(image, [transform.size, transform.size]).contiguous())


def _with_pil(content: bytes, transform: Transform, border: int, precropped: bool) -> Tensor:
    """Timm's evaluation transform (`timm.data.create_transform`), image by image."""
    from torchvision import transforms

    image = _cut_pil(to_rgb(open_image(content), content), border)
    if not (precropped and image.size == (transform.size,) * 2):
        interpolation = transforms.InterpolationMode(transform.interpolation)
        image = transforms.Resize(transform.resized, interpolation)(image)
        image = transforms.CenterCrop(transform.size)(image)
    return to_tensor(image)
