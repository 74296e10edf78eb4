"""From many runs to mRI: over sources and seeds, with its two intervals, and against plain fine-tuning."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import nan
from statistics import fmean
from typing import Any, TypeVar, cast

from rib.data.catalog import Catalog
from rib.errors import DamagedError, RibError
from rib.metrics import (
    IN_DISTRIBUTION,
    Changes,
    Interval,
    PairedTest,
    holm,
    mean_robustness_difference,
    mean_robustness_improvement,
    mean_robustness_interval,
    seed_interval,
)
from rib.reporting.comparability import row_of, settings
from rib.runs.command import command_of, scoring_command_of
from rib.runs.measure import PairedPredictions, read_paths
from rib.runs.metrics_file import AGAIN, improvement_of
from rib.runs.predictions import Predictions
from rib.runs.run import Result, Run
from rib.runs.spec import PRETRAINED
from rib.runs.store import RunStore
from rib.runs.trials import trials_in
from rib.schemas.metrics import Metrics

T = TypeVar("T")

PLAIN = "finetune"

LEVEL = 0.05
"""Below which an adjusted p-value counts as a difference."""

Cell = tuple[str, int]
"""A source and a seed."""


@dataclass(frozen=True)
class Summary:
    """One model with one method and settings, over the sources and seeds that were run.

    Attributes:
        model: Its name.
        method: Its name.
        options: Those that are not default.
        settings: Those that tell rows apart, defaults among them (`rib.reporting.comparability.settings`).
        improvement: RI by source, the mean over seeds, percentage points.
        seeds: Seeds that have every one of these sources.
        over_images: mRI, resampling images once for all sources and seeds.
        over_seeds: mRI, Student's t over ``seeds``; None for fewer than two, and where seeds share a run that they are
            made from (`model_stock` at seeds 0 and 1: both have 1), so that they are not independent.
        against_plain: mRI minus that of plain fine-tuning of the same model under the same general options, over the
            sources and seeds that both have; None where that was not run, and for plain fine-tuning itself.
        p_adjusted: Its p-value by Holm over all comparisons of the table.
        val_before: Accuracy on ImageNet val, a fraction; nan where it was not scored.
        val_after: The same after fine-tuning, the mean over sources and seeds.
        source_before: Accuracy on the source, the mean over sources, a fraction; nan where it was not scored.
        source_after: The same after fine-tuning, and over seeds.
        seconds: Training (or merging) and scoring of one run, the mean; its ingredients not counted.
        made_from: Runs that one is made from, the largest number; 0 for one that trains.
        is_trial: Whether any of its runs was made by `rib.search` to choose a setting.
    """

    model: str
    method: str
    options: Mapping[str, Any]
    settings: Mapping[str, Any]
    improvement: Mapping[str, float]
    seeds: tuple[int, ...]
    over_images: Interval
    over_seeds: Interval | None
    against_plain: PairedTest | None
    p_adjusted: float
    val_before: float
    val_after: float
    source_before: float
    source_after: float
    seconds: float
    made_from: int
    is_trial: bool

    @property
    def stands(self) -> bool:
        """Whether it differs from plain fine-tuning, over images, after Holm."""
        return self.against_plain is not None and self.p_adjusted < LEVEL


def method_label(metrics: Metrics) -> str:
    """A run's method with the options that are not default, ``ewc strength=10``."""
    return labelled(metrics["method"], metrics["options"])


def cell_of(metrics: Metrics) -> Cell:
    """Source and seed of a run."""
    # Weights from elsewhere have no seed: their None only ever meets itself, and counts as one.
    return metrics["source"], cast("int", metrics["seed"])


def labelled(method: str, options: Mapping[str, Any]) -> str:
    """A method's name with some options behind it, ``ewc strength=10``."""
    return method + "".join(f" {k.rpartition('.')[2]}={v}" for k, v in options.items())


