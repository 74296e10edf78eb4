"""Software versions, git commits, command line and kind of machine, as recorded in env.json."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import rib
from rib.runtime.command_line import command_line
from rib.runtime.git import git_state
from rib.schemas.files import Environment, GitState

PACKAGE = Path(rib.__file__).resolve().parent
"""Folder of the package ``rib``."""


PACKAGES = (
    *("torch", "torchvision", "lightning", "torchmetrics", "timm", "open_clip_torch", "hydra-core"),
    *("numpy", "pillow", "safetensors"),
)
"""Distributions whose version is recorded."""


def environment(code: Mapping[str, Path] | None = None) -> Environment:
    """Return the software versions, git commits, command and kind of machine for env.json; no host or user name.

    Args:
        code: Files of the user's own code, by dotted name of the module.
    """
    import torch

    cuda = torch.cuda.is_available()
    return {
        "versions": {
            "python": platform.python_version(),
            "rib": f"{rib.__version__}{' (checkout)' if _is_checkout() else ''}",
            **{name: _version(name) for name in PACKAGES},
        },
        "platform": platform.platform(),
        # platform.processor() is empty on some Linux distributions.
        "device": torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "command": command_line(),
        "git": _git_states(code or {}),
    }


def _git_states(code: Mapping[str, Path]) -> dict[str, GitState]:
    """Return the git state of rib's checkout, of the working folder, and of each package of the user's code."""
    files: dict[str, list[Path]] = {}
    for module, file in code.items():
        files.setdefault(module.partition(".")[0], []).append(file.resolve())
    states = {
        "rib": git_state(PACKAGE) if _is_checkout() else None,
        "cwd": git_state(Path.cwd()),
        **{name: git_state(paths[0].parent, paths) for name, paths in files.items()},
    }
    return {name: state for name, state in states.items() if state is not None}


def _is_checkout() -> bool:
    """Return True if rib runs from a checkout (on PYTHONPATH or installed with ``-e``), whose code may be edited."""
    return not (PACKAGE / "conf").is_dir()  # a wheel holds it, a checkout has it beside the package


def _version(distribution: str) -> str:
    """Return the version of an installed package; "unknown" if it can be imported but has no metadata."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"
