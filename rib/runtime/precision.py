"""Floating-point precision of matrix products and convolutions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Precisions with autocast to a dtype."""

COMPUTED = ("32-true", "tf32", *AUTOCAST)
"""Precisions that images are scored in; ``32-true`` is float32 without TF32."""


@contextmanager
def exact_float32() -> Iterator[None]:
    """Compute matrix products and convolutions in full float32 (no TF32) within a block, then restore the settings."""
    with _float32("highest"):
        yield


@contextmanager
def computing_in(precision: str, device: str) -> Iterator[None]:
    """Compute in a precision within a block, whatever was set around it, then restore the settings.

    Args:
        precision: One of `COMPUTED`. ``tf32`` is float32 where the device has no TF32, as on most CPUs.
        device: Kind of the device, such as ``cuda``.
    """
    with ExitStack() as stack:
        stack.enter_context(_float32("high" if precision == "tf32" else "highest"))
        dtype = AUTOCAST.get(precision)
        stack.enter_context(torch.autocast(device, dtype, enabled=dtype is not None))
        yield


@contextmanager
def _float32(products: str) -> Iterator[None]:
    # TF32 keeps 10 bits of the mantissa, and cuDNN uses it for convolutions by default.
    matmul, conv = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision(products)
    torch.backends.cudnn.allow_tf32 = products != "highest"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = conv
