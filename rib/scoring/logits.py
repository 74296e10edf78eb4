"""A user's model, prepared for scoring: its inputs as it expects them, and a check of what it returns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rib.data.transform import Transform
from rib.errors import RibError
from rib.models.classifier import Classifier
from rib.models.evaluation_transform import EvaluationTransform


class CheckedLogits(nn.Module):
    """A user's model from images to logits (B, K), whose every output is checked.

    Args:
        model: From images (B, C, H, W) to logits (B, K), or to an object with such ``logits``.
        transform: The images' transform; after a `Transform` images come as uint8 and are normalised here.
        outputs: K, the number of outputs that the datasets' classes refer to.
        classes: What these outputs stand for, in words.
        name: Name of the model in messages, ``model`` or ``before``.
    """

    def __init__(self, model: nn.Module, transform: EvaluationTransform, outputs: int, classes: str, name: str) -> None:
        super().__init__()
        normalises = isinstance(transform, Transform) and not isinstance(model, Classifier)
        self.model = Classifier(model, transform.mean, transform.std) if normalises else model  # type: ignore[union-attr]
        self.outputs = outputs
        self.classes = classes
        self.name = name

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, K).

        Raises:
            RibError: If the model cannot be run on the images, or returns anything else than such logits.
        """
        shape = tuple(images.shape)
        try:
            found: Any = self.model(images)
        except (RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                smaller = max(1, len(images) // 4)
                raise RibError(f"{self.name}: no memory for {len(images)} images; give batch_size={smaller}") from error
            reason = " ".join(str(error).split())[:200]
            raise RibError(
                f"{self.name}: it cannot be run on images of shape {shape} ({type(error).__name__}: {reason}); give "
                "transform= with the size and type that it takes"
            ) from error
        found = getattr(found, "logits", found)  # Hugging Face's models return an object
        expected = (len(images), self.outputs)
        if not isinstance(found, Tensor) or tuple(found.shape) != expected or not found.is_floating_point():
            got = f"{_describe(found)}{_advice(found, self.classes)}"
            raise RibError(f"{self.name}: expected logits of shape {expected}, got {got}")
        return found

    def check_numbers(self, log_probs: Any, dataset: str) -> None:
        """Raise a RibError if the log-probabilities of a dataset's labels, shape (N,), contain NaN."""
        if count := int((log_probs != log_probs).sum()):
            raise RibError(
                f"{self.name}: its logits are NaN for {count:,} of {len(log_probs):,} images of {dataset}, so they "
                "have no accuracy; check the weights (training diverged?) and the precision"
            )


def _describe(found: Any) -> str:
    if not isinstance(found, Tensor):
        return f"a {type(found).__name__}"
    kind = "" if found.is_floating_point() else f" of {found.dtype}"
    return f"a tensor of shape {tuple(found.shape)}{kind}"


def _advice(found: Any, classes: str) -> str:
    if isinstance(found, tuple) and len(found) > 1:  # open_clip: (image features, text features, scale)
        return "; wrap the model so that it returns class logits (a CLIP model needs a classification head)"
    if isinstance(found, Tensor) and found.ndim == 2 and found.is_floating_point():
        return f"; the datasets are labelled by {classes}"
    return f"; give a classifier of {classes}"
