"""What env.json lists: versions and the kind of machine, no name and no path."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import rib
from rib.schemas.files import Environment

PACKAGE = Path(rib.__file__).resolve().parent
"""Folder of this code."""


def environment() -> Environment:
    """What env.json lists: versions and the kind of machine, no name and no path."""
    import torch

    packages = ("torch", "torchvision", "lightning", "torchmetrics", "timm", "open_clip_torch", "hydra-core")
    cuda = torch.cuda.is_available()
    return {
        "versions": {
            "python": platform.python_version(),
            "rib": f"{rib.__version__}{' (checkout)' if _is_checkout() else ''}",
            **{name: _version(name) for name in packages},
        },
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
    }


def _is_checkout() -> bool:
    """Whether this code lies in a folder that anybody may have changed, on PYTHONPATH or installed with ``-e``."""
    return not (PACKAGE / "conf").is_dir()  # a wheel holds it, a checkout has it beside the package


def _version(distribution: str) -> str:
    """Of an installed distribution; of one that was put on the path without its metadata nothing is known."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"