def summarise(results: Iterable[Result], store: RunStore, catalog: Catalog) -> list[Summary]:
    """MRI of each row of a table, the best of each model first.

    Args:
        results: Finished, fine-tuned and comparable (`rib.reporting.comparability.comparable`).
        store: Where they are.
        catalog: Their world.

    Raises:
        RibError: If the `pretrained` run behind a result is gone.
    """
    rows: defaultdict[tuple[str, str, str, str], list[Result]] = defaultdict(list)
    for run, metrics in results:
        rows[row_of(metrics)].append((run, metrics))
    starts = defaultdict(set)
    for model, _, start, _ in rows:
        starts[model].add(start)
    reader = _Reader(store, catalog)
    plain = {row: reader.changes(rows[row]) for row in rows if row[1] == PLAIN}
    summaries, trials = [], trials_in(store)
    for row, group in rows.items():
        model, method, start, _ = row
        changes = plain[row] if row in plain else reader.changes(group)
        other = None if method == PLAIN else _plain_row(row, rows)
        against = _against(changes, plain[other]) if other is not None else None
        name = model if len(starts[model]) == 1 else f"{model} ({start[:6]})"
        summaries.append(_summary(name, group, changes, against, trials))
    compared = [s for s in summaries if s.against_plain is not None]
    adjusted = iter(holm([s.against_plain.p for s in compared if s.against_plain is not None]))
    summaries = [replace(s, p_adjusted=next(adjusted)) if s.against_plain is not None else s for s in summaries]
    return sorted(summaries, key=lambda s: (s.model, -s.over_images.value))


def summary_of(results: Sequence[Result], store: RunStore, catalog: Catalog) -> Summary:
    """Results of one model and method as one row, whatever else differs between them; compared with nothing.

    Raises:
        RibError: If the `pretrained` run behind a result is gone.
    """
    return _summary(results[0][1]["model"], results, changes_of(results, store, catalog), None, trials_in(store))


def counted(results: Sequence[Result]) -> list[Result]:
    """The results that a mean over sources is taken over: those of seeds that have every source, if there are any."""
    used, _ = _used(cell_of(m) for _, m in results)
    return [(run, m) for run, m in results if cell_of(m) in used]


def changes_of(
    results: Sequence[Result], store: RunStore, catalog: Catalog, datasets: Sequence[str] | None = None
) -> dict[Cell, list[Changes]]:
    """What fine-tuning did to every image of every target, by source and seed.

    Args:
        results: Runs of one model with one method and settings.
        store: Where they are.
        catalog: Their world.
        datasets: Other scored datasets in the place of the targets.

    Raises:
        RibError: If the `pretrained` run behind a result is gone.
    """
    return _Reader(store, catalog, datasets).changes(results)


def _plain_row(
    row: tuple[str, str, str, str], rows: Mapping[tuple[str, str, str, str], Sequence[Result]]
) -> tuple[str, str, str, str] | None:
    """Plain fine-tuning of a row's model, under the same settings, or else the same options, besides the methods' own.

    A method with a learning rate of its own is compared with plain fine-tuning at the usual one.
    """
    candidates = [other for other in rows if other[1] == PLAIN and (other[0], other[2]) == (row[0], row[2])]
    for facts in (settings, lambda metrics: metrics["options"]):

        def general(key: tuple[str, str, str, str], facts: Any = facts) -> dict[str, Any]:
            of_methods = ("method.", "paper.")
            return {k: v for k, v in facts(rows[key][0][1]).items() if not k.startswith(of_methods)}

        if same := [other for other in candidates if general(other) == general(row)]:
            return same[0]
    return None


def _against(changes: Mapping[Cell, Sequence[Changes]], plain: Mapping[Cell, Sequence[Changes]]) -> PairedTest | None:
    """A method against plain fine-tuning over the sources and seeds that both have."""
    used, _ = _used(changes.keys() & plain.keys())
    if not used:
        return None
    return mean_robustness_difference({cell: changes[cell] for cell in used}, {cell: plain[cell] for cell in used})


def _used(cells: Iterable[Cell]) -> tuple[list[Cell], tuple[int, ...]]:
    """The cells that a mean over sources is taken over, and the seeds that have every source.

    A source with more seeds than the others must not weigh more, so only complete seeds count; where no seed is
    complete each source enters with its first.
    """
    seeds_of: defaultdict[str, set[int]] = defaultdict(set)
    for source, seed in cells:
        seeds_of[source].add(seed)
    complete = tuple(sorted(set.intersection(*seeds_of.values()))) if seeds_of else ()
    return [(s, seed) for s in sorted(seeds_of) for seed in complete or (min(seeds_of[s]),)], complete


