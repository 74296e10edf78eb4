"""From stored predictions to the numbers of metrics.json: accuracy, change, RI and their intervals.

Everything here can be recomputed from a run's predictions, those of its `pretrained` run, and the dataset's paths
(kept once in the store). No torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from rib.data.catalog import Catalog
from rib.data.tree import ImageTree
from rib.errors import DamagedError
from rib.metrics import (
    Changes,
    Interval,
    dataset_change_interval,
    family_of,
    mean_over_cells,
    originals_of,
    robustness_improvement,
    robustness_interval,
    targets_of,
    without_derived,
)
from rib.runs.metrics_file import AGAIN
from rib.runs.predictions import Predictions
from rib.runtime.files import write_atomically
from rib.schemas.metrics import CellAccuracy, DatasetAccuracy, HeldOut, Improvement, IntervalInPoints, Measures


@dataclass(frozen=True)
class Scored:
    """One model before and after on one dataset.

    Attributes:
        dataset: Its name.
        before: Of the pretrained model.
        after: Of the run's model, image by image beside ``before``.
        paths: Relative paths of the images, in the same order.
        cells: ``corruption/severity`` of each image where the dataset has cells, else None.
    """

    dataset: str
    before: Predictions
    after: Predictions
    paths: Sequence[str]
    cells: NDArray[np.str_] | None

    @classmethod
    def of(
        cls, dataset: str, before: Predictions, after: Predictions, paths: Sequence[str], catalog: Catalog
    ) -> Scored:
        """Line up two models' predictions.

        Raises:
            ValueError: If they are not about the same images.
        """
        if not len(before) == len(after) == len(paths) or not np.array_equal(before.label, after.label):
            raise ValueError(f"expected predictions of the same {len(paths)} images of {dataset}")
        cells = np.array(["/".join(PurePosixPath(p).parts[-4:-2]) for p in paths]) if catalog[dataset].cells else None
        return cls(dataset, before, after, paths, cells)

    def changes(self, derived_from: Mapping[str, str | None]) -> list[Changes]:
        """What the interval is made from: one entry, or one a cell."""
        change = self.after.correct.astype(np.int8) - self.before.correct.astype(np.int8)
        family = family_of(self.dataset, derived_from)
        shared = family in derived_from.values()
        originals = originals_of(self.paths) if shared else None
        if self.cells is None:
            return [Changes(self.dataset, change, originals, family)]
        assert originals is not None, "a dataset with cells is derived from another"
        return [
            Changes(self.dataset, change[self.cells == cell], originals[self.cells == cell], family, str(cell))
            for cell in np.unique(self.cells)
        ]

    def accuracy(self, derived_from: Mapping[str, str | None]) -> DatasetAccuracy:
        """The dataset's entry in metrics.json; accuracies as fractions, the change in percentage points."""
        change = interval_dict(dataset_change_interval(self.changes(derived_from)))
        if self.cells is None:
            before, after = self.before.accuracy, self.after.accuracy
            return {"num_images": len(self.paths), "before": before, "after": after, "change": change}
        cells: dict[str, CellAccuracy] = {
            str(cell): {
                "before": float(self.before.correct[self.cells == cell].mean()),
                "after": float(self.after.correct[self.cells == cell].mean()),
                "num_images": int((self.cells == cell).sum()),
            }
            for cell in np.unique(self.cells)
        }
        return {
            "num_images": len(self.paths),
            "cells": cells,
            "before": mean_over_cells({cell: value["before"] for cell, value in cells.items()}),
            "after": mean_over_cells({cell: value["after"] for cell, value in cells.items()}),
            "change": change,
        }


def measure(scored: Sequence[Scored], source: str, suite_targets: Iterable[str], catalog: Catalog) -> Measures:
    """Accuracy and robustness improvement, as in metrics.json.

    Args:
        scored: Every dataset that was scored.
        source: What was fine-tuned on; ``none`` for a pretrained model.
        suite_targets: The suite's datasets; those that were not scored are left out.
        catalog: The world they belong to.

    Returns:
        ``accuracy`` and ``robustness_improvement`` (None where no target is left).
    """
    derived_from = {name: dataset.derived_from for name, dataset in catalog.specs.items()}
    by_name = {s.dataset: s for s in scored}
    accuracy = {s.dataset: s.accuracy(derived_from) for s in scored}
    targets = targets_of(source, [name for name in suite_targets if name in by_name])

    def improvement(names: Sequence[str]) -> Improvement | None:
        if not names:
            return None
        before = {name: accuracy[name]["before"] for name in names}
        after = {name: accuracy[name]["after"] for name in names}
        interval = robustness_interval([c for name in names for c in by_name[name].changes(derived_from)])
        # The plain formula's value; the interval's own agrees with it to the last rounding.
        value = robustness_improvement(before, after, names)
        return {**interval_dict(interval), "value": value, "targets": list(names)}

    overall = improvement(targets)
    if overall is None:
        return {"accuracy": accuracy, "robustness_improvement": None}
    rest = improvement(without_derived(source, targets, derived_from))
    return {"accuracy": accuracy, "robustness_improvement": {**overall, "without_derived": rest}}


def held_out_accuracy(before: Predictions, after: Predictions, paths: Sequence[str], held_out: ImageTree) -> HeldOut:
    """What a run knows of the images that were kept from its training, read off predictions for more than those.

    Args:
        before: Of the pretrained model.
        after: Of the run's.
        paths: Of the images that both are about; the held-out ones are among them.
        held_out: Those.

    Returns:
        ``before`` and ``after`` (top-1, fractions over images), ``num_images``, and ``images``, the digest under which
        the store keeps their paths.
    """
    wanted = set(held_out.paths)
    kept = np.fromiter((path in wanted for path in paths), bool, len(paths))
    if kept.sum() != len(held_out):
        raise ValueError(f"expected predictions for {len(held_out)} held-out images, found {kept.sum()}")
    return {
        "before": float(before.correct[kept].mean()),
        "after": float(after.correct[kept].mean()),
        "num_images": len(held_out),
        "images": held_out.digest,
    }


def interval_dict(interval: Interval) -> IntervalInPoints:
    """Value, low and high, in percentage points."""
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def paths_file(store: Path, images: str) -> Path:
    """Where the store keeps the paths of the images behind a digest."""
    return store / "datasets" / "paths" / f"{images}.txt"


def keep_paths(store: Path, images: str, paths: Sequence[str]) -> None:
    """Write a dataset's paths once; predictions are columns in their order."""
    file = paths_file(store, images)
    if not file.is_file():
        write_atomically(file, ("\n".join(paths) + "\n").encode())


def read_paths(store: Path, images: str) -> list[str]:
    """The paths behind a digest, in the order of predictions.

    Raises:
        DamagedError: If they are gone; scoring a run on these images writes them again.
    """
    file = paths_file(store, images)
    try:
        return file.read_text().splitlines()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DamagedError(f"cannot read {file} ({reason}), which lists the images of predictions; {AGAIN}") from error
