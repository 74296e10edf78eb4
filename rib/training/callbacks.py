"""Lightning callbacks that end training after a number of steps and show its progress.

Checkpoints are in `rib.training.resume`, methods in `rib.methods`.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import lightning.pytorch as L

from rib.runtime.console import say
from rib.runtime.progress import Advance, progress
from rib.training.log import TrainingLog


class StopAfter(L.Callback):
    """Stop training after a number of optimizer steps, also in mid-epoch.

    Used in place of Lightning's ``max_steps``: with that, a fit that is resumed from a checkpoint at an epoch's end
    continues *behind* that epoch's last batch, so that batch numbers, random draws and accumulated groups are wrong.

    Args:
        steps: Number of optimizer steps, over all epochs.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop at once if the fit was resumed after its last step."""
        self._stop_when_done(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop after the last optimizer step."""
        self._stop_when_done(trainer)

    def _stop_when_done(self, trainer: L.Trainer) -> None:
        if trainer.global_step >= self.steps:
            trainer.should_stop = True


class TrainingProgress(L.Callback):
    """Progress bar over all batches, with the loss; occasional lines where the output is a log file.

    Progress is computed from the current epoch and batch, so that a resumed fit counts no batch twice. The speed is
    that of the batches since it was resumed.

    Args:
        title: Title of the bar: model, method and source.
        log: Where the loss was last read; to read it here would make the CPU wait for a GPU at every step.
    """

    def __init__(self, title: str, log: TrainingLog) -> None:
        self.title = title
        self.written = log
        self._stack = ExitStack()
        self._advance: Advance | None = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Show the bar at the first batch, whose number tells where a resumed fit continues."""
        if self._advance is None:
            done = trainer.current_epoch * int(trainer.num_training_batches) + batch_idx
            if done:
                say(
                    f"resuming at epoch {trainer.current_epoch + 1} of {trainer.max_epochs}, "
                    f"step {trainer.global_step} of {total_steps(trainer)}"
                )
            bar = progress(self.title, total_batches(trainer), "batches", done)
            self._advance = self._stack.enter_context(bar)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Advance the bar by one batch, and show the epoch and the loss."""
        assert self._advance is not None
        loss = self.written.loss
        self._advance(1, f"epoch {trainer.current_epoch + 1}, loss {loss:.3f}" if loss is not None else "")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the bar."""
        self._stack.close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Close the bar, so that it does not overwrite the error message."""
        self._stack.close()


def total_steps(trainer: L.Trainer) -> int:
    """Return the number of optimizer steps of the whole training: all epochs, or up to the limit of `StopAfter`."""
    # Lightning's estimate rounds up: the last step of an epoch may accumulate fewer batches than the others.
    return min([int(trainer.estimated_stepping_batches), *_limits(trainer)])


def total_batches(trainer: L.Trainer) -> int:
    """Return the number of batches of the whole training: those of all epochs, or fewer if `StopAfter` sets a limit."""
    per_epoch, accumulate = int(trainer.num_training_batches), trainer.accumulate_grad_batches
    totals = [per_epoch * (trainer.max_epochs or 0)]
    for limit in _limits(trainer):
        epochs, steps = divmod(limit, -(-per_epoch // accumulate))
        totals.append(epochs * per_epoch + min(per_epoch, steps * accumulate))
    return min(totals)


def _limits(trainer: L.Trainer) -> list[int]:
    """Return the limits, in optimizer steps, of a trainer's `StopAfter` callbacks."""
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback.steps for callback in callbacks if isinstance(callback, StopAfter)]
