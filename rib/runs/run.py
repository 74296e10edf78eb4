"""The folder of a run: its metrics, weights, predictions and JSON files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from rib.errors import DamagedError, RibError
from rib.runs.metrics_file import MetricsKey, read_metrics
from rib.runs.metrics_file import read as _read_json
from rib.runs.metrics_file import write as _write_json
from rib.runs.predictions import Predictions
from rib.runtime.files import digest_of
from rib.runtime.weights_file import weights_file_digest
from rib.schemas.files import Environment, Fit, MadeFrom, Scoring
from rib.schemas.metrics import Metrics, UsedRun

if TYPE_CHECKING:
    from torch import Tensor

    from rib.runs.spec import RunSpec


@dataclass(frozen=True)
class Run:
    """The folder of a run, finished or not.

    Attributes:
        folder: ``<store>/<data>/<model>/<source>/<method>/<key>``.
    """

    folder: Path

    @property
    def key(self) -> str:
        """Training key: hash of everything that determines the run's weights, 16 hex digits; the folder's name."""
        # An unfinished run is in <key>.<token of the lock>.
        return self.folder.name.partition(".")[0]

    @property
    def weights_file(self) -> Path:
        """File of the final weights."""
        return self.folder / "weights.safetensors"

    @property
    def checkpoint(self) -> Path:
        """Checkpoint from which interrupted training resumes."""
        return self.folder / "last.ckpt"

    @property
    def features_file(self) -> Path:
        """Features of the images that a probe is fitted to, until it is; a killed run goes on from there."""
        return self.folder / "features.safetensors"

    def metrics_files(self) -> dict[Path, Metrics]:
        """Return all metrics files with their content: one for each suite and way of scoring, the first written first.

        Raises:
            DamagedError: If one is damaged.
        """
        # metrics.json is the shortest name.
        files = sorted(self.folder.glob("metrics*.json"), key=lambda file: (len(file.name), file))
        return {file: read_metrics(file) for file in files}

    def all_metrics(self) -> list[Metrics]:
        """Return the content of all metrics files, the first written first."""
        return list(self.metrics_files().values())

    def metrics(self, wanted: str | MetricsKey | None = None) -> Metrics | None:
        """Return the run's metrics on a suite (set of datasets to score), or None if there are none.

        Args:
            wanted: A suite's name, or the exact suite and way of scoring; None for the suite that the run was first
                scored on.

        Returns:
            None if the run is unfinished or has not been scored so.

        Raises:
            DamagedError: If a metrics file that had to be read is damaged.
        """
        if wanted is None:
            return self.read_json("metrics.json")
        match = self._find(wanted)
        return match and match[1]

    def metrics_file_for(self, metrics: Metrics) -> Path:
        """Return the file to write metrics to: the existing one of the same suite and way of scoring, or a new one."""
        key, files = MetricsKey.of(metrics), self.metrics_files()
        if (same := self._find(key)) is not None:
            return same[0]
        if not files:
            return self.folder / "metrics.json"
        # A star is not allowed in file names on Windows, and a pattern in shells.
        suite = metrics["suite"].replace("*", "_changed")
        short = self.folder / f"metrics.{suite}.json"
        if short not in files and all(other["suite"] != metrics["suite"] for other in files.values()):
            return short
        return self.folder / f"metrics.{suite}.{digest_of(key)}.json"

    def _find(self, wanted: str | MetricsKey) -> tuple[Path, Metrics] | None:
        """Return the first metrics file for a suite's name or an exact `MetricsKey`, with its content, or None."""
        for file, metrics in self.metrics_files().items():
            if metrics["suite"] == wanted if isinstance(wanted, str) else wanted.covers(metrics):
                return file, metrics
        return None

    def predictions_file(self, dataset: str, score_key: str, point: str | None = None) -> Path:
        """Return the file of the predictions for a dataset.

        Args:
            dataset: Name of the dataset.
            score_key: Key of the way of scoring.
            point: Label of a point on the run's curve (WiSE-FT); None for the run's own model.
        """
        folder = self.folder / "predictions"
        return (folder if point is None else folder / point) / f"{dataset}.{score_key}.npz"

    def curve_points(self, score_keys: Mapping[str, str]) -> list[str]:
        """Return the labels of the points on the run's interpolation curve (WiSE-FT) that were scored on every dataset.

        A label is the point's alpha, as text; they are in ascending order.
        """
        labels = [folder.name for folder in (self.folder / "predictions").glob("*/")]
        return sorted(
            (p for p in labels if all(self.predictions_file(n, k, p).is_file() for n, k in score_keys.items())),
            key=float,
        )

    def predictions(self, dataset: str, suite: str | None = None) -> Predictions:
        """Return the predictions for one dataset from which the run's metrics were computed.

        Args:
            dataset: Name of the dataset.
            suite: Name of the suite; None for the suite that the run was first scored on.

        Raises:
            RibError: If the run is unfinished or was not scored on the dataset.
        """
        metrics = self.metrics(suite)
        if metrics is None or dataset not in metrics["scores"]:
            raise RibError(f"{self.folder} holds no predictions for {dataset}")
        return self.load_predictions(dataset, metrics["scores"][dataset]["key"])

    def load_predictions(self, dataset: str, score_key: str, point: str | None = None) -> Predictions:
        """Read the predictions from `predictions_file`, which has the same arguments.

        Raises:
            DamagedError: If the file is damaged or missing.
        """
        return Predictions.load(self.predictions_file(dataset, score_key, point))

    @property
    def is_intact(self) -> bool:
        """True if the weights file has its recorded checksum, or there are no weights; reads the whole file.

        False for a finished run whose fit.json, which holds the checksum, is damaged or missing.
        """
        try:
            fit = self.read_json("fit.json")
        except DamagedError:
            return False
        if fit is None:
            return not (self.folder / "metrics.json").is_file()
        expected = fit["weights"]
        return expected is None or (self.weights_file.is_file() and weights_file_digest(self.weights_file) == expected)

    def weights(self) -> dict[str, Tensor]:
        """Return the final weights, float32, by the parameter names of the pretrained model (LoRA merged)."""
        from safetensors.torch import load_file

        return load_file(self.weights_file)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file to the run's folder, validated against its type in `rib.schemas`, atomically."""
        _write_json(self.folder / name, content)

    @overload
    def read_json(self, name: Literal["metrics.json"]) -> Metrics | None: ...
    @overload
    def read_json(self, name: Literal["fit.json"]) -> Fit | None: ...
    @overload
    def read_json(self, name: Literal["scoring.json"]) -> Scoring | None: ...
    @overload
    def read_json(self, name: Literal["made_from.json"]) -> MadeFrom | None: ...
    @overload
    def read_json(self, name: Literal["env.json"]) -> Environment | None: ...
    def read_json(self, name: str) -> Any:
        """Return the content of a JSON file in the run's folder, or None if there is none."""
        file = self.folder / name
        read = read_metrics if name == "metrics.json" else _read_json  # the first makes a suite known, too
        return read(file) if file.is_file() else None


def made_from(metrics: Metrics) -> list[UsedRun]:
    """Return the records, in a run's metrics, of the runs that it was made from: ingredients, linear probe, start."""
    others = [used for used in (metrics.get("probe"), metrics.get("start")) if used is not None]
    return [*metrics.get("ingredients", ()), *others]


def weights_digest(run: Run) -> str | None:
    """Return the recorded digest of a finished run's weights; None if the run is not finished or has no weights."""
    fit = run.read_json("fit.json") if run.metrics() is not None else None
    return None if fit is None else fit["weights"]


def unscored(spec: RunSpec, run: Run) -> list[str]:
    """Return the names of the datasets that a run spec asks for and the folder has no predictions for yet."""
    return [n for n, key in spec.score_keys.items() if not run.predictions_file(n, key).is_file()]


Result = tuple[Run, Metrics]
"""A finished run and the content of one of its metrics files."""
