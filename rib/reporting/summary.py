"""Mean robustness improvement (mRI), its intervals over images and seeds, and tests against plain fine-tuning."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan
from statistics import fmean
from typing import Any

from rib.data.catalog import Catalog
from rib.data.worlds import in_distribution_of
from rib.metrics import (
    Changes,
    Interval,
    PairedTest,
    holm,
    mean_robustness_difference,
    mean_robustness_improvement,
    mean_robustness_interval,
    seed_interval,
)
from rib.reporting.comparability import row_key, settings
from rib.reporting.formatting import cost_of
from rib.reporting.image_changes import Cell, ChangesReader, cell_of, changes_of
from rib.runs.metrics_file import improvement_of
from rib.runs.run import Result
from rib.runs.spec import EXTERNAL
from rib.runs.store import RunStore
from rib.runs.trials import trials_in
from rib.schemas.metrics import Metrics

PLAIN = "finetune"

EXTERNAL_NAME = f"method.{EXTERNAL}.name"
"""Option that holds the name of external weights."""

LEVEL = 0.05
"""Significance level of the adjusted p-values."""


@dataclass(frozen=True)
class Summary:
    """One table row: one model with one method and its settings, over the sources and seeds that were run.

    Attributes:
        model: Name of the model.
        method: Name of the method.
        options: Options that differ from their defaults.
        settings: All settings that tell rows apart, defaults included (`rib.reporting.comparability.settings`).
        improvement: RI by source, the mean over seeds, percentage points.
        seeds: Seeds with a run on every one of these sources.
        over_images: mRI with its interval over images, which are resampled once for all sources and seeds.
        over_seeds: mRI with its interval over ``seeds`` (Student's t); None for fewer than two seeds, and if merged
            runs of two seeds share an ingredient, which makes them dependent (`model_stock`).
        against_plain: Test of mRI minus that of plain fine-tuning of the same model, options, sources and seeds;
            None if that was not run, and for plain fine-tuning itself.
        p_adjusted: Its p-value adjusted by Holm's method for all comparisons of the table.
        val_before: Accuracy on the in-distribution dataset (ImageNet val) before fine-tuning, a fraction; NaN if it was
            not scored, or the suite has none.
        val_after: The same after fine-tuning, the mean over sources and seeds.
        source_before: Accuracy on the source before fine-tuning, a fraction; NaN if it was not scored.
        source_after: The same after fine-tuning, the mean over sources and seeds.
        images_trained: Mean number of images that one run trained on, an image once per epoch, without its ingredients.
        images_scored: Mean number of images that one run scored.
        seconds: Mean time for training (or merging) and scoring one run, without its ingredients.
        devices: Devices that the runs were made on; empty for runs of older versions.
        made_from: Largest number of ingredients of one run; 0 if it trains.
        is_trial: True if `rib.search` made any of its runs to choose a setting.
        by_seed: mRI of each of ``seeds``, percentage points.
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
    images_trained: float
    images_scored: float
    seconds: float
    devices: tuple[str, ...]
    made_from: int
    is_trial: bool
    by_seed: tuple[float, ...] = ()

    @property
    def is_external(self) -> bool:
        """True for weights that were trained outside rib, whose training settings are unknown."""
        return self.method == EXTERNAL

    @property
    def is_significant(self) -> bool:
        """True if the row's mRI differs from that of plain fine-tuning (paired test over images, Holm-corrected)."""
        return self.against_plain is not None and self.p_adjusted < LEVEL


def method_label(metrics: Metrics) -> str:
    """Return a name for a run: its method with the options that differ from the defaults, ``ewc strength=10``."""
    return label_with_options(metrics["method"], metrics["options"])


def own_name(method: str, options: Mapping[str, Any]) -> str:
    """Return a method's name without its options; external weights go by their own name."""
    return label_with_options(method, {k: v for k, v in options.items() if k == EXTERNAL_NAME and method == EXTERNAL})


def label_with_options(method: str, options: Mapping[str, Any]) -> str:
    """Return a method's name followed by options, ``ewc strength=10``; external weights go by their own name."""
    if method == EXTERNAL:
        options = dict(options)
        method = f"{options.pop(EXTERNAL_NAME, 'weights')} ({EXTERNAL})"
    return method + "".join(f" {k.rpartition('.')[2]}={v}" for k, v in options.items())


def summarise(results: Iterable[Result], store: RunStore, catalog: Catalog) -> list[Summary]:
    """Compute the rows of a table: mRI per model, method and settings, the best of each model first.

    Args:
        results: Finished fine-tuned runs that can share a table (`rib.reporting.comparability.group_comparable`).
        store: The store that holds them.
        catalog: Catalog of their datasets.

    Returns:
        One summary per row, with p-values adjusted over all of them.

    Raises:
        RibError: If the `pretrained` run behind a result is gone.
        DamagedError: If predictions cannot be read.
    """
    rows: defaultdict[tuple[str, str, str, str], list[Result]] = defaultdict(list)
    for run, metrics in results:
        rows[row_key(metrics)].append((run, metrics))
    starts = defaultdict(set)
    for model, _, start, _ in rows:
        starts[model].add(start)
    reader = ChangesReader(store, catalog)
    # Read first, and once: all methods of a model are compared with the same plain fine-tuning.
    plain = {row: reader.changes(rows[row]) for row in rows if row[1] == PLAIN}
    summaries, trials = [], trials_in(store)
    for row, group in rows.items():
        model, method, start, _ = row
        changes = plain[row] if row in plain else reader.changes(group)
        baseline = None if method == PLAIN else _plain_row(row, rows)
        against = _test_against(changes, plain[baseline]) if baseline is not None else None
        # Two checkpoints may carry one model name; the start of their keys then tells them apart.
        name = model if len(starts[model]) == 1 else f"{model} ({start[:6]})"
        summaries.append(_summary(name, group, changes, against, trials))
    # Holm's correction needs all p-values of the table, so they are adjusted once every row has one.
    compared = [s for s in summaries if s.against_plain is not None]
    adjusted = iter(holm([s.against_plain.p for s in compared if s.against_plain is not None]))
    summaries = [replace(s, p_adjusted=next(adjusted)) if s.against_plain is not None else s for s in summaries]
    return sorted(summaries, key=lambda s: (s.model, -s.over_images.value))


def summary_of(results: Sequence[Result], store: RunStore, catalog: Catalog) -> Summary:
    """Summarise runs of one model and method, even with different settings, as one table row without significance test.

    Args:
        results: Finished fine-tuned runs, at least one.
        store: The store that holds them.
        catalog: Catalog of their datasets.

    Raises:
        RibError: If the `pretrained` run behind a result is gone.
        DamagedError: If predictions cannot be read.
    """
    return _summary(results[0][1]["model"], results, changes_of(results, store, catalog), None, trials_in(store))


def select_balanced(results: Sequence[Result]) -> list[Result]:
    """Select the results to average, so that every source counts with the same number of seeds.

    These are the seeds with a run on every source; if no seed has one, the first seed of each source.
    """
    cells, _ = _balanced_cells(cell_of(m) for _, m in results)
    return [(run, m) for run, m in results if cell_of(m) in cells]


def _plain_row(
    row: tuple[str, str, str, str], rows: Mapping[tuple[str, str, str, str], Sequence[Result]]
) -> tuple[str, str, str, str] | None:
    """Find the row of plain fine-tuning that a method's row is compared with.

    It has the same model and the same settings, apart from those of methods. If there is none, the same given options
    are enough: a method with its own default learning rate is compared with plain fine-tuning at the usual one.
    """
    candidates = [other for other in rows if other[1] == PLAIN and (other[0], other[2]) == (row[0], row[2])]
    for fields in (settings, lambda metrics: metrics["options"]):

        def general(key: tuple[str, str, str, str], fields: Any = fields) -> dict[str, Any]:
            of_methods = ("method.", "paper.")
            return {k: v for k, v in fields(rows[key][0][1]).items() if not k.startswith(of_methods)}

        if same := [other for other in candidates if general(other) == general(row)]:
            return same[0]
    return None


def _test_against(
    changes: Mapping[Cell, Sequence[Changes]], plain: Mapping[Cell, Sequence[Changes]]
) -> PairedTest | None:
    """Test a method's mRI against plain fine-tuning on the sources and seeds that both have; None if there are none."""
    cells, _ = _balanced_cells(changes.keys() & plain.keys())
    if not cells:
        return None
    return mean_robustness_difference({cell: changes[cell] for cell in cells}, {cell: plain[cell] for cell in cells})


def _balanced_cells(cells: Iterable[Cell]) -> tuple[list[Cell], tuple[int, ...]]:
    """Return the (source, seed) pairs to average over, and the seeds that have a run on every source.

    A source with more seeds than the others must not weigh more, so only complete seeds count. If no seed is complete,
    each source enters with its first one.
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
    cells, complete = _balanced_cells(by_cell)
    values = {cell: improvement_of(by_cell[cell])["value"] for cell in cells}
    sources = dict.fromkeys(source for source, _ in cells)
    balanced = [by_cell[cell] for cell in cells]
    each_seed = [mean_robustness_improvement({s: values[s, seed] for s in sources}) for seed in complete]
    on_source = [_before_and_after(m, m["source"]) for m in balanced]
    costs = [cost_of(m) for m in balanced]
    on_val = [_before_and_after(m, in_distribution_of(m["data"]["kind"])) for m in balanced]
    return Summary(
        model,
        balanced[0]["method"],
        balanced[0]["options"],
        settings(balanced[0]),
        {source: fmean(value for (s, _), value in values.items() if s == source) for source in sources},
        complete,
        mean_robustness_interval({cell: changes[cell] for cell in cells}),
        None if _share_ingredients(balanced) else seed_interval(each_seed),
        against,
        nan,
        val_before=fmean(before for before, _ in on_val),
        val_after=fmean(after for _, after in on_val),
        source_before=fmean(before for before, _ in on_source),
        source_after=fmean(after for _, after in on_source),
        images_trained=fmean(cost["images_trained"] for cost in costs),
        images_scored=fmean(cost["images_scored"] for cost in costs),
        devices=tuple(dict.fromkeys(cost["device"] for cost in costs if "device" in cost)),
        seconds=fmean(m["seconds"]["fit"] + m["seconds"]["evaluate"] for m in balanced),
        made_from=max(len(m.get("ingredients", [])) for m in balanced),
        is_trial=any(run.key in trials for run, _ in group),
        by_seed=tuple(each_seed),
    )


def _before_and_after(metrics: Metrics, dataset: str | None) -> tuple[float, float]:
    """Return the accuracy on a dataset before and after fine-tuning, as fractions; NaN if it was not scored."""
    entry = metrics["accuracy"].get(dataset or "")
    return (nan, nan) if entry is None else (entry["before"], entry["after"])


def _share_ingredients(balanced: Sequence[Metrics]) -> bool:
    """Return True if merged runs of two seeds use the same fine-tuned run, so that they are not independent."""
    seeds_of: defaultdict[str, set[int | None]] = defaultdict(set)
    for m in balanced:
        for ingredient in m.get("ingredients", []):
            if ingredient["source"] != "none":  # the pretrained model is shared by design, and has no seed
                seeds_of[ingredient["fingerprint"]].add(m["seed"])
    return any(len(seeds) > 1 for seeds in seeds_of.values())
