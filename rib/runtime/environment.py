"""Software versions and kind of machine, as recorded in env.json."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import rib
from rib.schemas.files import Environment

PACKAGE = Path(rib.__file__).resolve().parent
"""Folder of the package ``rib``."""


def environment() -> Environment:
    """Return the software versions and kind of machine for env.json; no host or user name and no path."""
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
        # platform.processor() is empty on some Linux distributions.
        "device": torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
    }


def _is_checkout() -> bool:
    """Return True if rib runs from a checkout (on PYTHONPATH or installed with ``-e``), whose code may be edited."""
    return not (PACKAGE / "conf").is_dir()  # a wheel holds it, a checkout has it beside the package


def _version(distribution: str) -> str:
    """Return the version of an installed package; "unknown" if it can be imported but has no metadata."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"
