"""What `FineTuner` needs of a user's own network and batches: the interface, and one-sentence checks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from rib.errors import RibError

Batch = tuple[Tensor, Tensor, Tensor | None]
"""Images (B, ...), labels (B,), and positions of the images in their dataset (B,) or None."""


@runtime_checkable
class ImageClassifier(Protocol):
    """Interface of a network that `FineTuner` accepts: any `torch.nn.Module` from images to logits.

    Called with images, a float tensor (B, C, H, W) as the dataset gives them, it returns logits (B, K) of its K
    classes, in any floating-point type. Labels are ints from 0 to K - 1. Methods that treat the head apart, such as
    `linear_probe`, take its last `torch.nn.Linear` (or the classifier that a timm model names) for the head. Some
    methods call a frozen copy of it, so it must be possible to copy it with `copy.deepcopy`.
    """

    def __call__(self, images: Tensor, /) -> Tensor:
        """Return the logits (B, K) of images (B, C, H, W)."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters, of which those with ``requires_grad`` are trained."""

    def train(self, mode: bool = True, /) -> Any:
        """Set training mode."""


def check_network(model: object) -> None:
    """Raise a RibError unless an object is a `torch.nn.Module` with a parameter that trains."""
    if not isinstance(model, nn.Module):
        raise RibError(f"FineTuner: expected a torch.nn.Module from images to logits, got a {type(model).__name__}")
    if not any(p.requires_grad for p in model.parameters()):
        raise RibError(f"FineTuner: expected a network with parameters that require gradients, {_name(model)} has none")


def split_batch(batch: Any) -> Batch:
    """Return the images, labels and positions of a batch, which may lack the positions.

    Args:
        batch: (images, labels) or (images, labels, positions), tensors of B entries each.

    Raises:
        RibError: If it is anything else.
    """
    if not isinstance(batch, tuple | list) or len(batch) < 2 or not all(isinstance(t, Tensor) for t in batch[:2]):
        size = f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
        raise RibError(f"batch: expected a pair of tensors (images, labels), got a {type(batch).__name__}{size}")
    images, labels = batch[:2]
    if images.ndim < 2:
        raise RibError(f"batch: expected images (B, C, H, W), got shape {tuple(images.shape)}")
    if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
        got = f"{labels.dtype} of shape {tuple(labels.shape)}"
        raise RibError(f"batch: expected labels as int64 of shape ({len(images)},), got {got}; use labels.long()")
    third = batch[2] if len(batch) > 2 else None
    is_position = isinstance(third, Tensor) and third.shape == labels.shape and third.dtype == torch.int64
    return images, labels, third if is_position else None


def check_logits(outputs: Any, images: Tensor) -> None:
    """Check what a user's network returned for a batch.

    Args:
        outputs: Expected are logits (B, K).
        images: The batch's images, (B, ...).

    Raises:
        RibError: If they are no logits of these images.
    """
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != len(images):
        got = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
        raise RibError(f"model: expected logits of shape ({len(images)}, K) for {len(images)} images, got {got}")
    if not outputs.is_floating_point():
        raise RibError(f"model: expected logits as floating-point numbers, got {outputs.dtype}")


def check_labels(labels: Tensor, classes: int) -> None:
    """Raise a RibError unless all labels of a batch, shape (B,), are from 0 to the number of classes - 1."""
    low, high = int(labels.min()), int(labels.max())
    if not 0 <= low <= high < classes:
        raise RibError(
            f"label {low if low < 0 else high}: expected labels from 0 to {classes - 1}, since the model has {classes} "
            "outputs; give the model's last layer an output for every class"
        )


def _name(model: nn.Module) -> str:
    return type(model).__name__
