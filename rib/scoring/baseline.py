"""The model that a score is compared with: predictions that were made before, and the measures of the pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from rib.data.catalog import Catalog
from rib.data.tree import ImageTree
from rib.errors import RibError
from rib.runs.limits import describe
from rib.runs.measure import PairedPredictions, measure
from rib.runs.predictions import Predictions
from rib.runs.run import Run
from rib.schemas.metrics import RobustnessImprovement
from rib.scoring.report import Score, ScoredAccuracy


class Baseline(NamedTuple):
    """Predictions of the model that another one is compared with.

    Attributes:
        predictions: By dataset.
        description: The model in a few words, for tables and messages.
    """

    predictions: Mapping[str, Predictions]
    description: str


def stored_baseline(before: Any, images: Mapping[str, ImageTree]) -> Baseline:
    """Return the predictions that a score or a finished run holds for the given images.

    Args:
        before: A `Score`, a `Run`, an object with a run's ``folder``, or the folder itself.
        images: The images that are scored now, by dataset.

    Raises:
        RibError: If it is none of these, is no finished run, or was scored on other images.
    """
    if isinstance(before, Score):
        return Baseline({name: _of_score(before, name, tree) for name, tree in images.items()}, "another score")
    folder = before if isinstance(before, str | Path) else getattr(before, "folder", None)
    if not isinstance(folder, str | Path):
        raise RibError(f"before: expected a module, a score, a run or a run's folder, got a {type(before).__name__}")
    run = Run(Path(folder).expanduser())
    if (metrics := run.metrics()) is None:
        raise RibError(f"before: {folder} is no finished run, which has a metrics.json; rib.load(KEY) finds one by key")
    predictions = {name: _of_run(run, name, tree) for name, tree in images.items()}
    return Baseline(predictions, describe(metrics))


def _of_run(run: Run, dataset: str, tree: ImageTree) -> Predictions:
    """Return a run's stored predictions for exactly the images of a tree.

    Raises:
        RibError: If it has none.
    """
    views = run.all_metrics()
    scores = [metrics["scores"][dataset] for metrics in views if dataset in metrics["scores"]]
    entry = next((entry for entry in scores if entry["images"] == tree.digest), None)
    if entry is None:
        protocol, kind = views[0]["protocol"], views[0]["data"]["kind"]
        if not scores:
            raise RibError(
                f"before: {run.folder} was not scored on {dataset}; give datasets={sorted(views[0]['scores'])}, or "
                f"score it with python -m rib.evaluate runs={run.folder}"
            )
        raise RibError(
            f"before: {run.folder} was scored on other images of {dataset} ({kind} data, limit={protocol['limit']}, "
            f"data.label_rule={protocol['label_rule']}) than these {len(tree):,}; give the same data, limit and label "
            "rule, or the run's model: before=MODULE"
        )
    return run.load_predictions(dataset, entry["key"])


def _of_score(score: Score, dataset: str, tree: ImageTree) -> Predictions:
    predictions, other = score.predictions(dataset), score.images(dataset)
    if (tree.folder, tree.paths) != (other.folder, other.paths):
        raise RibError(
            f"before: that score is of other images of {dataset} ({len(other):,} in {other.folder}) than these "
            f"{len(tree):,}; give both the same data and limit"
        )
    if not np.array_equal(predictions.label, tree.labels):
        raise RibError(f"before: that score has other labels of {dataset}; give both the same data.label_rule")
    return predictions


def measured(
    after: Mapping[str, Predictions],
    before: Baseline | None,
    images: Mapping[str, ImageTree],
    source: str,
    targets: Sequence[str],
    catalog: Catalog,
) -> tuple[dict[str, ScoredAccuracy], RobustnessImprovement | None]:
    """Return accuracies by dataset and RI, as metrics.json has them.

    Args:
        after: The model's predictions by dataset.
        before: Those of the model that it is compared with, or None.
        images: The images by dataset.
        source: The dataset that the model was fine-tuned on, or ``none``.
        targets: Targets of the suite.
        catalog: Catalog of the datasets.
    """
    pairs = [
        PairedPredictions.of(
            name, after[name] if before is None else before.predictions[name], after[name], tree.paths, catalog
        )
        for name, tree in images.items()
    ]
    measures = measure(pairs, source, targets, catalog)
    accuracy = cast("dict[str, ScoredAccuracy]", measures["accuracy"])
    if before is not None:
        return accuracy, measures["robustness_improvement"]
    return {name: _alone(entry) for name, entry in accuracy.items()}, None


def _alone(entry: ScoredAccuracy) -> ScoredAccuracy:
    """Return the accuracy of a model that is compared with none, out of a comparison with itself."""
    alone: ScoredAccuracy = {**entry, "before": None, "change": None}
    if "cells" in entry:
        alone["cells"] = {cell: {**value, "before": None} for cell, value in entry["cells"].items()}
    return alone
