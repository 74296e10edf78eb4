"""Comparison of two finished runs on the same images, pair by pair."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rib.data.catalog import Catalog, nearest_dataset
from rib.data.worlds import catalog_of_run, title_of
from rib.errors import RibError
from rib.metrics import Changes, Interval, robustness_interval
from rib.metrics.few_images import small_sample_interval
from rib.reporting.data_warning import warning_after
from rib.reporting.formatting import with_interval, world
from rib.results import display
from rib.results.finished_run import FinishedRun
from rib.results.images import class_folders, image_table, spec_of, store_of, words_of
from rib.results.same_images import differences_in_scoring, differences_in_training, shared_datasets
from rib.runs.measure import PairedPredictions, interval_dict, read_paths
from rib.runs.predictions import Predictions
from rib.runs.spec import PRETRAINED
from rib.runtime.arguments import explained

if TYPE_CHECKING:
    import pandas as pd


class RunComparison:
    """Difference of two runs on the same images: first minus second. Made by `rib.compare`.

    Images are paired, so the intervals are narrower than those of two separate accuracies suggest: an image counts
    only where one of the two models is right and the other is wrong. In a notebook it shows as a table.

    Args:
        first: A run.
        second: Another one, scored on the same images.

    Attributes:
        first: The first run.
        second: The second run.
        datasets: Names of the datasets that both were scored on, in the order of the tables.
        notes: Sentences on differences beside the method: of model, source or seed, and in how the runs were scored.

    Raises:
        RibError: If the runs' data differ.
    """

    def __init__(self, first: FinishedRun, second: FinishedRun) -> None:
        self.first = first
        self.second = second
        self.datasets = shared_datasets(first, second)
        self.notes = [*differences_in_training(first, second), *differences_in_scoring(first, second)]
        self._paired: dict[str, PairedPredictions] = {}

    @property
    def _catalog(self) -> Catalog:
        return catalog_of_run(self.first.metrics["data"])

    @property
    def _derived_from(self) -> dict[str, str | None]:
        return {name: spec.derived_from for name, spec in self._catalog.specs.items()}

    @cached_property
    def targets(self) -> list[str]:
        """The datasets that count towards the RI of both runs."""
        ours, theirs = self.first.metrics["robustness_improvement"], self.second.metrics["robustness_improvement"]
        if ours is None or theirs is None:
            return []
        return [name for name in self.datasets if name in ours["targets"] and name in theirs["targets"]]

    @cached_property
    def ri(self) -> Interval | None:
        """Difference in RI over `targets` in percentage points, with its 95 % interval over images, and ``ri.p``.

        None if the runs share no target, or both are pretrained models, whose RI is 0 by definition.
        """
        if not self.targets or {self.first.metrics["method"], self.second.metrics["method"]} == {PRETRAINED}:
            return None
        return robustness_interval([change for name in self.targets for change in self._ri_changes(name)])

    def _ri_changes(self, dataset: str) -> list[Changes]:
        """Return what each image adds to the difference in RI: its change under the first run minus the second's."""
        changes = self._pair(dataset).changes(self._derived_from)
        if self.first.metrics["before"] == self.second.metrics["before"]:
            return changes  # both start from the same model, whose predictions cancel
        starts = [run.before or run for run in (self.first, self.second)]
        pair = self._pair_of(dataset, *(start.predictions(dataset) for start in starts))
        before = pair.changes(self._derived_from)
        return [replace(c, change=c.change - b.change) for c, b in zip(changes, before, strict=True)]

    def _pair(self, dataset: str) -> PairedPredictions:
        if dataset not in self.datasets:
            known = ", ".join(self.datasets)
            raise RibError(
                f"{dataset}: not scored in both runs{nearest_dataset(dataset, self.datasets)}; in both: {known}"
            )
        if dataset not in self._paired:
            models = self.first.predictions(dataset), self.second.predictions(dataset)
            self._paired[dataset] = self._pair_of(dataset, *models)
        return self._paired[dataset]

    def _pair_of(self, dataset: str, first: Predictions, second: Predictions) -> PairedPredictions:
        images = self.first.metrics["scores"][dataset]["images"]
        paths = read_paths(store_of(self.first.run).root, images)
        # The difference is "after" minus "before".
        return PairedPredictions.of(dataset, second, first, paths, self._catalog)

    def table(self) -> pd.DataFrame:
        """Return a table with one row per dataset.

        Returns:
            By name of the dataset: ``images``, top-1 accuracy of the ``first`` and ``second`` run in percent, their
            ``difference`` with the ends ``low`` and ``high`` of its 95 % interval over images in percentage points, and
            the numbers of images that only the first run (``won``) or only the second (``lost``) gets right. It prints
            two decimals; the numbers have all. `targets` names the datasets that count towards `ri`.
        """
        from rib.reporting.frame import WholeFrame

        rows = [{"dataset": name, **self._row(self._pair(name))} for name in self.datasets]
        return WholeFrame(rows).set_index("dataset")

    def _row(self, pair: PairedPredictions) -> dict[str, float]:
        entry = pair.accuracy(self._derived_from)
        change = entry["change"]
        return _columns(pair, entry["after"], entry["before"], change["value"], change["low"], change["high"])

    @explained
    def classes(self, dataset: str) -> pd.DataFrame:
        """Return a table with one row per class of a dataset that has images.

        A class may have few images, for which the intervals of `table` would be too narrow, or have no width where no
        image differs. Those of classes are therefore computed with half an image added to each outcome (Agresti & Min
        2005, `rib.metrics.few_images`). There are many classes: of those that do not differ, one in 20 has an
        interval that excludes 0.

        Args:
            dataset: Name of a dataset that both runs were scored on.

        Returns:
            By name of the class (English for ImageNet's): the columns of `table`, and ``folder`` (the name of its
            folder: a WordNet id, ObjectNet's name, or the suite's).
        """
        from rib.reporting.frame import WholeFrame

        pair = self._pair(dataset)
        folders = class_folders(spec_of(dataset, self.first.metrics))
        names = words_of(folders, self._catalog.kind)
        labels = [int(label) for label in np.unique(pair.before.label)]
        parts = {label: _part(pair, pair.before.label == label) for label in labels}
        rows = [
            {"class": names[label], **self._class_row(part), "folder": folders[label]} for label, part in parts.items()
        ]
        return WholeFrame(rows).set_index("class")

    def _class_row(self, pair: PairedPredictions) -> dict[str, float]:
        interval = small_sample_interval(pair.changes(self._derived_from))
        after, before = pair.accuracies
        return _columns(pair, after, before, 100 * (after - before), interval.low, interval.high)

    @explained
    def images(self, dataset: str) -> pd.DataFrame:
        """Return a table with one row per image of a dataset.

        Args:
            dataset: Name of a dataset that both runs were scored on.

        Returns:
            As `FinishedRun.images`, with ``predicted``, ``confidence`` and ``correct`` of both models
            (``predicted_first``, ...), and ``outcome``: ``won`` if only the first is right, ``lost`` if only the
            second is, ``both`` or ``neither``.
        """
        pair = self._pair(dataset)
        models = {"_first": pair.after, "_second": pair.before}
        table = image_table(self.first.result, dataset, models)
        outcomes = np.array([["neither", "lost"], ["won", "both"]], dtype=object)
        table["outcome"] = outcomes[pair.after.correct.astype(int), pair.before.correct.astype(int)]
        return table

    @property
    def labels(self) -> tuple[str, str]:
        """Names of the two runs, long enough to tell them apart."""
        titles = [run.title for run in (self.first, self.second)]
        if titles[0] == titles[1]:
            runs = (self.first, self.second)
            options = [", ".join(f"{k}={v}" for k, v in run.metrics["options"].items()) for run in runs]
            ends = options if options[0] != options[1] else [run.key[:8] for run in runs]
            titles = [f"{title} ({end or 'defaults'})" for title, end in zip(titles, ends, strict=True)]
        return titles[0], titles[1]

    def __repr__(self) -> str:
        ends = [*([] if self.ri is None else [self._ri_text]), *self.notes]
        return f"<RunComparison: {' minus '.join(self.labels)}{''.join(f'; {end}' for end in ends)}>"

    @property
    def _ri_text(self) -> str:
        assert self.ri is not None, "asked only where it is there"
        return f"RI difference {with_interval(interval_dict(self.ri))}"

    def _repr_html_(self) -> str:
        lines = ["minus", self.labels[1], world(self.first.metrics)]
        if self.ri is not None:
            count = f"{len(self.targets)} target{'' if len(self.targets) == 1 else 's'}"
            lines.append(f"{self._ri_text} points over {count} (95 %, images only)")
        sources = [run.metrics["source"] for run in (self.first, self.second)]
        headers = ("dataset", "images", "first %", "second %", "difference, points [95 %]", "won", "lost")
        rows = []
        for name, row in self.table().to_dict("index").items():
            role = "" if name in self.targets else " (source)" if name in sources else " (not in RI)"
            difference = with_interval({"value": row["difference"], "low": row["low"], "high": row["high"]})
            numbers = (f"{row['images']:,}", f"{row['first']:.2f}", f"{row['second']:.2f}", difference)
            rows.append((f"{title_of(str(name), self._catalog.kind)}{role}", *numbers, row["won"], row["lost"]))
        models = [run.metrics["model"] for run in (self.first, self.second)]
        warning = warning_after(models, self._catalog.kind)
        return display.page(self.labels[0], [*lines, *self.notes, *filter(None, [warning])], headers, rows)


def _columns(
    pair: PairedPredictions, first: float, second: float, difference: float, low: float, high: float
) -> dict[str, float]:
    """Return the columns of `RunComparison.table`; accuracies are fractions, the difference in percentage points."""
    right, other = pair.after.correct, pair.before.correct
    return {
        "images": len(right),
        "first": 100 * first,
        "second": 100 * second,
        "difference": difference,
        "low": low,
        "high": high,
        "won": int((right & ~other).sum()),
        "lost": int((other & ~right).sum()),
    }


def _part(pair: PairedPredictions, kept: NDArray[np.bool_]) -> PairedPredictions:
    """Return the pairs of some images of a dataset."""
    models = [
        replace(model, verified=None, **{name: column[kept] for name, column in model.columns.items()})
        for model in (pair.before, pair.after)
    ]
    paths = [path for path, keep in zip(pair.paths, kept, strict=True) if keep]
    cells = None if pair.cells is None else pair.cells[kept]
    return PairedPredictions(pair.dataset, models[0], models[1], paths, cells, pair.by_class)
