"""Contract of `FineTuner` for a user's own network and batches: the interface, and one-sentence checks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from numbers import Real
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from rib.data.sampler import EpochBatches
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


def check_optimizer(optimizer: object, lr: object) -> None:
    """Raise a RibError unless an optimizer is None or makes one from parameters, and a learning rate is a number."""
    if optimizer is not None and not callable(optimizer):
        got = f"an {_name(optimizer)} object" if isinstance(optimizer, torch.optim.Optimizer) else repr(optimizer)
        raise RibError(
            "optimizer: expected a function that makes an optimizer from parameters, such as "
            f"functools.partial(torch.optim.AdamW, lr=0.001, weight_decay=0.1), got {got}"
        )
    if isinstance(lr, bool) or not isinstance(lr, Real) or not 0 <= float(lr) < float("inf"):
        raise RibError(f"lr: expected a number such as 0.01, got {lr!r}")


def logits_of(model: nn.Module, images: Tensor) -> Any:
    """Return the output of a user's network for images (B, ...).

    Raises:
        RibError: If the network cannot take images of this shape.
    """
    try:
        return model(images)
    except (RuntimeError, AssertionError) as error:
        # Torch and timm word it in many ways; all else, such as a lack of memory, is left alone.
        if isinstance(error, torch.OutOfMemoryError) or not re.search(
            "shape|size of|channels|height|width", str(error)
        ):
            raise
        reason = str(error).splitlines()[0].rstrip(".")
        raise RibError(
            f"model: {_name(model)} cannot take images (B, C, H, W) of shape {tuple(images.shape)} ({reason}); resize "
            "them in the dataset's transform, or change the network"
        ) from error


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


def check_labels(labels: Tensor, classes: int, positions: Tensor | None, name: str) -> None:
    """Raise a RibError unless all labels of a batch, shape (B,), are from 0 to the number of classes - 1.

    Args:
        labels: The labels.
        classes: Number of outputs of the model.
        positions: Positions of the images in their dataset, shape (B,), or None.
        name: Name of the dataset in the message, ``train`` or ``val``.
    """
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        first = int(((labels < 0) | (labels >= classes)).nonzero()[0])
        where = f"item {first} of a batch" if positions is None else f"{name}[{int(positions[first])}]"
        raise RibError(
            f"{where}: label {int(labels[first])}: expected labels from 0 to {classes - 1}, since the model has "
            f"{classes} outputs; give the model's last layer an output for every class"
        )


def one_image_message(order: EpochBatches) -> str:
    """Return the message for a batch of one image, which BatchNorm cannot normalize, with a batch size that works."""
    reach = 16 * order.world
    sizes = range(max(order.world, order.batch_size - reach), order.batch_size + reach + 1, order.world)
    possible = [s for s in sizes if EpochBatches(order.num_images, s, 0, 0, order.world).smallest_share() > 1]
    nearest = min(possible, key=lambda size: abs(size - order.batch_size), default=None)
    suggestion = "" if nearest is None else f"batch_size={nearest}, or "
    return (
        f"batch_size: expected at least two images in every batch of every process, since BatchNorm in this network "
        f"normalizes one value per channel and image; {order.num_images} images in batches of {order.batch_size} on "
        f"{order.world} process{'es' * (order.world > 1)} leave a batch of one; set {suggestion}batch_norm=frozen"
    )


def _name(model: object) -> str:
    return type(model).__name__
