"""Label spaces: mapping a model's 1000 outputs to the classes of a dataset.

The label space is a property of the dataset, fixed by the catalog and not by the folders found on disk: ImageNet-A
scored over labels that are numbered by folder, 0 to 199, in place of its 200 outputs looks like 0.1 % accuracy (timm
issue 2456). The model's head keeps all its outputs; logits are projected.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class LabelSpace:
    """Mapping from a model's outputs to a dataset's classes: the ids of the outputs that count as each class.

    Attributes:
        groups: ``groups[j]`` are the output ids that count as class ``j``. Nearly always one id; nine of ObjectNet's
            classes have several (a chair is a barber chair, a folding chair or a rocking chair).

    Raises:
        ValueError: If there is no class, a class has no id, or an id is negative.
    """

    groups: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if not self.groups or not all(self.groups):
            raise ValueError(f"expected at least one output id for each class, got {self.groups!r}")
        if any(i < 0 for group in self.groups for i in group):
            raise ValueError("expected output ids of 0 or more, got a negative one")

    @classmethod
    def of_ids(cls, ids: Iterable[int]) -> LabelSpace:
        """Create a label space in which class ``j`` is the single output ``ids[j]``."""
        return cls(tuple((i,) for i in ids))

    def __len__(self) -> int:
        return len(self.groups)

    @cached_property
    def _index(self) -> Tensor:
        """Output ids of each class, shape (C, G), padded with the class's first id, so maxima over a row stay right."""
        width = max(len(group) for group in self.groups)
        return torch.tensor([group + (group[0],) * (width - len(group)) for group in self.groups])

    def project(self, logits: Tensor) -> Tensor:
        """Return the logits of the dataset's classes, the maximum over each class's outputs.

        Args:
            logits: All outputs of the model, shape (B, K).

        Returns:
            Shape (B, C), differentiable.

        Raises:
            ValueError: If K does not exceed the largest output id of the space.
        """
        index = self._index
        if logits.ndim != 2 or logits.shape[1] <= int(index.max()):
            raise ValueError(f"expected logits (B, K) with K > {int(index.max())}, got shape {tuple(logits.shape)}")
        if index.shape[1] == 1 and index.shape[0] == logits.shape[1] and bool((index[:, 0].diff() == 1).all()):
            return logits  # all K outputs in order: no copy needed
        picked = logits[:, index.flatten().to(logits.device)]
        return picked.view(-1, *index.shape).amax(dim=2)

    def likeliest_outputs(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return, for each image, the most likely output among those that count as the class of its label.

        Args:
            outputs: All outputs of the model, shape (B, K).
            labels: Classes of the dataset, shape (B,).

        Returns:
            Output ids, shape (B,), on the device of the outputs.
        """
        meant = torch.zeros(len(self), outputs.shape[1], dtype=torch.bool)
        for label, group in enumerate(self.groups):
            meant[label, list(group)] = True
        likeliest: Tensor = outputs.masked_fill(~meant.to(outputs.device)[labels], -torch.inf).argmax(dim=1)
        return likeliest
