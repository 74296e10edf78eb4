"""What a killed fit goes on from."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as L


class Resume(L.Callback):
    """Writes one checkpoint, whole or not at all, at the end of each epoch and every so many minutes.

    It saves in ``on_train_batch_end``, at an epoch's last batch too: the one hook from which Lightning 2.6 goes on with
    the very next batch (tried at the first, a middle and the last batch of an epoch); what comes next is then up to
    the order of images (`rib.data.sampler`).

    Args:
        file: last.ckpt; replaced by a rename.
        every_minutes: Longest time that a kill can cost, 0 for every batch.
    """

    def __init__(self, file: Path, every_minutes: float = 10.0) -> None:
        self.file = file
        self.every_minutes = every_minutes
        self._saved = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where it is time to; between accumulated batches it waits for the step."""
        last = batch_idx + 1 >= trainer.num_training_batches
        stepped = last or (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        due = stepped and time.monotonic() - self._saved >= 60 * self.every_minutes
        # Ranks have clocks of their own; rank zero's decides.
        if not trainer.strategy.broadcast(last or due):
            return
        temporary = self.file.with_name(f".{self.file.name}.tmp")
        trainer.save_checkpoint(temporary, weights_only=False)
        if trainer.is_global_zero:
            os.replace(temporary, self.file)
        self._saved = time.monotonic()
