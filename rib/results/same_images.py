"""Check that two runs were scored on the same images, and say what else differs between them."""

from __future__ import annotations

from collections.abc import Sequence

from rib.data.worlds import describe_kind, title_of
from rib.errors import RibError
from rib.results.finished_run import FinishedRun
from rib.runs.recorded import suite_word
from rib.runs.spec import PRETRAINED
from rib.schemas.metrics import Metrics

SCORING = {
    "numerics": "versions of rib",
    "evaluation_precision": "precisions of scoring",
    "image_backend": "libraries for decoding images",
}
"""Protocol fields that may differ between compared runs but are noted."""


def shared_datasets(first: FinishedRun, second: FinishedRun) -> list[str]:
    """Return the datasets that both runs were scored on.

    Raises:
        RibError: If their data differ.
    """
    ours, theirs = first.metrics, second.metrics
    where = f"{first.key} and {second.key} cannot be compared"
    if ours["data"]["kind"] != theirs["data"]["kind"]:
        worlds = [describe_kind(m["data"]["kind"]) for m in sorted((ours, theirs), key=_is_real)]
        raise RibError(f"{where}: one was scored on {worlds[0]}, the other on {worlds[1]}")
    shared = [name for name in ours["accuracy"] if name in theirs["accuracy"]]
    if not shared:
        word = suite_word(ours["data"]["kind"], ours["suite"])
        raise RibError(
            f"{where}: they share no dataset (suites {ours['suite']} and {theirs['suite']}); score one of them on the "
            f"other's suite with python -m rib.evaluate runs={second.run.folder} {word}"
        )
    rules = ours["protocol"]["label_rule"], theirs["protocol"]["label_rule"]
    if rules[0] != rules[1] and "objectnet" in shared:
        raise RibError(
            f"{where}: they count ObjectNet's classes by other rules (data.label_rule {' and '.join(rules)})"
        )
    other = [name for name in shared if ours["scores"][name]["images"] != theirs["scores"][name]["images"]]
    if other:
        limits = [m["protocol"]["limit"] for m in (ours, theirs)]
        why = f" (data.limit {_or_all(limits[0])} and {_or_all(limits[1])})" if limits[0] != limits[1] else ""
        raise RibError(
            f"{where}: they were scored on different images of {', '.join(other)}{why}; make or score both with the "
            "same data options"
        )
    return shared


def _is_real(metrics: Metrics) -> bool:
    return metrics["data"]["kind"] != "mini"


def _or_all(limit: int | None) -> str:
    return "null" if limit is None else str(limit)


def differences_in_training(first: FinishedRun, second: FinishedRun) -> list[str]:
    """Return in words which of model, source and seed differ between two runs; nothing of a run and its own start."""
    ours, theirs = first.metrics, second.metrics
    found = []
    if ours["model"] != theirs["model"]:
        found.append(f"models differ: {ours['model']} and {theirs['model']}; each change is against its own start")
    if PRETRAINED in (ours["method"], theirs["method"]):  # it has neither source nor seed
        return found
    if ours["source"] != theirs["source"]:
        titles = [title_of(m["source"], m["data"]["kind"]) for m in (ours, theirs)]
        found.append(f"sources differ: {' and '.join(titles)}; neither is a target of the difference in RI")
    if ours["seed"] != theirs["seed"]:
        seeds = ["none" if m["seed"] is None else str(m["seed"]) for m in (ours, theirs)]
        found.append(f"seeds differ: {' and '.join(seeds)}")
    return found


def differences_in_scoring(first: FinishedRun, second: FinishedRun) -> list[str]:
    """Return in words what differs in how two runs were scored, without making them incomparable; usually nothing."""
    ours, theirs = first.metrics, second.metrics
    found = [
        f"different {words}: {ours['protocol'].get(key)} and {theirs['protocol'].get(key)}"
        for key, words in SCORING.items()
        if ours["protocol"].get(key) != theirs["protocol"].get(key)
    ]
    alone: Sequence[str] = sorted(ours["accuracy"].keys() ^ theirs["accuracy"].keys())
    return [*found, *([f"scored in one of the runs only: {', '.join(alone)}"] if alone else [])]
