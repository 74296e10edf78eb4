"""Progress while training; checkpoints are `rib.checkpoint`, methods are `rib.methods`."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import lightning.pytorch as L

from rib.progress import progress


class TrainingProgress(L.Callback):
    """A bar over all optimizer batches with the loss beside it; a line now and then in a log file.

    Args:
        title: What is being trained, and on what.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._stack = ExitStack()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the bar, at the place where a resumed fit goes on."""
        per_epoch, epochs = int(trainer.num_training_batches), trainer.max_epochs or 0
        total = per_epoch * epochs
        if trainer.max_steps >= 0:
            total = min(total, trainer.max_steps * trainer.accumulate_grad_batches)
        self._advance = self._stack.enter_context(progress(self.title, total, "batches"))
        done = trainer.fit_loop.epoch_loop.batch_progress.current.completed
        self._advance(trainer.current_epoch * per_epoch + done, "")

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """One batch on."""
        loss = trainer.callback_metrics.get("loss")
        self._advance(1, f"epoch {trainer.current_epoch + 1}, loss {loss:.3f}" if loss is not None else "")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the bar away."""
        self._stack.close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Take the bar away before the message."""
        self._stack.close()
