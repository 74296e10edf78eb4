"""From a model's outputs to a dataset's classes.

The label space is a property of the dataset, fixed by the catalog, never of the folders that happen to be on
disk: 7,500 images of ImageNet-A scored over 1000 classes where 200 are meant look like 0.1 %. The model's head
is never cut; logits are projected.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class LabelSpace:
    """The classes of a dataset in terms of a model's outputs.

    Attributes:
        groups: ``groups[j]`` are the output ids that mean class ``j``. Nearly always one id; nine of ObjectNet's
            classes own several (a chair is a barber chair, a folding chair or a rocking chair).

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
        """A space whose class ``j`` is the single output ``ids[j]``."""
        return cls(tuple((i,) for i in ids))

    def __len__(self) -> int:
        return len(self.groups)

    @cached_property
    def _index(self) -> Tensor:
        """Output ids, shape (C, G), short groups padded by repeating their first id (max does not notice)."""
        width = max(len(group) for group in self.groups)
        return torch.tensor([group + (group[0],) * (width - len(group)) for group in self.groups])

    def project(self, logits: Tensor) -> Tensor:
        """Logits of the dataset's classes: the largest within each group.

        Args:
            logits: All outputs of the model, shape (B, K).

        Returns:
            Shape (B, C), differentiable.

        Raises:
            ValueError: If the model has fewer outputs than the space names.
        """
        index = self._index
        if logits.ndim != 2 or logits.shape[1] <= int(index.max()):
            raise ValueError(f"expected logits (B, K) with K > {int(index.max())}, got shape {tuple(logits.shape)}")
        if index.shape[1] == 1 and index.shape[0] == logits.shape[1] and bool((index[:, 0].diff() == 1).all()):
            return logits
        picked = logits[:, index.flatten().to(logits.device)]
        return picked.view(-1, *index.shape).amax(dim=2)

    def likeliest_outputs(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return for each image the likeliest output of its class.

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
