"""Check that all required packages are installed; a checkout on PYTHONPATH comes without them."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

PYTHON = (3, 11)

REQUIRED = {
    "torch": "torch",
    "torchvision": "torchvision",
    "lightning": "lightning",
    "torchmetrics": "torchmetrics",
    "timm": "timm",
    "open_clip_torch": "open_clip",
    "hydra-core": "hydra",
    "omegaconf": "omegaconf",
    "wandb": "wandb",
    "huggingface_hub": "huggingface_hub",
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "pandas": "pandas",
    "pillow": "PIL",
    "psutil": "psutil",
    "pyyaml": "yaml",
    "rich": "rich",
    "safetensors": "safetensors",
    "scipy": "scipy",
}
"""Module that each required distribution is imported as."""


def check() -> None:
    """Check the Python version and the required packages, without importing them.

    Raises:
        SystemExit: If Python is too old or a package is missing, with one sentence that says what to do.
    """
    if sys.version_info < PYTHON:
        sys.exit(f"rib: expected Python {'.'.join(map(str, PYTHON))} or later, this is {sys.version.split()[0]}")
    absent = [name for name, module in REQUIRED.items() if find_spec(module) is None]
    if absent:
        checkout = Path(__file__).resolve().parents[2]
        how = "install rib again with pip"
        if (checkout / "pyproject.toml").is_file():
            how = f"run `make .venv/.installed` in {checkout}, or `pip install -e {checkout}`"
        sys.exit(f"rib: {sys.executable} has no {', '.join(absent)}, which rib needs; {how}")
