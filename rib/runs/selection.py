"""Select finished runs by their options: ``optimizer.lr=0.01``, ``method.ewc.strength=3``, ``seed=0``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isclose
from typing import Any

import yaml

from rib.config.shipped import shipped_nodes
from rib.errors import RibError, nearest
from rib.runs.run import Result

RECORDED = {
    "epochs": "epochs",
    "batch_size": "batch_size",
    "batch_norm": "batch_norm",
    "precision": "precision",
    "optimizer.lr": "lr",
    "optimizer.warmup_steps": "warmup_steps",
    "data.holdout": "holdout",
    "data.limit": "limit",
    "data.label_rule": "label_rule",
    "data.image_backend": "image_backend",
    "evaluation.precision": "evaluation_precision",
    "experiment": "experiment",
}
"""Options whose values, after null is filled in, metrics.json records under ``protocol``."""

IDENTITY = ("model", "source", "method", "seed", "suite")
"""Top-level keys of metrics.json that can be selected by like options."""


def select(results: Sequence[Result], where: str | Sequence[str] | Mapping[str, Any]) -> list[Result]:
    """Return the results whose runs have all given option values, whether set by the user or by default.

    Args:
        results: Finished runs with their metrics.
        where: ``"optimizer.lr=0.01"``, several such texts, or a mapping from options to values.

    Raises:
        RibError: If a text is not ``NAME=VALUE``, or no run has an option of that name.
    """
    wanted = _parse(where)
    if not wanted:
        return list(results)
    options = [_options(result) for result in results]
    known = {name for own in options for name in own} | _options_of_methods()
    for name in wanted if results else ():
        if name not in known:
            raise RibError(f"where: there is no option {name}{nearest(name, known)}")
    return [
        result
        for result, own in zip(results, options, strict=True)
        if all(name in own and _is_same(own[name], value) for name, value in wanted.items())
    ]


def _parse(where: str | Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(where, Mapping):
        return dict(where)
    wanted = {}
    for text in [where] if isinstance(where, str) else where:
        name, equals, value = str(text).partition("=")
        if not equals:
            raise RibError(f"where: expected NAME=VALUE, as optimizer.lr=0.01, got {text!r}")
        wanted[name.strip().lstrip("+")] = yaml.safe_load(value)
    return wanted


def _options(result: Result) -> dict[str, Any]:
    """Return the values of all options of a run by dotted name."""
    run, metrics = result
    file = run.folder / "config.yaml"
    try:
        own = _leaves(yaml.safe_load(file.read_text()) or {})
    except (OSError, ValueError, yaml.YAMLError):  # what is recorded in metrics.json must do
        own = {}
    recorded = {name: metrics["protocol"].get(key) for name, key in RECORDED.items()}
    return {**own, **metrics["options"], **recorded, **{name: metrics.get(name) for name in IDENTITY}}


def _leaves(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            leaves |= _leaves(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def _options_of_methods() -> set[str]:
    return {f"method.{name}.{key}" for name, node in shipped_nodes("method").items() for key in node}


def _is_same(value: Any, wanted: Any) -> bool:
    """Return True if an option has a wanted value; numbers may be given as text, ``1e-3``, which YAML does not read."""
    if value is None or isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    try:
        return isclose(float(value), float(wanted), rel_tol=1e-9)
    except (TypeError, ValueError):
        return str(value) == str(wanted)
