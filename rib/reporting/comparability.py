"""Group runs whose results may be compared in one table, and name the settings in which the groups differ.

A table row is one model with one method under one set of settings; its cells are sources, with one run per seed. Runs
share a table if the fields that apply to the whole table (`SHARED`) agree, and if the runs of each cell agree in
everything but the seed. Settings that may differ between rows (a learning rate, a strength) never differ within a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rib.data.worlds import is_suite
from rib.reporting.heads import is_per_source, other_images, other_outputs, start_of
from rib.runs.metrics_file import improvement_of, is_older, numerics_of
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
"""Fields of metrics.json that must be equal in all runs of a table, besides the suite and ImageNet-C's resizing."""

OF_A_SUITE = ("protocol.targets", "protocol.reported")
"""Fields that identify a suite: its datasets, not its name. Older results lack them and are compared by name."""

NAMES = {
    "numerics": "version of the numerics",
    "evaluation_precision": "evaluation.precision",
    "reported": "reported datasets",
    "warmup_steps": "optimizer.warmup_steps",
    "processes": "number of processes",
    **{name: f"data.{name}" for name in ("label_rule", "image_backend", "limit", "identity")},
}
"""Names of fields of ``protocol`` in messages: those of the options where there is one."""

SETTINGS = {
    "epochs": "epochs",
    "batch_size": "batch_size",
    "batch_norm": "batch_norm",
    "optimizer.lr": "lr",
    "data.holdout": "holdout",
}
"""Protocol fields that are compared even when the option was not given: its default may change between versions."""

OF_ONE_SOURCE = ("objectnet_training", "incomplete", "paper.objectnet_loss")
"""Switches that are set only by runs on certain sources, so they must not split a row."""


def settings(metrics: Metrics) -> dict[str, Any]:
    """Return the settings of a run that distinguish its table row from others of the same model and method.

    Args:
        metrics: Of one run.

    Returns:
        Its options, the protocol values behind them (`SETTINGS`), and the switches for the paper's errata.
    """
    protocol = metrics["protocol"]
    # Permission to train on ObjectNet is an option of runs on that source alone, and changes no number.
    options = {k: v for k, v in metrics["options"].items() if k != "data.objectnet_training"}
    switches = {k: v for k, v in protocol["switches"].items() if k not in OF_ONE_SOURCE}
    return {**{key: protocol.get(name) for key, name in SETTINGS.items()}, **switches, **options}


def row_key(metrics: Metrics) -> tuple[str, str, str, str]:
    """Return a run's model, method, pretrained run and settings, which identify its table row.

    The pretrained run is part of it because two checkpoints may carry the same model name. Pretrained runs with a probe
    for each source count as one.
    """
    return metrics["model"], metrics["method"], start_of(metrics), repr(sorted(settings(metrics).items()))


@dataclass
class Group:
    """Results of finished runs that are comparable, so that one table can hold them.

    Attributes:
        results: Runs with their metrics; a run that was scored twice for the same table appears once.
    """

    results: list[Result] = field(default_factory=list)
    _cells: dict[tuple[Any, ...], dict[int | None, Metrics]] = field(default_factory=dict)

    def differences(self, metrics: Metrics) -> list[str]:
        """List why a run is not comparable with this group, such as ``data.limit 60, not null``; empty if it is."""
        if not self.results:
            return []
        # Every member agrees with the first on the table's fields, so comparing these with the first one is enough.
        first = self.results[0][1]
        fields = [_table_fields(first), _table_fields(metrics)]
        if metrics["protocol"]["precision"] is None:
            # External weights: their scores do not depend on the precision that they were trained in, which is unknown.
            fields[1]["protocol.precision"] = fields[0]["protocol.precision"]
        others = [test(self._members(), metrics) for test in (other_images, other_outputs)]
        if reasons := [*_compare_targets(first, metrics), *_compare(*fields), *others[0], *others[1]]:
            named = any(reason.startswith("different images") for reason in reasons)
            return _shorten([*reasons, *([] if named else _compare_images(first, metrics))])
        return self._differences_in_cell(metrics)

    def _members(self) -> Iterator[Metrics]:
        return (metrics for _, metrics in self.results)

    def _differences_in_cell(self, metrics: Metrics) -> list[str]:
        cell, seed = self._cell(metrics), metrics["seed"]
        if not cell:
            return []
        name = f"{metrics['model']} {metrics['method']} on {metrics['source']}"
        # The runs of a cell agree in these fields, so comparing them with the first one is enough.
        if changes := _compare(_cell_fields(next(iter(cell.values()))), _cell_fields(metrics)):
            return [f"{name}: {line}" for line in changes]
        if seed in cell and cell[seed]["fingerprint"] != metrics["fingerprint"]:
            keys = f"{cell[seed]['fingerprint']} and {metrics['fingerprint']}"
            return [f"{name} seed {seed} appears twice (fingerprints {keys})"]
        return []

    def add(self, result: Result) -> None:
        """Add a run's result to the group, after `differences` has found it comparable (returned an empty list)."""
        # A seed that is there already has the same fingerprint: it is the same run, with another metrics file.
        cell = self._cell(result[1])
        if result[1]["seed"] not in cell:
            cell[result[1]["seed"]] = result[1]
            self.results.append(result)

    def _cell(self, metrics: Metrics) -> dict[int | None, Metrics]:
        return self._cells.setdefault((*row_key(metrics), metrics["source"]), {})


