"""Weights of mini's models, made by ``python -m rib.pretrain pretrain=NAME`` (see ``conf/pretrain``)."""

from __future__ import annotations

from pathlib import Path

NAMES = ("mini_tiny", "mini_small", "mini_medium", "mini_large")
"""The ladder of pretraining scale, smallest first."""

SIDE = 48
"""Of the images that they are made for, pixels."""


def weights_file(name: str) -> Path:
    """The shipped file of a model, float16 safetensors with the timm module's own keys.

    Raises:
        ValueError: If ``name`` is none of `NAMES`.
    """
    if name not in NAMES:
        raise ValueError(f"expected one of {', '.join(NAMES)}, got {name!r}")
    return Path(__file__).with_name(f"{name}.safetensors")
