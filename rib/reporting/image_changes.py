"""Images that became right or wrong by fine-tuning, from the stored predictions of finished runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar, cast

from rib.data.catalog import Catalog
from rib.errors import DamagedError, RibError
from rib.metrics import Changes
from rib.runs.command import command_of, scoring_command_of
from rib.runs.measure import PairedPredictions, read_paths
from rib.runs.metrics_file import AGAIN, improvement_of
from rib.runs.predictions import Predictions
from rib.runs.run import Result, Run
from rib.runs.spec import PRETRAINED
from rib.runs.store import RunStore
from rib.schemas.metrics import Metrics

T = TypeVar("T")

Cell = tuple[str, int]
"""Source and seed of a run."""


def cell_of(metrics: Metrics) -> Cell:
    """Return the source and seed of a run."""
    # External weights have no seed. Their None is never mixed with numbers, so that it works as a seed of its own.
    return metrics["source"], cast("int", metrics["seed"])


def changes_of(
    results: Sequence[Result], store: RunStore, catalog: Catalog, datasets: Sequence[str] | None = None
) -> dict[Cell, list[Changes]]:
    """Return which images of each target fine-tuning made right (1) or wrong (-1), by the runs' source and seed.

    Args:
        results: Runs of one model with one method and settings.
        store: The store that holds them.
        catalog: Catalog of their datasets.
        datasets: Names of datasets to use instead of the targets.

    Returns:
        For each source and seed, the changes per dataset (per corruption and severity for ImageNet-C): 1 for an image
        that became correct, -1 for one that became wrong, else 0.

    Raises:
        RibError: If the `pretrained` run behind a result is gone.
        DamagedError: If predictions cannot be read.
    """
    return ChangesReader(store, catalog, datasets).changes(results)


@dataclass
class ChangesReader:
    """Reader of stored predictions that compares those before and after fine-tuning, image by image.

    Predictions of the pretrained models and the datasets' paths are needed by many runs, so each is read once.

    Attributes:
        store: The store that holds the runs.
        catalog: Catalog of their datasets.
        datasets: Names of datasets to use instead of each run's targets.
    """

    store: RunStore
    catalog: Catalog
    datasets: Sequence[str] | None = None
    _pretrained: dict[tuple[str, str, str], Predictions] = field(default_factory=dict)
    _paths: dict[str, list[str]] = field(default_factory=dict)

    def changes(self, group: Sequence[Result]) -> dict[Cell, list[Changes]]:
        """Return which images of each target fine-tuning made right (1) or wrong (-1), by the runs' source and seed."""
        return {cell_of(m): self._changes_of_run(run, m) for run, m in group}

    def _changes_of_run(self, run: Run, metrics: Metrics) -> list[Changes]:
        derived_from = {name: spec.derived_from for name, spec in self.catalog.specs.items()}
        # "before" in metrics.json is the key of the pretrained run, whose predictions are stored once for all methods.
        kind, model, start = metrics["data"]["kind"], metrics["model"], metrics["before"]
        pretrained = self.store.run(kind, model, "none", "pretrained", start)
        changes = []
        for name in self.datasets or improvement_of(metrics)["targets"]:
            key, images = metrics["scores"][name]["key"], metrics["scores"][name]["images"]
            if (start, name, key) not in self._pretrained:
                if not (pretrained.folder / "metrics.json").is_file():
                    raise RibError(
                        f"{run.folder} was compared with a pretrained run that is gone; "
                        f"make that pretrained run again with {command_of(run, metrics, method={PRETRAINED: {}})}"
                    )
                self._pretrained[start, name, key] = _read_predictions(pretrained, name, key)
            if images not in self._paths:
                self._paths[images] = _read_or_advise(partial(read_paths, self.store.root, images), run, metrics)
            before, after = self._pretrained[start, name, key], _read_predictions(run, name, key, metrics)
            changes += PairedPredictions.of(name, before, after, self._paths[images], self.catalog).changes(
                derived_from
            )
        return changes


def _read_predictions(run: Run, name: str, key: str, metrics: Metrics | None = None) -> Predictions:
    return _read_or_advise(lambda: run.load_predictions(name, key), run, metrics)


def _read_or_advise(read: Callable[[], T], run: Run, metrics: Metrics | None) -> T:
    """Read a file of a finished run; if it is damaged, raise an error that names the command to restore it.

    Repeating the run's own command is not enough: the run counts as finished, so it would not be scored again.
    """
    try:
        return read()
    except DamagedError as error:
        fault = str(error).removesuffix(f"; {AGAIN}")
        raise DamagedError(f"{fault}; score its run again with {scoring_command_of(run, metrics)}") from error
