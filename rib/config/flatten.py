"""Flatten a config to one dictionary with dotted names."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from typing import Any


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten a dataclass or nested dictionaries to one dictionary with dotted keys; enums become their values.

    Args:
        node: Dataclass instance or dictionary.
        prefix: Put before every key.
    """
    leaves: dict[str, Any] = {}
    for key, value in (node if isinstance(node, dict) else asdict(node)).items():
        if isinstance(value, dict):
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value.value if isinstance(value, Enum) else value
    return leaves
