"""Versions of rib and of the libraries that it stands on, and the device that a run would use."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import rib
from rib.runtime.processes import has_gpu

LIBRARIES = ("torch", "torchvision", "lightning", "torchmetrics", "timm", "open_clip_torch", "hydra-core", "wandb")
"""Distributions whose versions matter to a result or to a report of a bug."""


def versions_page() -> str:
    """Return one line per library, and the device; torch is imported only on a machine that may have a GPU."""
    rows = [("rib", rib.__version__), ("python", platform.python_version())]
    rows += [(name, _version(name)) for name in LIBRARIES]
    return "\n".join(f"{name:<16}{text}" for name, text in [*rows, ("device", _device())])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _device() -> str:
    """Return the GPU that a run would use, or the number of CPU cores."""
    if not has_gpu("auto"):
        return f"CPU, {os.cpu_count()} cores ({platform.machine()})"
    import torch

    count = torch.cuda.device_count()
    return f"{count} x {torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}"