def group_comparable(results: Iterable[Result]) -> list[Group]:
    """Split results of runs into groups of comparable ones, each of which can be one table.

    Args:
        results: Finished runs, each with its metrics.

    Returns:
        Groups made by this version of rib first; of these, all images before ``data.limit`` and the user's data before
        suites of the user's own before mini, and those of one suite together; then larger groups first.
    """
    groups: list[Group] = []
    # External weights, whose precision is unknown, fit into groups that do not fit together, so they come last.
    for result in sorted(results, key=lambda result: result[1]["protocol"]["precision"] is None):
        match = next((group for group in groups if not group.differences(result[1])), None)
        if match is None:
            groups.append(match := Group())
        match.add(result)
        groups.sort(key=_rank)
    return groups


def _rank(group: Group) -> tuple[bool, bool, bool, str, int]:
    metrics = group.results[0][1]
    kind = metrics["data"]["kind"]
    quick, toy = metrics["protocol"]["limit"] is not None, kind == "mini"
    return is_older(metrics), quick, toy, kind if is_suite(kind) else "", -len(group.results)


def _table_fields(metrics: Metrics) -> dict[str, Any]:
    """Return the fields of a run that must be equal in all runs of a table."""
    leaves = {**_leaves(metrics), "protocol.numerics": numerics_of(metrics)}
    if is_per_source(metrics):  # part of its source trains the probe, so images differ there; `other_images`
        leaves["data.digest"] = None
    in_ri = {*improvement_of(metrics)["targets"], metrics["source"]}
    only_named = not all(key in leaves for key in OF_A_SUITE)
    return {
        "suite": metrics["suite"] if only_named else None,
        **{key: leaves.get(key) for key in (*SHARED, *OF_A_SUITE)},
        # A switch that is left out of the file is off.
        "paper.resize_imagenet_c": metrics["protocol"]["switches"].get("paper.resize_imagenet_c", False),
        "number of classes": len(metrics["data"]["suite"]["classes"]) if "suite" in metrics["data"] else None,
        "head": "one for each source" if is_per_source(metrics) else "one for all sources",
        "scored and not in RI": ", ".join(name for name in metrics["accuracy"] if name not in in_ri) or "none",
    }


def _cell_fields(metrics: Metrics) -> dict[str, Any]:
    """Return the protocol fields that must be equal in runs of the same row and source, but not in the whole table."""
    own = {k: v for k, v in _leaves(metrics["protocol"], "protocol.").items() if k not in (*SHARED, *OF_A_SUITE)}
    return {**own, "pretrained run": metrics["before"]}


def _compare_targets(first: Metrics, second: Metrics) -> list[str]:
    """List targets that only one of two runs has; empty unless a metrics.json is too old to list its suite's datasets.

    Two suites of one name may have different targets. Older results show theirs only as the targets of RI, which never
    include the run's own source.
    """
    if all(key.removeprefix("protocol.") in m["protocol"] for key in OF_A_SUITE for m in (first, second)):
        return []
    targets = [{*improvement_of(m)["targets"]} - {first["source"], second["source"]} for m in (first, second)]
    changes = (("without", targets[0] - targets[1]), ("also with", targets[1] - targets[0]))
    return [f"{how} the targets {', '.join(sorted(names))}" for how, names in changes if names]


def _compare_images(first: Metrics, second: Metrics) -> list[str]:
    """List the datasets on which two runs were scored on different images; empty if their data digests are equal."""
    if first["data"]["digest"] == second["data"]["digest"]:
        return []
    images = [{name: score["images"] for name, score in m["scores"].items()} for m in (first, second)]
    names = dict.fromkeys([*images[0], *images[1]])
    return ["different images of " + ", ".join(name for name in names if images[0].get(name) != images[1].get(name))]


def _compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    keys = dict.fromkeys([*first, *second])
    values = {key: (first.get(key), second.get(key)) for key in keys}
    names = {key: NAMES.get(short := key.removeprefix("protocol."), short) for key in keys}
    return [f"{names[key]} {_spell(b)}, not {_spell(a)}" for key, (a, b) in values.items() if a != b]


def _shorten(reasons: Sequence[str]) -> list[str]:
    """Leave out what follows from another reason: a digest that differs, and images that data.limit has left out."""
    because = any(reason.startswith(("data.limit ", "data.kind ")) for reason in reasons)
    words = [reason for reason in reasons if not (because and reason.startswith("different images"))]
    return [word for word in words if not word.startswith("data.digest ")] or words


def _spell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "null" if value is None else str(value)


def _leaves(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten ``{"protocol": {"limit": 60}}`` to ``{"protocol.limit": 60}``; deeper mappings stay whole."""
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping) and key in ("data", "protocol", "switches"):
            leaves |= _leaves(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves
