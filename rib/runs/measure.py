"""Compute the numbers of metrics.json from stored predictions: accuracy, change, RI, confidence intervals.

Everything here can be recomputed from a run's predictions, those of its `pretrained` run, and the datasets' lists of
paths, each of which the store keeps once. torch is not imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from rib.data.catalog import Catalog
from rib.data.tree import ImageTree
from rib.data.worlds import is_suite
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
class PairedPredictions:
    """Predictions of the pretrained model and of a run's model for the same N images of a dataset.

    Attributes:
        dataset: Name of the dataset.
        before: Predictions of the pretrained model.
        after: Predictions of the run's model, in the same order.
        paths: Relative paths of the images, in the same order.
        cells: ``corruption/severity`` of each image, shape (N,), for a dataset that has such cells (ImageNet-C); else
            None.
        by_class: True if a photograph is told by its class and file name, in a user's suite, where files of different
            classes may have one name; else the name alone tells it.
    """

    dataset: str
    before: Predictions
    after: Predictions
    paths: Sequence[str]
    cells: NDArray[np.str_] | None
    by_class: bool = False

    @classmethod
    def of(
        cls, dataset: str, before: Predictions, after: Predictions, paths: Sequence[str], catalog: Catalog
    ) -> PairedPredictions:
        """Pair the predictions of two models for the same images.

        Args:
            dataset: Name of the dataset.
            before: Predictions of the pretrained model.
            after: Predictions of the run's model.
            paths: Relative paths of the images.
            catalog: Tells whether the dataset has cells, and its files names of their own.

        Raises:
            ValueError: If they are not predictions for the same images.
        """
        if not len(before) == len(after) == len(paths) or not np.array_equal(before.label, after.label):
            raise ValueError(f"expected predictions of the same {len(paths)} images of {dataset}")
        cells = np.array(["/".join(PurePosixPath(p).parts[-4:-2]) for p in paths]) if catalog[dataset].cells else None
        return cls(dataset, before, after, paths, cells, is_suite(catalog.kind))

    def changes(self, derived_from: Mapping[str, str | None]) -> list[Changes]:
        """Return whether each image became right (+1), wrong (-1) or neither (0), to compute confidence intervals from.

        The list has one item for the dataset; for ImageNet-C one for each corruption and severity (cell).

        Args:
            derived_from: By dataset, the dataset whose photographs it was made from, or None.
        """
        # -1 an image that only the pretrained model gets right, +1 one that only the run's model does, 0 no change.
        change = self.after.correct.astype(np.int8) - self.before.correct.astype(np.int8)
        family = family_of(self.dataset, derived_from)
        shared = family in derived_from.values()
        # Pictures of one photograph are dependent: the bootstrap then resamples photographs, not pictures.
        originals = originals_of(self.paths, self.after.label if self.by_class else None) if shared else None
        if self.cells is None:
            return [Changes(self.dataset, change, originals, family)]
        assert originals is not None, "a dataset with cells is derived from another"
        return [
            Changes(self.dataset, change[self.cells == cell], originals[self.cells == cell], family, str(cell))
            for cell in np.unique(self.cells)
        ]

    @property
    def accuracies(self) -> tuple[float, float]:
        """Accuracy after and before, fractions; for a dataset with cells the means over these."""
        if self.cells is None:
            return self.after.accuracy, self.before.accuracy
        after, before = (
            mean_over_cells({str(cell): float(correct[self.cells == cell].mean()) for cell in np.unique(self.cells)})
            for correct in (self.after.correct, self.before.correct)
        )
        return after, before

    def accuracy(self, derived_from: Mapping[str, str | None]) -> DatasetAccuracy:
        """Return a dataset's entry in metrics.json: accuracy before and after fine-tuning, and its change.

        Args:
            derived_from: By dataset, the dataset whose photographs it was made from, or None.

        Returns:
            Accuracies as fractions, the change and its interval in percentage points. For a dataset with cells the
            accuracies are means over cells.
        """
        entry = self._accuracy(derived_from)
        if self.after.verified is not None:
            entry["verified"] = self.after.verified
        return entry

    def _accuracy(self, derived_from: Mapping[str, str | None]) -> DatasetAccuracy:
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


def measure(
    scored: Sequence[PairedPredictions], source: str, suite_targets: Iterable[str], catalog: Catalog
) -> Measures:
    """Return a run's accuracy on each dataset and its robustness improvement (RI), as metrics.json stores them.

    RI is the mean change of accuracy over the targets other than the source (ImageNet-RIB).

    Args:
        scored: Predictions for every dataset that was scored.
        source: The dataset that was fine-tuned on; ``none`` for a pretrained model.
        suite_targets: Targets of the suite; those that were not scored are left out.
        catalog: Catalog of the datasets.

    Returns:
        ``accuracy``, and ``robustness_improvement`` in percentage points (None where no target is left).
    """
    derived_from = {name: dataset.derived_from for name, dataset in catalog.specs.items()}
    by_name = {s.dataset: s for s in scored}
    accuracy = {s.dataset: s.accuracy(derived_from) for s in scored}
    targets = counted(source, [name for name in suite_targets if name in by_name], catalog)

    def improvement(names: Sequence[str]) -> Improvement | None:
        if not names:
            return None
        before = {name: accuracy[name]["before"] for name in names}
        after = {name: accuracy[name]["after"] for name in names}
        interval = robustness_interval([c for name in names for c in by_name[name].changes(derived_from)])
        # The interval's own value agrees with the formula's only up to rounding, and the formula is the definition.
        value = robustness_improvement(before, after, names)
        return {**interval_dict(interval), "value": value, "targets": list(names)}

    overall = improvement(targets)
    if overall is None:
        return {"accuracy": accuracy, "robustness_improvement": None}
    rest = improvement(without_derived(source, targets, derived_from))
    return {"accuracy": accuracy, "robustness_improvement": {**overall, "without_derived": rest}}


def counted(source: str, targets: Iterable[str], catalog: Catalog) -> tuple[str, ...]:
    """Return the targets of a suite that count towards RI for a source.

    ImageNet val never does. A domain of a user's suite does wherever it is asked for as a target, whatever the suite's
    file reports beside RI.

    Args:
        source: The dataset that was fine-tuned on.
        targets: Targets of the suite.
        catalog: Catalog of the datasets.
    """
    return targets_of(source, targets, None if is_suite(catalog.kind) else catalog.in_distribution)


def held_out_accuracy(before: Predictions, after: Predictions, paths: Sequence[str], held_out: ImageTree) -> HeldOut:
    """Return the accuracy, before and after fine-tuning, on the images that were held out from training.

    Args:
        before: Predictions of the pretrained model, for a dataset that contains the held-out images.
        after: Predictions of the run's model for the same images.
        paths: Relative paths of these images.
        held_out: The held-out images.

    Returns:
        ``before`` and ``after`` (top-1 accuracies, fractions), ``num_images``, and ``images``, the digest under which
        the store keeps the paths of the held-out images.

    Raises:
        ValueError: If a held-out image has no prediction.
    """
    wanted = set(held_out.paths)
    kept = np.fromiter((path in wanted for path in paths), bool, len(paths))
    if kept.sum() != len(held_out):
        raise ValueError(f"expected predictions for {len(held_out)} held-out images, got {kept.sum()}")
    return {
        "before": float(before.correct[kept].mean()),
        "after": float(after.correct[kept].mean()),
        "num_images": len(held_out),
        "images": held_out.digest,
    }


def interval_dict(interval: Interval) -> IntervalInPoints:
    """Convert a confidence interval to a dictionary of value, low and high in percentage points, as in metrics.json."""
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def paths_file(store: Path, images: str) -> Path:
    """Return the file in which a store keeps the list of paths of a set of images.

    Args:
        store: Folder of the store.
        images: Digest of the images.
    """
    return store / "datasets" / "paths" / f"{images}.txt"


def keep_paths(store: Path, images: str, paths: Sequence[str]) -> None:
    """Write the paths of a set of images to the store if it lacks them, in the order of the images' predictions."""
    file = paths_file(store, images)
    if not file.is_file():
        write_atomically(file, ("\n".join(paths) + "\n").encode())


def read_paths(store: Path, images: str) -> list[str]:
    """Return the stored list of paths of a set of images, in the order in which predictions for them are stored.

    Args:
        store: Folder of the store.
        images: Digest of the images.

    Raises:
        DamagedError: If the list is missing or unreadable; scoring a run on these images writes it again.
    """
    file = paths_file(store, images)
    try:
        return file.read_text().splitlines()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DamagedError(f"cannot read {file} ({reason}), which lists the images of predictions; {AGAIN}") from error
