"""Weights as plain dictionaries of tensors: kept, compared, and put together.

Everything here goes tensor by tensor. With `StoredWeights`, which reads a tensor from its file when it is asked for, an
average of twenty large models holds the result and one tensor of each in memory. Sums are in float64, and a model with
coefficient 1 beside others with 0 comes out bit for bit, so that the ends of every interpolation are its endpoints.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from rib.errors import RibError
from rib.runtime.files import write_atomically

StateDict = Mapping[str, Tensor]

DIGEST = "sha256"
"""In the header of a file of `keep`."""

Coefficients = Sequence[float]
"""One factor a model."""


class StoredWeights(StateDict):
    """The tensors of a safetensors file, each read when it is asked for.

    Args:
        file: As `save_weights` wrote it.

    Raises:
        RibError: If it cannot be read.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            opened: Any = safe_open(file, framework="pt")
        except Exception as error:
            raise RibError(f"cannot read weights {file} ({error}); delete its folder and make the run again") from error
        self._open = opened
        self._names = dict.fromkeys(opened.keys())

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        tensor: Tensor = self._open.get_tensor(name)
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self._names  # the mixin would read the tensor to see

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def save_weights(state: StateDict, file: Path) -> None:
    """Write a safetensors file whole or not at all; floating tensors in float32, integers as they are."""
    plain = {name: (t.detach().float() if t.is_floating_point() else t.detach()).cpu() for name, t in state.items()}
    kept: dict[int, str] = {}  # what two names share is written under both, and is one again when it is loaded
    shared = {name for name, t in plain.items() if kept.setdefault(t.untyped_storage().data_ptr(), name) != name}
    whole = {name: t.clone() if name in shared else t for name, t in plain.items()}
    write_atomically(file, save({name: t.contiguous() for name, t in whole.items()}))


def keep(state: StateDict, file: Path) -> None:
    """Write tensors that can be made again, with a digest of them, for `kept`."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    write_atomically(file, save(plain, metadata={DIGEST: _digest(plain)}))


def kept(file: Path) -> dict[str, Tensor] | None:
    """What `keep` wrote; None where it is not there, or is not what was written."""
    try:
        with safe_open(file, framework="pt") as opened:
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
            whole = (opened.metadata() or {}).get(DIGEST) == _digest(state)
    except Exception:  # safetensors has errors of its own
        return None
    return state if whole else None


def _digest(state: StateDict) -> str:
    found = hashlib.sha256()
    for name in sorted(state):
        found.update(name.encode())
        found.update(state[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def distance(one: StateDict, other: StateDict) -> float:
    """Euclidean distance between two sets of weights, over floating tensors, in float64.

    Raises:
        ValueError: If they do not hold the same names.
    """
    if one.keys() != other.keys():
        raise ValueError(f"expected the same names in both, {min(one.keys() ^ other.keys())} is in one only")
    moved = ((one[n].double() - other[n].double()).square().sum() for n in one if one[n].is_floating_point())
    return math.sqrt(sum(float(m) for m in moved))


def equal(one: StateDict, other: StateDict) -> bool:
    """Whether two sets of weights are the same bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _check_names(states: Sequence[StateDict]) -> None:
    if not states:
        raise RibError("expected weights of at least one model, got none")
    for state in states[1:]:
        if different := states[0].keys() ^ state.keys():
            raise RibError(f"expected weights of one architecture, {min(different)} is in one model only")


def _each(states: Sequence[StateDict], name: str) -> list[Tensor]:
    """One tensor of every model."""
    tensors = [state[name] for state in states]
    for tensor in tensors[1:]:
        if tensor.shape != tensors[0].shape:
            shapes = f"{tuple(tensors[0].shape)} and {tuple(tensor.shape)}"
            raise RibError(f"expected weights of one architecture, {name} has the shapes {shapes}")
    return tensors


def combine(states: Sequence[StateDict], rule: Callable[[str, list[Tensor]], Tensor]) -> dict[str, Tensor]:
    """Put models together, tensor by tensor.

    Args:
        states: N models of one architecture.
        rule: From a name and that tensor of each model, in float64, to the result, which takes on the first's dtype.
            Tensors of integers (BatchNorm's counters) have no mean: the last model's are taken.

    Raises:
        RibError: If the models differ in names or shapes.
    """
    _check_names(states)
    result = {}
    for name in states[0]:
        tensors = _each(states, name)
        if tensors[0].is_floating_point():
            result[name] = rule(name, [t.double() for t in tensors]).to(tensors[0].dtype)
        else:
            result[name] = tensors[-1].clone()
    return result


def mix(states: Sequence[StateDict], coefficients: Coefficients | Callable[[str], Coefficients]) -> dict[str, Tensor]:
    """The sum of models times their coefficients.

    Args:
        states: N models of one architecture.
        coefficients: N factors, or N factors for each name. Models with 0 are not looked at; one with 1 beside them
            comes out as it is. Of tensors of integers, that with the largest factor is taken (of equals the last).

    Raises:
        RibError: If the models differ in names or shapes.
    """
    _check_names(states)
    of_name = coefficients if callable(coefficients) else lambda _: coefficients
    result = {}
    for name in states[0]:
        factors, tensors = of_name(name), _each(states, name)
        used = [(factor, tensor) for factor, tensor in zip(factors, tensors, strict=True) if factor != 0]
        largest = max(range(len(states)), key=lambda i: (factors[i], i))
        if [factor for factor, _ in used] == [1]:
            result[name] = used[0][1].clone()
        elif not tensors[0].is_floating_point():
            result[name] = tensors[largest].clone()
        else:
            total = torch.zeros_like(tensors[0], dtype=torch.float64)
            for factor, tensor in used:
                total += factor * tensor.double()
            result[name] = total.to(tensors[0].dtype)
    return result


def interpolate(start: StateDict, end: StateDict, alpha: float) -> dict[str, Tensor]:
    """(1 - alpha) start + alpha end, whose ends are the two bit for bit (Wortsman et al. 2022, arXiv 2109.01903)."""
    return mix([start, end], [1 - alpha, alpha])


def average(states: Sequence[StateDict]) -> dict[str, Tensor]:
    """The uniform mean; that of one model is that model bit for bit (Wortsman et al. 2022, arXiv 2203.05482)."""
    return mix(states, [1 / max(1, len(states))] * len(states))
