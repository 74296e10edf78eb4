"""Accuracy and robustness improvement as torchmetrics modules, for use in batched and distributed loops.

States are integer counts, summed over processes, so results depend on neither the batch size nor the number of
processes. The same measures for finished accuracies, without torch, are in `rib.metrics.robustness`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torchmetrics import Metric

from rib.metrics.robustness import target_shares


class Projection(Protocol):
    """Interface of a label space, such as `rib.data.labels.LabelSpace`, as accuracy needs it."""

    def project(self, logits: Tensor) -> Tensor:
        """Convert a model's outputs (B, K) to logits of the dataset's classes, (B, C)."""


class SubspaceAccuracy(Metric):
    """Top-1 accuracy among a dataset's own classes, as a fraction; NaN before the first image.

    Outputs for classes that the dataset does not have are ignored, as is usual for ImageNet-A, -R and ObjectNet.

    Args:
        space: Mapping from the model's outputs to the dataset's classes.
        **kwargs: Passed to `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    correct: Tensor
    total: Tensor

    def __init__(self, space: Projection, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.space = space
        self.add_state("correct", default=torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count the images and the correct predictions of a batch.

        Args:
            logits: All outputs of the model, shape (B, K).
            labels: Indices into the dataset's own C classes, shape (B,), integers from 0 to C - 1.

        Raises:
            ValueError: If the batch sizes of logits and labels differ.
        """
        classes = self.space.project(logits)
        if labels.shape != classes.shape[:1]:
            raise ValueError(f"expected labels of shape {tuple(classes.shape[:1])}, got {tuple(labels.shape)}")
        # Integers: sums of floats would depend on the order of batches and processes in the last bits.
        self.correct += (classes.argmax(dim=1) == labels).sum()
        self.total += labels.numel()

    def compute(self) -> Tensor:
        """Return top-1 accuracy over all images counted so far: a fraction, as a scalar tensor."""
        return self.correct / self.total


class RobustnessImprovement(Metric):
    """Robustness improvement (RI) in percentage points, updated batch by batch; NaN while a target has no image.

    Equals `rib.metrics.robustness.robustness_improvement` of the same predictions. arXiv 2410.21582, section 3.

    Args:
        targets: Names of the scored sets, in the order of the indices given to `update`: a target (``imagenet_r``) or
            one corruption and severity of ImageNet-C (``imagenet_c/fog/3``). The caller leaves out the source and
            imagenet_val, which do not count towards RI.
        **kwargs: Passed to `torchmetrics.Metric`.

    Raises:
        ValueError: If there is no target or one is named twice.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    gained: Tensor
    total: Tensor

    def __init__(self, targets: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.targets = tuple(targets)
        self._shares = tuple(target_shares(self.targets).values())
        zeros = torch.zeros(len(self.targets), dtype=torch.int64)
        self.add_state("gained", default=zeros, dist_reduce_fx="sum")
        self.add_state("total", default=zeros.clone(), dist_reduce_fx="sum")

    def update(self, dataset_index: int, before_correct: Tensor, after_correct: Tensor) -> None:
        """Count the correct predictions before and after fine-tuning in a batch of one target dataset.

        Args:
            dataset_index: Index of the target in ``targets``, such as Lightning's ``dataloader_idx``.
            before_correct: True where the pretrained model is right, shape (B,), bool or 0 and 1.
            after_correct: True where the fine-tuned model is right on the same images, shape (B,), likewise.

        Raises:
            ValueError: If the shapes differ or there is no such target.
        """
        if before_correct.shape != after_correct.shape or before_correct.ndim != 1:
            shapes = f"{tuple(before_correct.shape)} and {tuple(after_correct.shape)}"
            raise ValueError(f"expected the same images before and after, two shapes (B,), got {shapes}")
        if not 0 <= dataset_index < len(self.targets):
            raise ValueError(f"expected a target from 0 to {len(self.targets) - 1}, got {dataset_index}")
        self.gained[dataset_index] += (after_correct.long() - before_correct.long()).sum()
        self.total[dataset_index] += before_correct.numel()

    def compute(self) -> Tensor:
        """Return RI over all images counted so far, a scalar tensor in percentage points."""
        change = self.gained / self.total
        return 100 * (change * torch.tensor(self._shares, device=change.device)).sum()
