"""From a file to the pixels a checkpoint expects: its own evaluation transform, up to uint8.

Two backends: torchvision decodes and resizes uint8 tensors with antialiasing; PIL does exactly what timm's evaluation
transform does, at less than half the speed. They differ by at most 2 of 255 in a few of a thousand values. What is
left, mean and std, the model does on the batch (`rib.models.classifier`).
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rib.errors import RibError

if TYPE_CHECKING:
    from torch import Tensor

Geometry = Callable[["Tensor"], "Tensor"]
"""From uint8 (3, H, W) of any size to uint8 (3, S, S)."""


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
        file: JPEG, PNG or whatever PIL reads, also under a wrong ending, grey, CMYK or with alpha.
        transform: The checkpoint's.
        backend: ``torchvision`` or ``pil``.
        border: Pixels to cut from each side first.
        precropped: The file is already cropped; where it has the right size it is left as it is.

    Returns:
        uint8, shape (3, S, S).

    Raises:
        RibError: If the file cannot be read as an image, naming it.
    """
    try:
        content = file.read_bytes()
        if backend == "pil":
            return _with_pil(content, transform, border, precropped)
        image = _cut(_decode(content), border)
        return image if precropped and image.shape[1:] == (transform.size,) * 2 else _centre(image, transform)
    except RibError:
        raise
    except Exception as error:
        raise RibError(f"{file} cannot be read as an image ({error}); replace it from the archive") from error


def read_raw(file: Path, border: int = 0) -> Tensor:
    """One image at its own size, uint8 (3, H, W), for augmentation.

    Raises:
        RibError: If the file cannot be read as an image, naming it.
    """
    try:
        return _cut(_decode(file.read_bytes()), border)
    except Exception as error:
        raise RibError(f"{file} cannot be read as an image ({error}); replace it from the archive") from error


def augmentation(name: str, transform: Transform) -> Geometry:
    """What a training image goes through in place of the evaluation transform; draws from torch's global generator.

    Raises:
        RibError: If the name is unknown.
    """
    from torchvision.transforms import v2

    if name == "flip":
        flip = v2.RandomHorizontalFlip()
        return lambda image: flip(_centre(image, transform))
    if name == "random_resized_crop":
        interpolation = v2.InterpolationMode(transform.interpolation)
        crop = v2.RandomResizedCrop(transform.size, interpolation=interpolation, antialias=True)
        return cast("Geometry", v2.Compose([crop, v2.RandomHorizontalFlip()]))
    raise RibError(f"data.augment: expected none, flip or random_resized_crop, got {name!r}")


def _decode(content: bytes) -> Tensor:
    """RGB uint8 (3, H, W); what torchvision's JPEG reader does not take, PIL does (PNG-in-.JPEG, CMYK)."""
    import torch

    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except ImportError:  # deprecated in torchvision 0.29; PIL gives the same pixels, a quarter slower
        return _to_tensor(_open(content))
    if content[:2] == b"\xff\xd8" and not _is_cmyk(content):
        encoded = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        try:
            return cast("Tensor", decode_jpeg(encoded, mode=ImageReadMode.RGB))
        except RuntimeError:
            pass  # PIL's message about what is wrong is the better one
    return _to_tensor(_open(content))


def _is_cmyk(content: bytes) -> bool:
    """Whether a JPEG has four components, which PIL converts and torchvision inverts."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return image.mode == "CMYK"


def _open(content: bytes) -> Any:
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return image.convert("RGB")


def _to_tensor(image: Any) -> Tensor:
    import numpy as np
    import torch

    return torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1).contiguous()


def _cut(image: Tensor, border: int) -> Tensor:
    return image[:, border : image.shape[1] - border, border : image.shape[2] - border] if border else image


def _centre(image: Tensor, transform: Transform) -> Tensor:
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as F

    if tuple(image.shape[1:]) != (transform.resized,) * 2:
        image = F.resize(image, [transform.resized], InterpolationMode(transform.interpolation), antialias=True)
    return cast("Tensor", F.center_crop(image, [transform.size, transform.size]).contiguous())


def _with_pil(content: bytes, transform: Transform, border: int, precropped: bool) -> Tensor:
    """Timm's evaluation transform (`timm.data.create_transform`), image by image."""
    from torchvision import transforms

    image = _open(content)
    if border:
        image = image.crop((border, border, image.width - border, image.height - border))
    if not (precropped and image.size == (transform.size,) * 2):
        interpolation = transforms.InterpolationMode(transform.interpolation)
        image = transforms.Resize(transform.resized, interpolation)(image)
        image = transforms.CenterCrop(transform.size)(image)
    return _to_tensor(image)
