"""One run's folder: its metrics, weights, predictions and JSON files."""

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
from rib.runtime.files import digest_of, file_digest
from rib.schemas.files import Environment, Fit, MadeFrom, Scoring
from rib.schemas.metrics import Metrics, UsedRun

if TYPE_CHECKING:
    from torch import Tensor

    from rib.runs.spec import RunSpec


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

    def metrics_files(self) -> dict[Path, Metrics]:
        """Every metrics file with what it holds, the one first asked for first: other suites, other ways of scoring."""
        files = sorted(self.folder.glob("metrics*.json"), key=lambda file: (len(file.name), file))
        return {file: read_metrics(file) for file in files}

    def views(self) -> list[Metrics]:
        """What each metrics file holds, the one first asked for first."""
        return list(self.metrics_files().values())

    def metrics(self, wanted: str | MetricsKey | None = None) -> Metrics | None:
        """The run's metrics for a suite: the one place that finds them.

        Args:
            wanted: A suite's name, or exactly what the numbers stand on; None for the suite first asked for.

        Returns:
            None if the run has not been scored so, or is unfinished.

        Raises:
            DamagedError: If a metrics file that was looked at is damaged.
        """
        if wanted is None:
            return self.read_json("metrics.json")
        found = self._find(wanted)
        return found and found[1]

    def view_file(self, metrics: Metrics) -> Path:
        """Where metrics go: in the place of those that stand on the same, else beside whatever is there."""
        key, files = MetricsKey.of(metrics), self.metrics_files()
        if (same := self._find(key)) is not None:
            return same[0]
        if not files:
            return self.folder / "metrics.json"
        suite = metrics["suite"].replace("*", "_changed")
        beside = self.folder / f"metrics.{suite}.json"
        if beside not in files and all(view["suite"] != metrics["suite"] for view in files.values()):
            return beside
        return self.folder / f"metrics.{suite}.{digest_of(key)}.json"

    def _find(self, wanted: str | MetricsKey) -> tuple[Path, Metrics] | None:
        """The first metrics file for a suite, and what it holds."""
        for file, metrics in self.metrics_files().items():
            if metrics["suite"] == wanted if isinstance(wanted, str) else wanted.covers(metrics):
                return file, metrics
        return None

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
        """Put a JSON file into the run's folder, whole or not at all; its type must allow it (`rib.schemas`)."""
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
        """A JSON file of the run's folder, or None."""
        file = self.folder / name
        return _read_json(file) if file.is_file() else None


def made_from(view: Metrics) -> list[UsedRun]:
    """The runs that a run was made from, as its metrics say."""
    return [*view.get("ingredients", ()), *([view["probe"]] if "probe" in view else ())]


def weights_digest(run: Run) -> str | None:
    """Of a finished run's weights, as written; None where there is no such run, or it has none."""
    fitted = run.read_json("fit.json") if run.metrics() is not None else None
    return None if fitted is None else fitted["weights"]


def unscored(spec: RunSpec, run: Run) -> list[str]:
    """Datasets that a run has no predictions for."""
    return [n for n, key in spec.score_keys.items() if not run.predictions_file(n, key).is_file()]


Result = tuple[Run, Metrics]
"""A finished run and what one of its metrics files holds."""
