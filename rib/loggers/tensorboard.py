"""Show runs on TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rib.errors import RibError
from rib.loggers.base import Dashboard, DashboardPage, describe_run, summary
from rib.runs.run import Run
from rib.runs.spec import RunSpec
from rib.schemas.metrics import Metrics


class TensorBoard(Dashboard):
    """TensorBoard's event files in the run's own folder; ``tensorboard --logdir runs`` shows all runs."""

    def open(self, spec: RunSpec, run: Run) -> None:
        """Begin, or go on where a killed process stopped."""
        self._begin(run.folder)
        self.logger, self.facts = self.board, describe_run(spec, run)

    def _begin(self, folder: Path) -> None:
        from lightning.pytorch.loggers import TensorBoardLogger

        try:
            self.board = TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False)
        except ModuleNotFoundError as error:
            raise RibError("logger=tensorboard needs a package that is not there: pip install tensorboard") from error

    def publish(self, metrics: Metrics, figures: Sequence[Path]) -> None:
        """RI and accuracies as scalars beside the config (HPARAMS); the figures as images."""
        self.board.log_hyperparams(self.facts, summary(metrics))
        self._add_images(figures)

    def _add_images(self, figures: Sequence[Path]) -> None:
        import numpy as np
        from PIL import Image

        for file in figures:
            self.board.experiment.add_image(f"figures/{file.stem}", np.asarray(Image.open(file)), dataformats="HWC")

    def close(self, failed: bool) -> None:
        """Write what is left."""
        self.board.finalize("failed" if failed else "success")

    def show(self, exhibit: DashboardPage) -> None:
        """Figures and main numbers, in ``tensorboard`` in the exhibit's folder."""
        self._begin(exhibit.folder)
        self.board.log_metrics(dict(exhibit.numbers))
        self._add_images(exhibit.figures)
        self.close(failed=False)