def _summary(
    model: str,
    group: Sequence[Result],
    changes: Mapping[Cell, Sequence[Changes]],
    against: PairedTest | None,
    trials: Collection[str],
) -> Summary:
    by_cell = {cell_of(m): m for _, m in group}
    used, complete = _used(by_cell)
    values = {cell: improvement_of(by_cell[cell])["value"] for cell in used}
    sources = dict.fromkeys(source for source, _ in used)
    counted = [by_cell[cell] for cell in used]
    each_seed = [mean_robustness_improvement({s: values[s, seed] for s in sources}) for seed in complete]
    on_source = [_before_and_after(m, m["source"]) for m in counted]
    on_val = [_before_and_after(m, IN_DISTRIBUTION) for m in counted]
    return Summary(
        model,
        counted[0]["method"],
        counted[0]["options"],
        settings(counted[0]),
        {source: fmean(value for (s, _), value in values.items() if s == source) for source in sources},
        complete,
        mean_robustness_interval({cell: changes[cell] for cell in used}),
        None if _share_runs(counted) else seed_interval(each_seed),
        against,
        nan,
        val_before=fmean(before for before, _ in on_val),
        val_after=fmean(after for _, after in on_val),
        source_before=fmean(before for before, _ in on_source),
        source_after=fmean(after for _, after in on_source),
        seconds=fmean(m["seconds"]["fit"] + m["seconds"]["evaluate"] for m in counted),
        made_from=max(len(m.get("ingredients", [])) for m in counted),
        is_trial=any(run.key in trials for run, _ in group),
    )


def _before_and_after(metrics: Metrics, dataset: str) -> tuple[float, float]:
    """Accuracy on a dataset, fractions; nan if it was not scored."""
    entry = metrics["accuracy"].get(dataset)
    return (nan, nan) if entry is None else (entry["before"], entry["after"])


def _share_runs(counted: Sequence[Metrics]) -> bool:
    """Whether a fine-tuned run is a part of what was made at two seeds."""
    seeds_of: defaultdict[str, set[int | None]] = defaultdict(set)
    for m in counted:
        for part in m.get("ingredients", []):
            if part["source"] != "none":
                seeds_of[part["fingerprint"]].add(m["seed"])
    return any(len(seeds) > 1 for seeds in seeds_of.values())


@dataclass
class _Reader:
    """Reads stored predictions; a model's own and the datasets' paths, which all its runs need, once."""

    store: RunStore
    catalog: Catalog
    datasets: Sequence[str] | None = None
    _before: dict[tuple[str, str, str], Predictions] = field(default_factory=dict)
    _paths: dict[str, list[str]] = field(default_factory=dict)

    def changes(self, group: Sequence[Result]) -> dict[Cell, list[Changes]]:
        """What fine-tuning did to every image of every target, by source and seed."""
        return {cell_of(m): self._of_run(run, m) for run, m in group}

    def _of_run(self, run: Run, metrics: Metrics) -> list[Changes]:
        derived_from = {name: spec.derived_from for name, spec in self.catalog.specs.items()}
        kind, model, start = metrics["data"]["kind"], metrics["model"], metrics["before"]
        pretrained = self.store.run(kind, model, "none", "pretrained", start)
        found = []
        for name in self.datasets or improvement_of(metrics)["targets"]:
            key, images = metrics["scores"][name]["key"], metrics["scores"][name]["images"]
            if (start, name, key) not in self._before:
                if not (pretrained.folder / "metrics.json").is_file():
                    raise RibError(
                        f"{run.folder} was compared with a pretrained run that is gone; "
                        f"make it again with {command_of(run, metrics, method={PRETRAINED: {}})}"
                    )
                self._before[start, name, key] = _scored(pretrained, name, key)
            if images not in self._paths:
                self._paths[images] = _or_how(partial(read_paths, self.store.root, images), run, metrics)
            before, after = self._before[start, name, key], _scored(run, name, key, metrics)
            found += PairedPredictions.of(name, before, after, self._paths[images], self.catalog).changes(derived_from)
        return found


def _scored(run: Run, name: str, key: str, metrics: Metrics | None = None) -> Predictions:
    return _or_how(lambda: run.load_predictions(name, key), run, metrics)


def _or_how(read: Callable[[], T], run: Run, metrics: Metrics | None) -> T:
    """What is read, or how a finished run, which no command would score again by itself, gets it back."""
    try:
        return read()
    except DamagedError as error:
        fault = str(error).removesuffix(f"; {AGAIN}")
        raise DamagedError(f"{fault}; score its run again with {scoring_command_of(run, metrics)}") from error
