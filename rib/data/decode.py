"""What the bytes of an image file mean: RGB, as PIL's ``convert("RGB")`` gives it and timm's ImageDataset reads it.

That is: orientation tags, colour profiles and gamma are left alone, alpha and transparent palette entries are dropped
(the colours under them stay), and of several frames the first counts. PIL itself clips what has more than 8 bits of
grey, so that a 16-bit picture would be a white square: of 16 bits the upper 8 are taken, which is what PIL does to
16-bit colour. Integers and floats of 32 bits have no range that a file tells, and are refused.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from torch import Tensor

JPEG = ("JPEG", "MPO")
"""PIL's names of a JPEG file; a camera's may hold a second picture."""

START_OF_SCAN, END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
"""JPEG's markers; inside a scan no byte 0xff is followed by either."""


def decode(content: bytes) -> Tensor:
    """RGB, uint8 (3, H, W); what torchvision's JPEG reader does not take, PIL does (PNG-in-.JPEG, CMYK).

    Raises:
        ValueError: If it is no image, stops half-way, or is of a mode without a known range.
        OSError: If PIL cannot read it.
    """
    image = open_image(content)
    if image.format == "JPEG" and image.mode != "CMYK":  # CMYK: PIL's colours, whatever the version of torchvision
        try:
            return decode_jpeg(content)
        except (ImportError, RuntimeError):
            pass  # PIL's message about what is wrong is the better one
    return to_tensor(to_rgb(image, content))


def decode_jpeg(content: bytes) -> Tensor:
    """The same for a JPEG file, by torchvision; libjpeg's complaints go to the process's standard error.

    Raises:
        ImportError: If torchvision has no decoder: deprecated in 0.29; PIL gives the same pixels, a quarter slower.
        RuntimeError: If it cannot be read.
    """
    import torch
    from torchvision.io import ImageReadMode
    from torchvision.io import decode_jpeg as decoder

    encoded = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    return cast("Tensor", decoder(encoded, mode=ImageReadMode.RGB))


def open_image(content: bytes) -> Any:
    """A PIL image of which only the header is read.

    Raises:
        ValueError: If it is none.
    """
    from PIL import Image, UnidentifiedImageError

    if not content:
        raise ValueError("it is empty")
    try:
        return Image.open(io.BytesIO(content))
    except UnidentifiedImageError:
        raise ValueError("its format is not known") from None


def to_rgb(image: Any, content: bytes) -> Any:
    """All of a PIL image, in mode RGB.

    Args:
        image: From `open_image`.
        content: What it was opened from.

    Raises:
        ValueError: If it stops half-way, also where zeros take its place (PIL reads on), or has no known range.
    """
    import numpy as np
    from PIL import Image

    if image.format in JPEG and content.rfind(END_OF_IMAGE) < content.rfind(START_OF_SCAN):
        raise ValueError("it stops half-way")
    image.load()
    image.info.pop("transparency", None)  # dropped as alpha is; PIL warns of a palette that has it
    # PIL's readers of PNG (before version 11) and of PPM give 16 bits as I.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"its values are of mode {image.mode}, 32 bits of no known range; expected 8 or 16 bits")
    return image.convert("RGB")


def to_tensor(image: Any) -> Tensor:
    """Of a PIL image in mode RGB, uint8 (3, H, W)."""
    import numpy as np
    import torch

    return torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1).contiguous()
