"""Weights as dictionaries of tensors: saving, comparing, interpolating and averaging them.

All functions work tensor by tensor. With `StoredWeights`, which reads each tensor from its file on access, averaging
twenty large models needs memory for the result and one tensor of each model. Sums are computed in float64, and a model
with coefficient 1 among others with 0 is returned bit for bit, so interpolations are exact at both ends.
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
from rib.runtime.weights_file import add_metadata

StateDict = Mapping[str, Tensor]

DIGEST = "sha256"
"""Key of the digest in the header of a file that `save_cached` writes."""

Coefficients = Sequence[float]
"""One factor per model."""


class StoredWeights(StateDict):
    """Read-only mapping of the tensors in a safetensors file, each read on access.

    Args:
        file: A file that `save_weights` wrote.

    Raises:
        RibError: If the file cannot be read.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            opened: Any = safe_open(file, framework="pt")
        except Exception as error:
            raise RibError(f"cannot read weights {file} ({error}); delete its folder and repeat the run") from error
        self._open = opened
        self._names = dict.fromkeys(opened.keys())

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        tensor: Tensor = self._open.get_tensor(name)
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self._names  # Mapping's own implementation would read the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def save_weights(state: StateDict, file: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Save weights as a safetensors file, atomically; floating-point tensors in float32, integers unchanged.

    Args:
        state: The weights, on any device.
        file: The file to write.
        metadata: Texts for the file's header.
    """
    plain = {name: (t.detach().float() if t.is_floating_point() else t.detach()).cpu() for name, t in state.items()}
    # safetensors refuses tensors that share memory, so tied weights are written twice; they are tied again on loading.
    owner: dict[int, str] = {}
    shared = {name for name, t in plain.items() if owner.setdefault(t.untyped_storage().data_ptr(), name) != name}
    whole = {name: t.clone() if name in shared else t for name, t in plain.items()}
    content = save({name: t.contiguous() for name, t in whole.items()})
    write_atomically(file, *(add_metadata(content, metadata) if metadata else (content,)))


def save_cached(state: StateDict, file: Path) -> None:
    """Save tensors that can be recomputed, with a digest that `load_cached` checks.

    Args:
        state: The tensors, in any dtype, on any device.
        file: The file to write, atomically.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    write_atomically(file, save(plain, metadata={DIGEST: _digest(plain)}))


def load_cached(file: Path) -> dict[str, Tensor] | None:
    """Load tensors that `save_cached` wrote; None if the file does not exist or fails the check of its digest."""
    try:
        with safe_open(file, framework="pt") as opened:
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
            whole = (opened.metadata() or {}).get(DIGEST) == _digest(state)
    except Exception:  # safetensors' error classes do not derive from OSError or ValueError
        return None
    return state if whole else None


def _digest(state: StateDict) -> str:
    hasher = hashlib.sha256()
    for name in sorted(state):
        hasher.update(name.encode())
        hasher.update(state[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


def distance(one: StateDict, other: StateDict) -> float:
    """Return the Euclidean distance between two models' weights, over floating-point tensors, in float64.

    Raises:
        ValueError: If their names differ.
    """
    if one.keys() != other.keys():
        raise ValueError(f"expected the same names in both models, {min(one.keys() ^ other.keys())} is in one only")
    squares = ((one[n].double() - other[n].double()).square().sum() for n in one if one[n].is_floating_point())
    return math.sqrt(sum(float(square) for square in squares))


def equal(one: StateDict, other: StateDict) -> bool:
    """Return True if two models' weights have the same names and equal values."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _check_names(states: Sequence[StateDict]) -> None:
    if not states:
        raise RibError("expected weights of at least one model, got none")
    for state in states[1:]:
        if different := states[0].keys() ^ state.keys():
            raise RibError(
                f"expected weights of one architecture, but {min(different)} is a tensor of only one of them"
            )


def _tensors(states: Sequence[StateDict], name: str) -> list[Tensor]:
    """Return the tensor with a given name from each model."""
    tensors = [state[name] for state in states]
    for tensor in tensors[1:]:
        if tensor.shape != tensors[0].shape:
            shapes = f"{tuple(tensors[0].shape)} and {tuple(tensor.shape)}"
            raise RibError(f"expected weights of one architecture, {name} has the shapes {shapes}")
    return tensors


def combine(states: Sequence[StateDict], rule: Callable[[str, list[Tensor]], Tensor]) -> dict[str, Tensor]:
    """Combine the weights of several models, tensor by tensor, with a given function.

    Args:
        states: N models of one architecture.
        rule: Function of a name and the N tensors of that name, in float64; its result is cast to the first model's
            dtype. Integer tensors (BatchNorm's counters) have no mean and are taken from the last model.

    Returns:
        The combined weights.

    Raises:
        RibError: If the models differ in names or shapes.
    """
    _check_names(states)
    result = {}
    for name in states[0]:
        tensors = _tensors(states, name)
        if tensors[0].is_floating_point():
            result[name] = rule(name, [t.double() for t in tensors]).to(tensors[0].dtype)
        else:
            result[name] = tensors[-1].clone()
    return result


def mix(states: Sequence[StateDict], coefficients: Coefficients | Callable[[str], Coefficients]) -> dict[str, Tensor]:
    """Return the weighted sum of the weights of several models.

    Args:
        states: N models of one architecture.
        coefficients: N factors, or a function from a name to N factors. Models with factor 0 do not enter; if a single
            model remains, with factor 1, it is returned bit for bit. Integer tensors are taken from the model with
            the largest factor, the last of equals.

    Returns:
        The sum, in the first model's dtypes.

    Raises:
        RibError: If the models differ in names or shapes.
    """
    _check_names(states)
    of_name = coefficients if callable(coefficients) else lambda _: coefficients
    result = {}
    for name in states[0]:
        factors, tensors = of_name(name), _tensors(states, name)
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
    """Interpolate linearly between the weights of two models: ``(1 - alpha) start + alpha end``, exact at the ends.

    Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", arXiv 2109.01903.
    """
    return mix([start, end], [1 - alpha, alpha])


def average(states: Sequence[StateDict]) -> dict[str, Tensor]:
    """Average the weights of several models uniformly; the average of one model is that model, bit for bit.

    Wortsman et al. 2022, "Model soups", arXiv 2203.05482.
    """
    return mix(states, [1 / max(1, len(states))] * len(states))
