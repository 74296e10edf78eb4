"""What a killed fit goes on from, and the weights of every epoch where they are to stay."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as L

from rib.models.adapters import plain_weights
from rib.models.weights import save_weights


class Resume(L.Callback):
    """Writes one checkpoint, whole or not at all, at the end of each epoch and every so many minutes.

    Where it saves is what Lightning 2.6 can go on from, once and again: in mid-epoch ``on_train_batch_end``, at an
    epoch's end ``on_train_epoch_end``. A save in the last batch's ``on_train_batch_end`` resumes well the first time,
    but leaves the counter of epochs one behind, and the second resume then repeats or skips images
    (``tests/training/test_checkpoint.py`` tries all pairs). What comes next is up to the order of images
    (`rib.data.sampler`).

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
        """Save where it is time to; between accumulated batches it waits for the step, at the last for the epoch."""
        done = batch_idx + 1
        if done >= trainer.num_training_batches or done % trainer.accumulate_grad_batches:
            return
        # Ranks have clocks of their own; rank zero's decides.
        if trainer.strategy.broadcast(time.monotonic() - self._saved >= 60 * self.every_minutes):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save."""
        self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        temporary = self.file.with_name(f".{self.file.name}.tmp")
        trainer.save_checkpoint(temporary, weights_only=False)
        if trainer.is_global_zero:
            os.replace(temporary, self.file)
        self._saved = time.monotonic()


class KeepEpochs(L.Callback):
    """Writes the weights as they are at the end of each epoch, by the plain architecture's names, in float32.

    Args:
        folder: For ``1.safetensors``, ``2.safetensors``, ...
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save, from rank zero."""
        if trainer.is_global_zero:
            backbone: Any = pl_module.model.backbone  # type: ignore[union-attr]
            save_weights(plain_weights(backbone), self.folder / f"{trainer.current_epoch + 1}.safetensors")
