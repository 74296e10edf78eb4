"""One run's folder: its metrics, weights, predictions and JSON files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rib.errors import DamagedError, RibError
from rib.runs.metrics_file import read as _read_json
from rib.runs.predictions import Predictions
from rib.runtime.files import digest_of, file_digest, write_atomically

if TYPE_CHECKING:
    from torch import Tensor

    from rib.runs.spec import Question


@dataclass(frozen=True)
class Run:
    """One run's folder, finished or not.

    Attributes:
        folder: ``<store>/<data>/<model>/<source>/<method>/<key>``.
    """

    folder: Path

    @property
    def key(self) -> str:
        """The training key, 16 hex digits."""
        return self.folder.name.partition(".")[0]

    @property
    def weights_file(self) -> Path:
        """The final weights."""
        return self.folder / "weights.safetensors"

    @property
    def checkpoint(self) -> Path:
        """Where an unfinished fit goes on from."""
        return self.folder / "last.ckpt"

    def views(self) -> list[dict[str, Any]]:
        """Every metrics file of this run, the one first asked for first: other suites, other ways of scoring."""
        return [_read_json(file) for file in sorted(self.folder.glob("metrics*.json"), key=lambda f: (len(f.name), f))]

    def view_file(self, metrics: Mapping[str, Any]) -> Path:
        """Where metrics go: in the place of those that answer the same question, else beside whatever is there."""
        views = {file: _read_json(file) for file in self.folder.glob("metrics*.json")}
        same = next((file for file, view in views.items() if answers(view) == answers(metrics)), None)
        if same is not None or not views:
            return same or self.folder / "metrics.json"
        suite = metrics["suite"].replace("*", "_changed")
        beside = self.folder / f"metrics.{suite}.json"
        if beside not in views and all(view["suite"] != metrics["suite"] for view in views.values()):
            return beside
        return self.folder / f"metrics.{suite}.{digest_of(answers(metrics))}.json"

    def metrics(self, suite: str | None = None) -> dict[str, Any] | None:
        """What the run's metrics say of a suite (default: the one first asked for), or None if they are not there."""
        if suite is None:
            return self.read_json("metrics.json")
        return next((view for view in self.views() if view["suite"] == suite), None)

    def predictions_file(self, dataset: str, score_key: str, variant: str | None = None) -> Path:
        """One file a dataset and way of scoring; those of a curve's other models lie in folders beside."""
        folder = self.folder / "predictions"
        return (folder if variant is None else folder / variant) / f"{dataset}.{score_key}.npz"

    def variants(self, score_keys: Mapping[str, str]) -> list[str]:
        """Labels of a curve's models that were scored on every dataset, by their number."""
        folders = [folder.name for folder in (self.folder / "predictions").glob("*/")]
        whole = (f for f in folders if all(self.predictions_file(n, k, f).is_file() for n, k in score_keys.items()))
        return sorted(whole, key=float)

    def predictions(self, dataset: str, suite: str | None = None) -> Predictions:
        """What the model said about a dataset that this run's metrics report.

        Raises:
            RibError: If the run is unfinished or did not score it.
        """
        metrics = self.metrics(suite)
        if metrics is None or dataset not in metrics["scores"]:
            raise RibError(f"{self.folder} holds no predictions for {dataset}")
        return self.scored(dataset, metrics["scores"][dataset]["key"])

    def scored(self, dataset: str, score_key: str, variant: str | None = None) -> Predictions:
        """The predictions under one score key, of the run's own model or of one on its curve."""
        return Predictions.load(self.predictions_file(dataset, score_key, variant))

    @property
    def is_intact(self) -> bool:
        """Whether the weights are those that were written; reads all of the file. True where there are none.

        A finished run whose fit.json is damaged or gone cannot tell, and is not.
        """
        try:
            fitted = self.read_json("fit.json")
        except DamagedError:
            return False
        if fitted is None:
            return not (self.folder / "metrics.json").is_file()
        expected = fitted["weights"]
        return expected is None or (self.weights_file.is_file() and file_digest(self.weights_file) == expected)

    def weights(self) -> dict[str, Tensor]:
        """The final weights by the plain architecture's names, float32."""
        from safetensors.torch import load_file

        return load_file(self.weights_file)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Put a JSON file into the run's folder, whole or not at all."""
        write_atomically(self.folder / name, (json.dumps(content, indent=1) + "\n").encode())

    def read_json(self, name: str) -> dict[str, Any] | None:
        """A JSON file of the run's folder, or None."""
        file = self.folder / name
        return _read_json(file) if file.is_file() else None


def made_from(view: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a run's metrics say of the runs that it was made from: label, source, fingerprint, weights."""
    return [*view.get("ingredients", ()), *filter(None, (view.get("probe"),))]


def weights_digest(run: Run) -> str | None:
    """Of a finished run's weights, as written; None where there is no such run, or it has none."""
    return (run.read_json("fit.json") or {}).get("weights") if run.metrics() is not None else None


def unscored(question: Question, run: Run) -> list[str]:
    """Datasets that a run has no predictions for."""
    return [n for n, key in question.score_keys.items() if not run.predictions_file(n, key).is_file()]


def answers(view: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a metrics file answers; two that answer the same never lie beside one another."""
    protocol = view["protocol"]
    return view["suite"], protocol.get("targets"), protocol.get("reported"), protocol["experiment"], view["scores"]


Result = tuple[Run, Mapping[str, Any]]
"""A finished run and what one of its metrics files holds."""
