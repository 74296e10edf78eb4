"""Activation and model class recorded in the config.json of transformers beside a file of weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ACTIVATIONS = {"gelu": "gelu", "quick_gelu": "quickgelu"}
"""Names of activations in transformers, with ours."""


def recorded_activation(weights: str | None) -> str | None:
    """Return the activation of a CLIP model's image tower, ``gelu`` or ``quickgelu``; None if nothing says it.

    Args:
        weights: The user's file or folder of weights, or None.
    """
    if weights is None:
        return None
    path = Path(weights).expanduser()
    try:
        config: Any = json.loads(((path if path.is_dir() else path.parent) / "config.json").read_text())
        if not str(config.get("model_type", "")).startswith("clip"):
            return None
        tower = config.get("vision_config", config)
        # transformers leaves out what is its default.
        return ACTIVATIONS.get(tower.get("hidden_act", "quick_gelu"))
    except (OSError, ValueError, AttributeError):
        return None
