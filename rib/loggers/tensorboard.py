"""TensorBoard as a dashboard that shows runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rib.data.worlds import describe_kind, title_of
from rib.errors import RibError
from rib.loggers.base import Dashboard, DashboardPage, describe_run, summary
from rib.runs.run import Run
from rib.runs.spec import RunSpec
from rib.schemas.metrics import Metrics


class TensorBoard(Dashboard):
    """TensorBoard event files in the run's folder; ``tensorboard --logdir runs`` shows all runs."""

    def open(self, spec: RunSpec, run: Run) -> None:
        """Open event files in the run's folder; those of a killed process are continued."""
        self._begin(run.folder)
        self.logger, self.metadata = self.board, describe_run(spec, run)

    def _begin(self, folder: Path) -> None:
        from lightning.pytorch.loggers import TensorBoardLogger

        try:
            self.board = TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False)
        except ModuleNotFoundError as error:
            raise RibError("logger=tensorboard needs the package tensorboard: pip install tensorboard") from error

    def publish(self, metrics: Metrics, figures: Sequence[Path]) -> None:
        """Write RI and accuracies as scalars with the config (the HPARAMS tab), and the figures as images."""
        self.board.log_hyperparams(self.metadata, summary(metrics))
        kind = metrics["data"]["kind"]
        source = "" if metrics["source"] == "none" else f" on {title_of(metrics['source'], kind)}"
        self.board.experiment.add_text(
            "about", f"{metrics['model']}, {metrics['method']}{source}: {describe_kind(kind)}"
        )
        self._add_images(figures)

    def _add_images(self, figures: Sequence[Path]) -> None:
        import numpy as np
        from PIL import Image

        for file in figures:
            self.board.experiment.add_image(f"figures/{file.stem}", np.asarray(Image.open(file)), dataformats="HWC")

    def close(self, failed: bool) -> None:
        """Flush and close the event files."""
        self.board.finalize("failed" if failed else "success")

    def show(self, page: DashboardPage) -> None:
        """Write a page's figures and main numbers to ``tensorboard`` in the page's folder."""
        self._begin(page.folder)
        self.board.log_metrics(dict(page.numbers))
        self.board.experiment.add_text("about", page.name)
        self._add_images(page.figures)
        self.close(failed=False)
