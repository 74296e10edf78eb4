"""The log of training: the loss terms of every optimizer step, read off the device once a second."""

from __future__ import annotations

from contextlib import suppress
from time import monotonic
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor


class TrainingLog(L.Callback):
    """Write the loss terms of every optimizer step to the trainer's loggers, many steps at a time.

    Lightning reads the values of a step when it logs them, and a CPU that reads a value waits until the GPU has done
    all that it was given; the GPU then has nothing to do until the next step is under way. Here the values stay on the
    device, and those of all steps since the last time are read in one transfer: after a second, at the end of an epoch
    and of the fit, before validation, with each checkpoint, and when training is interrupted. The Trainer's own logging
    of steps should be off (``log_every_n_steps=0``).

    Args:
        seconds: Least time between two transfers.

    Attributes:
        loss: The cross-entropy of the last step that was read, in nats; None before the first one.
    """

    def __init__(self, seconds: float = 1.0) -> None:
        self.seconds = seconds
        self.loss: float | None = None
        self._steps: list[tuple[int, int, dict[str, Tensor]]] = []
        self._written = float("-inf")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Remember the loss terms of the optimizer step; now and then write those of all steps that wait."""
        terms: Any = pl_module.step_terms
        if terms and trainer.is_global_zero:
            step = trainer.fit_loop.epoch_loop._batches_that_stepped  # as Lightning numbers the rows of a log
            self._steps.append((step, trainer.current_epoch, terms))
            if monotonic() - self._written >= self.seconds:
                self._write(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write all steps."""
        self._write(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write all steps, whose rows come before those of the validation."""
        self._write(trainer)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write all steps: a fit that is resumed from this checkpoint does not log them again."""
        self._write(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write all steps."""
        self._write(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Write all steps before an interrupt or an error ends the fit."""
        with suppress(RuntimeError, OSError):  # such as the device's own error, which must not hide behind another
            self._write(trainer)

    def _write(self, trainer: L.Trainer) -> None:
        steps, self._steps = self._steps, []
        self._written = monotonic()
        if not steps:
            return
        device = next(iter(steps[-1][2].values())).device
        terms = [term.reshape(()).to(device, torch.float32) for _, _, terms in steps for term in terms.values()]
        values = iter(torch.stack(terms).tolist())
        for step, epoch, names in steps:
            row = {name: next(values) for name in names}
            self.loss = row["loss"]
            for logger in trainer.loggers:
                logger.log_metrics({**row, "epoch": epoch}, step)
        for logger in trainer.loggers:
            logger.save()


def reads_freely(device: torch.device) -> bool:
    """Return True if reading a tensor's value does not make the CPU wait for work that a device has still to do."""
    return device.type == "cpu"
