"""Task arithmetic and TIES: add task vectors (fine-tuned minus start weights) of several runs to the start."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from rib.errors import RibError
from rib.methods.merge import Ingredients, Merge
from rib.models.weights import StateDict, combine, mix


class TaskArithmetic(Merge):
    """Scaled sum of displacements: theta = theta0 + strength * sum_i (theta_i - theta0).

    Ilharco et al. 2023, "Editing models with task arithmetic", arXiv 2212.04089, eq. 1. With one ingredient and a
    strength of 0..1 it is WiSE-FT. In a config::

        task_arithmetic:
          _target_: rib.methods.task_arithmetic.TaskArithmetic
          ingredients: [finetune]
          strength: 0.4

    Differs from the official code (mlfoundations/task_vectors, ``src/task_vectors.py``): there the sum is over image
    encoders, each task keeps a frozen head of its own, and the strength is chosen on held-out images; here the single
    head is part of the sum.

    Costs its ingredients. Does not stack with `visual_prompt`, which has no weights. In your own Trainer it scales the
    displacement of that fit.

    Args:
        strength: The paper's scaling coefficient, 0 or more; 0 is the start, 1 with one ingredient that ingredient.

    Raises:
        RibError: If it is negative or not finite.
    """

    name: ClassVar[str] = "task_arithmetic"
    by_depth: ClassVar[bool] = False

    def __init__(self, strength: float = 0.4) -> None:
        self.strength = _check("task_arithmetic", strength)

    def merge(self, given: Ingredients) -> dict[str, Tensor]:
        """Return the start plus the scaled sum of displacements."""
        count = len(given.parts)
        return mix([given.start, *given.parts], [1 - count * self.strength] + [self.strength] * count)


class Ties(Merge):
    """TIES merging: trim displacements to their largest entries, elect signs, and average the entries that agree.

    Yadav et al. 2023, "TIES-Merging", arXiv 2306.01708, algorithm 1: keep the ``keep`` largest part of each
    displacement by magnitude (over all weights of a model), elect each weight's sign by the sum, average the entries of
    that sign, and add ``strength`` times that to the start. With keep 1 and one ingredient it is task arithmetic.
    In a config::

        ties:
          _target_: rib.methods.task_arithmetic.Ties
          ingredients: [finetune]
          strength: 1.0
          keep: 0.2

    Differs from the official code (prateeky2806/ties-merging, ``src/utils/merge_utils.py``): where trimmed
    displacements sum to exactly zero, a weight has there the sign that most weights of the model have, so that one side
    is taken; here it stays at the start, as sgn(0) = 0 says. There one entry more than ``keep`` survives, and the
    strength is chosen on held-out images. BatchNorm's statistics, which the paper's T5 does not have, are elected and
    never trimmed.

    Costs its ingredients, and a copy of one model's weights for each while their thresholds are found. Does not stack
    with `visual_prompt`, which has no weights. In your own Trainer it trims the displacement of that fit.

    Args:
        strength: Factor of the merged displacement, 0 or more.
        keep: Share of a displacement's entries that is kept, above 0 to 1.

    Raises:
        RibError: For a value outside its range.
    """

    by_depth: ClassVar[bool] = False

    def __init__(self, strength: float = 1.0, keep: float = 0.2) -> None:
        self.strength = _check("ties", strength)
        if not 0 < keep <= 1:
            raise RibError(f"method.ties.keep: expected a share above 0 and up to 1, got {keep}")
        self.keep = keep

    def merge(self, given: Ingredients) -> dict[str, Tensor]:
        """Return the start plus strength times the merged displacement."""
        if self.keep == 1 and len(given.parts) == 1:  # nothing is trimmed, nothing elected
            return TaskArithmetic(self.strength).merge(given)
        floors = torch.tensor(
            [self._floor(given.start, part, given.parameters) for part in given.parts], dtype=torch.float64
        )

        def elect(name: str, tensors: list[Tensor]) -> Tensor:
            start, *ends = tensors
            moved = torch.stack([end - start for end in ends])
            if name in given.parameters:
                moved = torch.where(moved.abs() >= floors.view(-1, *[1] * start.ndim), moved, 0.0)
            sign = moved.sum(dim=0).sign()
            agree = (moved.sign() == sign) & (moved != 0)
            return start + self.strength * (moved * agree).sum(dim=0) / agree.sum(dim=0).clamp(min=1)

        return combine([given.start, *given.parts], elect)

    def _floor(self, start: StateDict, end: StateDict, names: frozenset[str]) -> float:
        """Return the magnitude from which entries of a displacement are kept, so that the share ``keep`` of them is."""
        moved = torch.cat([(end[n].double() - start[n].double()).abs().flatten() for n in start if n in names])
        count = max(1, round(self.keep * len(moved)))
        return float(moved.kthvalue(len(moved) - count + 1).values)


def _check(name: str, value: float) -> float:
    if not 0 <= value < float("inf"):
        raise RibError(f"method.{name}.strength: expected a finite number of 0 or more, got {value}")
    return value
