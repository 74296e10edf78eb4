"""Decode image files to RGB, with the pixels of PIL's ``convert("RGB")``, as in timm's ImageDataset.

Orientation tags, colour profiles and gamma are ignored; alpha and palette transparency are dropped (the colours under
them stay); of several frames the first is read. There is one difference: PIL clips 16-bit grey, which turns a picture
into a white square, so here its upper 8 bits are taken, as PIL does for 16-bit colour. Images of 32-bit integers or
floats do not say their range and are refused.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from torch import Tensor

JPEG = ("JPEG", "MPO")
"""PIL's format names for JPEG files; MPO is a camera's JPEG with a second picture in it."""

START_OF_SCAN, END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
"""JPEG markers; neither can occur inside the compressed data of a scan."""


def decode(content: bytes) -> Tensor:
    """Decode an image to RGB, with torchvision for JPEG and with PIL for everything else.

    Args:
        content: Bytes of an image file in any format that PIL reads, whatever its name.

    Returns:
        uint8 (3, H, W).

    Raises:
        ValueError: If it is not an image, is truncated, or has 32-bit values.
        OSError: If PIL cannot read it.
    """
    image = open_image(content)
    if image.format == "JPEG" and image.mode != "CMYK":  # torchvision's CMYK colours vary between versions
        try:
            return decode_jpeg(content)
        except (ImportError, RuntimeError):
            pass  # decode with PIL, whose message on a damaged file is clearer
    return to_tensor(to_rgb(image, content))


def decode_jpeg(content: bytes) -> Tensor:
    """Decode a JPEG file with torchvision; libjpeg prints its warnings to the process's standard error.

    Args:
        content: Bytes of a JPEG file.

    Returns:
        RGB, uint8 (3, H, W).

    Raises:
        ImportError: If torchvision has no JPEG decoder (deprecated in 0.29); PIL gives the same pixels 25 % slower.
        RuntimeError: If the file cannot be decoded.
    """
    import torch
    from torchvision.io import ImageReadMode
    from torchvision.io import decode_jpeg as decoder

    encoded = torch.frombuffer(bytearray(content), dtype=torch.uint8)  # bytes are read-only, of which torch warns
    return cast("Tensor", decoder(encoded, mode=ImageReadMode.RGB))


def open_image(content: bytes) -> Any:
    """Open a PIL image, reading only its header.

    Raises:
        ValueError: If the content is empty or not an image that PIL knows.
    """
    from PIL import Image, UnidentifiedImageError

    if not content:
        raise ValueError("it is empty")
    try:
        return Image.open(io.BytesIO(content))
    except UnidentifiedImageError:
        raise ValueError("unknown image format") from None


def to_rgb(image: Any, content: bytes) -> Any:
    """Load a PIL image and convert it to mode RGB.

    Args:
        image: The image, from `open_image`.
        content: The bytes that it was opened from.

    Raises:
        ValueError: If a JPEG is truncated, even if it is padded with zeros, which PIL accepts; or if the image has
            32-bit values, whose range is unknown.
    """
    import numpy as np
    from PIL import Image

    # An end marker in an embedded thumbnail does not count: the last one must come after the last scan has begun.
    if image.format in JPEG and content.rfind(END_OF_IMAGE) < content.rfind(START_OF_SCAN):
        raise ValueError("it is truncated")
    image.load()
    image.info.pop("transparency", None)  # dropped like alpha; otherwise PIL warns about a palette with transparency
    # PIL gives 16-bit PNG (before version 11) and PPM the mode "I", although these are not 32-bit images.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"its values are of mode {image.mode}, 32 bits of unknown range; expected 8 or 16 bits")
    return image.convert("RGB")


def to_tensor(image: Any) -> Tensor:
    """Convert a PIL image in mode RGB to a tensor, uint8 (3, H, W)."""
    import numpy as np
    import torch

    return torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1).contiguous()
