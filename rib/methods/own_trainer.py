"""Function `penalties` for the ``training_step`` of your own LightningModule: the methods' loss terms."""

from __future__ import annotations

import lightning.pytorch as L
import torch
from torch import Tensor

from rib.errors import RibError
from rib.methods.base import Step, methods_of, tuned
from rib.methods.foreign import Foreign


def penalties(module: L.LightningModule, images: Tensor, outputs: Tensor, labels: Tensor) -> Tensor:
    """Sum the penalties of the Trainer's methods for one training batch.

    Call it once in ``training_step``, after ``outputs = self(images)``::

        loss = loss + rib.methods.penalties(self, images, outputs, labels)

    Args:
        module: Your LightningModule, attached to a Trainer.
        images: The batch's images as ``forward`` took them, shape (B, ...).
        outputs: What ``forward`` returned for them: logits of all classes, shape (B, K).
        labels: Classes, shape (B,).

    Returns:
        A scalar in nats per image, zero without a method that has a penalty. Penalties are means over this batch or
        functions of the weights, so they belong to a loss that is a mean over the batch.

    Raises:
        RibError: If ``outputs`` are no logits of these images, or the module is rib's own, which adds them itself.
    """
    own = tuned(module)
    if not isinstance(own, Foreign):
        raise RibError(f"penalties: expected a LightningModule of your own, got rib's {type(module).__name__}")
    if outputs.ndim != 2 or len(outputs) != len(images):
        got = f"shape {tuple(outputs.shape)} for {len(images)} images"
        raise RibError(f"penalties: expected outputs as logits of shape (images, classes), got {got}")
    step = Step(images, labels, outputs, outputs, numbered(own.trainer, images))
    total = outputs.new_zeros((), dtype=torch.float32)
    for method in methods_of(own.trainer):
        method._asked = True
        penalty = method.penalty(own, step)
        if penalty is not None:
            total = total + penalty
    return total


def numbered(trainer: L.Trainer, images: Tensor) -> Tensor:
    """Return a number for each image of the batch, unique in the epoch and the same when a fit is resumed."""
    batch = trainer.fit_loop.batch_idx * trainer.world_size + trainer.global_rank
    return torch.arange(len(images)) + (batch << 20)
