"""Which results may stand in one table, and what differs between those that may not.

A row of a table is one model with one method under the same settings; its cells are sources, with a run a seed. Runs
share a table if what holds for all of it agrees (`SHARED`), and if the runs of each cell agree in everything but their
seed. Settings that may differ between rows (a learning rate, a strength) never differ within one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rib.runs.metrics_file import improvement_of, is_older, numerics_of, older_words
from rib.runs.run import Result
from rib.schemas.metrics import Metrics

SHARED = (
    "data.kind",
    "data.digest",
    "protocol.numerics",
    "protocol.experiment",
    "protocol.precision",
    "protocol.evaluation_precision",
    "protocol.label_rule",
    "protocol.image_backend",
    "protocol.limit",
)
"""What must agree before two results stand in one table, besides their suites and how ImageNet-C is read."""

OF_A_SUITE = ("protocol.targets", "protocol.reported")
"""A suite is its datasets, whatever it is called; results from before these were stamped have its name alone."""

SETTINGS = {
    "epochs": "epochs",
    "batch_size": "batch_size",
    "batch_norm": "batch_norm",
    "optimizer.lr": "lr",
    "data.holdout": "holdout",
}
"""Options that have a value in every run's protocol, given or not: a default may change between versions of rib."""

OF_ONE_SOURCE = ("objectnet_training", "incomplete", "paper.objectnet_loss")
"""Switches that only runs on some source have."""


def settings(metrics: Metrics) -> dict[str, Any]:
    """What makes a row besides model and method: its options, the protocol behind them, and the paper's switches."""
    protocol = metrics["protocol"]
    options = {k: v for k, v in metrics["options"].items() if k != "data.objectnet_training"}
    switches = {k: v for k, v in protocol["switches"].items() if k not in OF_ONE_SOURCE}
    return {**{key: protocol.get(name) for key, name in SETTINGS.items()}, **switches, **options}


def row_of(metrics: Metrics) -> tuple[str, str, str, str]:
    """Model, method, start (two starts under one name are two models) and settings, to tell rows apart."""
    return metrics["model"], metrics["method"], metrics["before"], repr(sorted(settings(metrics).items()))


@dataclass
class Group:
    """Results that may stand in one table.

    Attributes:
        results: Each with its metrics; a run that was scored for the same table twice is there once.
    """

    results: list[Result] = field(default_factory=list)
    _cells: dict[tuple[Any, ...], dict[int | None, Metrics]] = field(default_factory=dict)

    def differences(self, metrics: Metrics) -> list[str]:
        """Why a result may not join, ``protocol.limit 60, not null``; empty if it may."""
        if not self.results:
            return []
        first = self.results[0][1]
        facts = [_facts(first), _facts(metrics)]
        if found := [*_other_targets(first, metrics), *_differing(*facts)]:
            return [*found, *_other_images(first, metrics)]
        for seed, there in self._cell(metrics).items():
            where = f"{metrics['model']} {metrics['method']} on {metrics['source']}"
            if differing := _differing(_protocol(there), _protocol(metrics)):
                return [f"{where}: {line}" for line in differing]
            if seed == metrics["seed"] and there["fingerprint"] != metrics["fingerprint"]:
                keys = f"{there['fingerprint']} and {metrics['fingerprint']}"
                return [f"{where} seed {seed} is there twice (fingerprints {keys})"]
        return []

    def add(self, result: Result) -> None:
        """Take a result that `differences` has nothing against."""
        cell = self._cell(result[1])
        if result[1]["seed"] not in cell:
            cell[result[1]["seed"]] = result[1]
            self.results.append(result)

    def _cell(self, metrics: Metrics) -> dict[int | None, Metrics]:
        return self._cells.setdefault((*row_of(metrics), metrics["source"]), {})


def comparable(results: Iterable[Result]) -> list[Group]:
    """Results in groups, each of which may stand in one table: those of this version of rib first, then by size."""
    groups: list[Group] = []
    for result in results:
        home = next((group for group in groups if not group.differences(result[1])), None)
        if home is None:
            groups.append(home := Group())
        home.add(result)
    return sorted(groups, key=lambda group: (is_older(group.results[0][1]), -len(group.results)))


def what_differs(groups: Sequence[Group]) -> list[str]:
    """One line a group after the first: what sets it apart from that; and one of each that an older version made."""
    lines = []
    for number, group in enumerate(groups):
        metrics, count = group.results[0][1], len(group.results)
        if is_older(metrics):
            lines.append(
                f"{count} of the runs: each {older_words(metrics)}, whose numbers this one makes no more; they have "
                "tables of their own, and the command that made one makes it anew"
            )
        elif number:
            apart = "; ".join(groups[0].differences(metrics))
            lines.append(f"{count} of the runs share no table with the first {len(groups[0].results)}: {apart}")
    return lines


def _facts(metrics: Metrics) -> dict[str, Any]:
    leaves = {**_leaves(metrics), "protocol.numerics": numerics_of(metrics)}
    in_ri = {*improvement_of(metrics)["targets"], metrics["source"]}
    named = not all(key in leaves for key in OF_A_SUITE)
    return {
        "suite": metrics["suite"] if named else None,
        **{key: leaves.get(key) for key in (*SHARED, *OF_A_SUITE)},
        "paper.resize_imagenet_c": metrics["protocol"]["switches"].get("paper.resize_imagenet_c", False),
        "scored and not in RI": ", ".join(name for name in metrics["accuracy"] if name not in in_ri) or "none",
    }


def _protocol(metrics: Metrics) -> dict[str, Any]:
    """What two seeds of a cell must share of the protocol, besides what the whole table does."""
    return {k: v for k, v in _leaves(metrics["protocol"], "protocol.").items() if k not in (*SHARED, *OF_A_SUITE)}


def _other_targets(first: Metrics, second: Metrics) -> list[str]:
    """Names the targets of two suites that differ although they may be called alike; a source is no target of its own.

    Suites that stamp their datasets are compared by these; results from before that say it by the targets of RI.
    """
    if all(key in _leaves(m) for key in OF_A_SUITE for m in (first, second)):
        return []
    targets = [{*improvement_of(m)["targets"]} - {first["source"], second["source"]} for m in (first, second)]
    changes = (("without", targets[0] - targets[1]), ("also with", targets[1] - targets[0]))
    return [f"{how} the targets {', '.join(sorted(which))}" for how, which in changes if which]


def _other_images(first: Metrics, second: Metrics) -> list[str]:
    """Names the datasets behind two data digests that differ."""
    if first["data"]["digest"] == second["data"]["digest"]:
        return []
    images = [{name: score["images"] for name, score in m["scores"].items()} for m in (first, second)]
    names = dict.fromkeys([*images[0], *images[1]])
    return ["other images of " + ", ".join(name for name in names if images[0].get(name) != images[1].get(name))]


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    keys = dict.fromkeys([*first, *second])
    values = {key: (first.get(key), second.get(key)) for key in keys}
    return [f"{key} {_said(b)}, not {_said(a)}" for key, (a, b) in values.items() if a != b]


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "null" if value is None else str(value)


def _leaves(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"protocol.limit": 60}``; what lies deeper than two names stays whole."""
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping) and key in ("data", "protocol", "switches"):
            leaves |= _leaves(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves
