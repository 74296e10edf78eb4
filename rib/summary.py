"""From many runs to mRI, with the two intervals that answer different questions: over images and over seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from statistics import fmean
from typing import Any

from rib.data.catalog import Catalog
from rib.errors import RibError
from rib.metrics import Changes, Interval, mean_robustness_improvement, mean_robustness_interval, seed_interval
from rib.results import Scored, read_paths
from rib.store import Run, RunStore


@dataclass(frozen=True)
class Summary:
    """One model with one method and options, over the sources and seeds that were run.

    Attributes:
        model: Its name.
        method: Its name with the options that are not default.
        improvement: RI by source, the mean over seeds, percentage points.
        seeds: Seeds that have every one of these sources.
        over_images: mRI, resampling images once for all sources and seeds.
        over_seeds: mRI, Student's t over ``seeds``; None for fewer than two.
        source_before: Accuracy on the source, the mean over sources, a fraction; nan where it was not scored.
        source_after: The same after fine-tuning, and over seeds.
        seconds: Training (or merging) and scoring of one run, the mean; its ingredients not counted.
        made_from: Runs that one is made from, the largest number; 0 for one that trains.
    """

    model: str
    method: str
    improvement: dict[str, float]
    seeds: tuple[int, ...]
    over_images: Interval
    over_seeds: Interval | None
    source_before: float
    source_after: float
    seconds: float
    made_from: int


def summarise(
    runs: Iterable[tuple[Run, Mapping[str, Any]]], store: RunStore, catalog: Catalog, before: Mapping[str, Run]
) -> list[Summary]:
    """MRI of each model and method.

    Args:
        runs: Finished, fine-tuned and comparable (`rib.tables.comparable`), each with its metrics.
        store: Where they are.
        catalog: Their world.
        before: The `pretrained` runs by their key.

    Raises:
        RibError: If the `pretrained` run behind a result is gone.
    """
    groups: defaultdict[tuple[str, str, str], list[tuple[Mapping[str, Any], Run]]] = defaultdict(list)
    for run, metrics in runs:
        if metrics["before"] not in before:
            raise RibError(
                f"{run.folder} was compared with a pretrained run that is gone; "
                f"make it again with python -m rib.train +method=pretrained model={metrics['model']}"
            )
        # Two starts under one name (another model.weights) are two models.
        groups[metrics["model"], method_label(metrics), metrics["before"]].append((metrics, run))
    return [
        _summary(model, method, group, store, catalog, before[start])
        for (model, method, start), group in sorted(groups.items())
    ]


def method_label(metrics: Mapping[str, Any]) -> str:
    """``ewc strength=10``."""
    return f"{metrics['method']}" + "".join(f" {k.rpartition('.')[2]}={v}" for k, v in metrics["options"].items())


def _summary(
    model: str,
    method: str,
    group: Sequence[tuple[Mapping[str, Any], Run]],
    store: RunStore,
    catalog: Catalog,
    before: Run,
) -> Summary:
    values: defaultdict[int, dict[str, float]] = defaultdict(dict)
    changes = {}
    for metrics, run in group:
        values[metrics["seed"]][metrics["source"]] = metrics["robustness_improvement"]["value"]
        changes[metrics["source"], metrics["seed"]] = _changes(metrics, run, store, catalog, before)
    sources = sorted({source for by_source in values.values() for source in by_source})
    complete = tuple(sorted(seed for seed, by_source in values.items() if len(by_source) == len(sources)))
    # A mean over sources: a source with more seeds than the others must not weigh more, so only complete seeds count.
    # Where no seed is complete each source enters with its first.
    firsts = {source: min(seed for seed in values if source in values[seed]) for source in sources}
    used = {(s, seed) for s in sources for seed in (complete or (firsts[s],))}
    improvement = {s: fmean(values[seed][s] for source, seed in used if source == s) for s in sources}
    over_images = mean_robustness_interval({pair: changes[pair] for pair in sorted(used)})
    over_seeds = seed_interval([mean_robustness_improvement(values[seed]) for seed in complete])
    counted = [m for m, _ in group if (m["source"], m["seed"]) in used]
    on_source = [m["accuracy"].get(m["source"], {"before": nan, "after": nan}) for m in counted]
    return Summary(
        model,
        method,
        improvement,
        complete,
        over_images,
        over_seeds,
        source_before=fmean(entry["before"] for entry in on_source),
        source_after=fmean(entry["after"] for entry in on_source),
        seconds=fmean(m["seconds"]["fit"] + m["seconds"]["evaluate"] for m in counted),
        made_from=max(len(m.get("ingredients", [])) for m in counted),
    )


def _changes(metrics: Mapping[str, Any], run: Run, store: RunStore, catalog: Catalog, before: Run) -> list[Changes]:
    derived_from = {name: spec.derived_from for name, spec in catalog.specs.items()}
    found = []
    for name in metrics["robustness_improvement"]["targets"]:
        score = metrics["scores"][name]
        scored = Scored.of(
            name,
            before.scored(name, score["key"]),
            run.scored(name, score["key"]),
            read_paths(store.root, score["images"]),
            catalog,
        )
        found += scored.changes(derived_from)
    return found
