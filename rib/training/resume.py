"""Checkpoints to resume an interrupted fit from, and optionally the weights of every epoch."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as L

from rib.models.adapters import plain_weights
from rib.models.weights import save_weights

TIMES_APART = 20
"""Least time between the ends of epochs at which checkpoints are written, in units of the time that writing one takes.

A ViT-B/16 fine-tuned on 10,000 images has an epoch of some seconds on a GPU, and a checkpoint of 0.7 GB or more.
"""

BATCHES_BETWEEN_QUESTIONS = 20
"""Batches after which several processes agree again on whether to save a checkpoint."""


class Resume(L.Callback):
    """Write one checkpoint at the ends of epochs and at intervals of some minutes, atomically.

    Epochs that are short beside the writing of a checkpoint end without one: it takes at most a twentieth of the time
    (`TIMES_APART`).

    It saves only where Lightning 2.6 can resume repeatedly: ``on_train_batch_end`` in mid-epoch, and
    ``on_train_epoch_end`` at an epoch's end. A checkpoint from ``on_train_batch_end`` of an epoch's last batch resumes
    correctly once, but leaves the epoch counter one behind, so that a second resume repeats or skips images
    (``tests/training/test_resume.py`` tries all pairs). The images after a resume are those that were left, since
    their order is a function of seed and epoch (`rib.data.sampler`).

    Args:
        file: The checkpoint, last.ckpt; each one replaces the last by a rename.
        every_minutes: Minutes between checkpoints, the longest time that a kill can cost; 0 for every batch
            and every epoch.
    """

    def __init__(self, file: Path, every_minutes: float = 10.0) -> None:
        self.file = file
        self.every_minutes = every_minutes
        self._saved = time.monotonic()
        self._took = 0.0  # seconds of the last one

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save a checkpoint if the interval has passed; not amid accumulated batches or after an epoch's last one."""
        done = batch_idx + 1
        if done >= trainer.num_training_batches or done % trainer.accumulate_grad_batches:
            return
        # All ranks have to save together, and their clocks differ: rank zero's decides. Asking it makes all wait.
        if trainer.world_size > 1 and self.every_minutes > 0 and done % BATCHES_BETWEEN_QUESTIONS:
            return
        if trainer.strategy.broadcast(time.monotonic() - self._saved >= 60 * self.every_minutes):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save a checkpoint at the end of an epoch, unless the last one was a short time ago."""
        since = time.monotonic() - self._saved
        if trainer.strategy.broadcast(self.every_minutes == 0 or since >= TIMES_APART * self._took):
            self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        temporary = self.file.with_name(f".{self.file.name}.tmp")
        begun = time.monotonic()
        # Not weights alone: the states of optimizer and loops are needed to resume.
        trainer.save_checkpoint(temporary, weights_only=False)
        if trainer.is_global_zero:
            os.replace(temporary, self.file)
        self._saved = time.monotonic()
        self._took = self._saved - begun


class KeepEpochs(L.Callback):
    """Write each epoch's weights to a file in float32, with LoRA merged, under the pretrained model's parameter names.

    Args:
        folder: Folder for the files ``1.safetensors``, ``2.safetensors``, ...
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the epoch's weights on rank zero."""
        if trainer.is_global_zero:
            backbone: Any = pl_module.model.backbone  # type: ignore[union-attr]
            save_weights(plain_weights(backbone), self.folder / f"{trainer.current_epoch + 1}.safetensors")
