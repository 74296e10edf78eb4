"""Weights as plain dictionaries of tensors: kept, compared, and (with the methods to come) averaged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from rib.files import write_atomically

StateDict = Mapping[str, Tensor]


def save_weights(state: StateDict, file: Path) -> None:
    """Write a safetensors file whole or not at all; floating tensors in float32, integers as they are."""
    plain = {name: (t.detach().float() if t.is_floating_point() else t.detach()).cpu() for name, t in state.items()}
    write_atomically(file, save({name: t.contiguous() for name, t in plain.items()}))


def distance(one: StateDict, other: StateDict) -> float:
    """Euclidean distance between two sets of weights, over floating tensors, in float64.

    Raises:
        ValueError: If they do not hold the same names.
    """
    if one.keys() != other.keys():
        raise ValueError(f"expected the same names in both, {min(one.keys() ^ other.keys())} is in one only")
    moved = ((one[n].double() - other[n].double()).square().sum() for n in one if one[n].is_floating_point())
    return math.sqrt(sum(float(m) for m in moved))
