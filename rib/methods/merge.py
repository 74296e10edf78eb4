"""What a method is that trains nothing: finished runs go in, weights come out.

In rib each ingredient is a run of the store, made first where it is missing (`rib.training.merge`). As a callback in
somebody's own Trainer, with no runs handed in, a `Merge` puts together the start and the end of that very fit.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import lightning.pytorch as L
from torch import Tensor

from rib.errors import RibError
from rib.methods.base import Method
from rib.models.layers import depths, head_names
from rib.models.weights import StateDict
from rib.training.module import FineTuner


@dataclass(frozen=True)
class Ingredients:
    """What a merged model is made from.

    Attributes:
        start: The pretrained weights theta0.
        parts: Weights of each ingredient, in the order of ``ingredients``.
        labels: Their names for people.
        sources: What each was fine-tuned on.
        depth: How deep each tensor lies, 0 (embedding) to L + 1 (head), by name.
        accuracy: Of weights on the part of the source that nothing was trained on, a fraction; None without one.
        fisher: The Fisher's diagonal at given weights, by parameter name; None where there are no images.
        parameters: Names of the tensors that are trained, not counted or measured like BatchNorm's statistics.
        family: By dataset, the dataset whose photographs it is made of.
    """

    start: StateDict
    parts: Sequence[StateDict]
    labels: Sequence[str]
    sources: Sequence[str]
    depth: Mapping[str, int] = field(default_factory=dict)
    accuracy: Callable[[StateDict], float] | None = None
    fisher: Callable[[StateDict], StateDict] | None = None
    parameters: frozenset[str] = frozenset()
    family: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def held_out_accuracy(self) -> Callable[[StateDict], float]:
        """What selects.

        Raises:
            RibError: If every image of the source was trained on.
        """
        if self.accuracy is None:
            raise RibError(
                "nothing may be chosen on images that were trained on, and targets never choose; keep a part of the "
                "source out of training with data.holdout=0.1"
            )
        return self.accuracy


class Merge(Method):
    """Base of every method that puts finished runs together.

    Attributes:
        chooses: Whether a part of the source that nothing was trained on has to choose something.
    """

    order: ClassVar[int] = 2
    chooses: bool = False

    @abstractmethod
    def merge(self, given: Ingredients) -> dict[str, Tensor]:
        """The merged weights, by the plain architecture's names."""

    def merge_for(self, dataset: str, given: Ingredients) -> dict[str, Tensor] | None:
        """Other weights for one dataset, or None for those of `merge`."""
        return None

    def variants(self, given: Ingredients) -> dict[str, dict[str, Tensor]]:
        """Further weights to be scored in the same pass, by label; a curve."""
        return {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """In a Trainer: take the start."""
        if stage == "fit":
            assert isinstance(pl_module, FineTuner)
            self._start = {n: t.detach().clone() for n, t in pl_module.model.backbone.state_dict().items()}

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """In a Trainer: merge the start and the end of this fit."""
        assert isinstance(pl_module, FineTuner)
        backbone = pl_module.model.backbone
        end = {name: tensor.detach().cpu().clone() for name, tensor in backbone.state_dict().items()}
        start = {name: tensor.cpu() for name, tensor in self._start.items()}
        backbone.load_state_dict(
            self.merge(
                Ingredients(
                    start,
                    [end],
                    ["this fit"],
                    ["this fit"],
                    depth=depths(end, head_names(backbone)),
                    parameters=frozenset(name for name, _ in backbone.named_parameters()),
                )
            )
        )


def between(name: str, value: float, extrapolate: bool) -> float:
    """A coefficient that was checked.

    Raises:
        RibError: If it lies outside 0..1 and extrapolation was not asked for.
    """
    if not (0 <= value <= 1 or (extrapolate and abs(value) < float("inf"))):
        more = "" if extrapolate else f", or method.{name.split('.')[1]}.extrapolate=true"
        raise RibError(f"{name}: expected a number from 0 (the start) to 1 (the fine-tuned end){more}, got {value}")
    return value


def only_part(method: str, given: Ingredients) -> StateDict:
    """The one ingredient of a method that takes one.

    Raises:
        RibError: If there are more or none.
    """
    if len(given.parts) != 1:
        names = ", ".join(given.labels)
        raise RibError(f"method.{method}.ingredients: expected one run, got {len(given.parts)} ({names})")
    return given.parts[0]
