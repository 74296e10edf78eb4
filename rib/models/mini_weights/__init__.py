"""Shipped weights of mini's models, made by ``python -m rib.pretrain pretrain=NAME`` (see ``conf/pretrain``)."""

from __future__ import annotations

from pathlib import Path

NAMES = ("mini_tiny", "mini_small", "mini_medium", "mini_large")
"""Names of the models, from the least to the most pretraining data."""

SIDE = 48
"""Height and width of the models' images, pixels."""


def weights_file(name: str) -> Path:
    """Return the path of a mini model's shipped weights, a float16 safetensors file with timm's parameter names.

    Raises:
        ValueError: If ``name`` is not one of `NAMES`.
    """
    if name not in NAMES:
        raise ValueError(f"expected one of {', '.join(NAMES)}, got {name!r}")
    return Path(__file__).with_name(f"{name}.safetensors")
