"""How long training goes on, and its progress; checkpoints are `rib.training.checkpoint`, methods are `rib.methods`."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import lightning.pytorch as L

from rib.runtime.progress import Advance, progress


class StopAfter(L.Callback):
    """Ends a fit in mid-epoch, after a number of optimizer steps.

    In the place of Lightning's ``max_steps``, with which a fit that was saved at an epoch's end goes on *behind* that
    epoch's last batch: numbers of batches, draws and accumulated groups are then those of no epoch.

    Args:
        steps: Of the optimizer, over all epochs.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A fit that was saved after its last step has none to go."""
        self._look(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop where it is time to."""
        self._look(trainer)

    def _look(self, trainer: L.Trainer) -> None:
        if trainer.global_step >= self.steps:
            trainer.should_stop = True


class TrainingProgress(L.Callback):
    """A bar over all batches with the loss beside it; a line now and then in a log file.

    How far a fit is follows from the epoch and batch at hand alone, so one that goes on after a kill counts no batch
    twice, and its speed is that of the batches since.

    Args:
        title: What is being trained, and on what.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._stack = ExitStack()
        self._advance: Advance | None = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Show the bar at the first batch, which knows where a resumed fit goes on."""
        if self._advance is None:
            done = trainer.current_epoch * int(trainer.num_training_batches) + batch_idx
            shown = progress(self.title, total_batches(trainer), "batches", done)
            self._advance = self._stack.enter_context(shown)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """One batch on."""
        assert self._advance is not None
        loss = trainer.callback_metrics.get("loss")
        self._advance(1, f"epoch {trainer.current_epoch + 1}, loss {loss:.3f}" if loss is not None else "")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the bar away."""
        self._stack.close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Take the bar away before the message."""
        self._stack.close()


def total_steps(trainer: L.Trainer) -> int:
    """Optimizer steps of a whole fit; the last one of an epoch may gather fewer batches than the others."""
    return min([int(trainer.estimated_stepping_batches), *_limits(trainer)])


def total_batches(trainer: L.Trainer) -> int:
    """Batches of a whole fit."""
    per_epoch, accumulate = int(trainer.num_training_batches), trainer.accumulate_grad_batches
    whole = [per_epoch * (trainer.max_epochs or 0)]
    for limit in _limits(trainer):
        epochs, steps = divmod(limit, -(-per_epoch // accumulate))
        whole.append(epochs * per_epoch + min(per_epoch, steps * accumulate))
    return min(whole)


def _limits(trainer: L.Trainer) -> list[int]:
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback.steps for callback in callbacks if isinstance(callback, StopAfter)]
