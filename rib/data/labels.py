"""Label spaces: mapping a model's 1000 outputs to the classes of a dataset.

The label space is a property of the dataset, fixed by the catalog and not by the folders found on disk: ImageNet-A
scored over labels that are numbered by folder, 0 to 199, in place of its 200 outputs looks like 0.1 % accuracy (timm
issue 2456). The model's head keeps all its outputs; logits are projected.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

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

    @cached_property
    def _largest(self) -> int:
        return int(self._index.max())

    @cached_property
    def _is_every_output(self) -> bool:
        """True if the classes are the outputs from 0 on, one each and in order; a model may have more outputs."""
        return self._index.tolist() == [[i] for i in range(len(self))]

    @cached_property
    def _copies(self) -> dict[torch.device, Tensor]:
        return {}

    def _index_on(self, device: torch.device) -> Tensor:
        """Return `_index` on a device, copied there once: a copy makes the CPU wait for all that a GPU has to do."""
        if device not in self._copies:
            self._copies[device] = self._index.to(device)
        return self._copies[device]

    def __getstate__(self) -> dict[str, Any]:
        return {"groups": self.groups}  # other processes have other devices

    def project(self, logits: Tensor) -> Tensor:
        """Return the logits of the dataset's classes, the maximum over each class's outputs.

        Args:
            logits: All outputs of the model, shape (B, K).

        Returns:
            Shape (B, C), differentiable.

        Raises:
            ValueError: If K does not exceed the largest output id of the space.
        """
        if logits.ndim != 2 or logits.shape[1] <= self._largest:
            raise ValueError(f"expected logits (B, K) with K > {self._largest}, got shape {tuple(logits.shape)}")
        if self._is_every_output and len(self) == logits.shape[1]:
            return logits  # no copy needed
        index = self._index_on(logits.device)
        picked = logits[:, index.flatten()]
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
