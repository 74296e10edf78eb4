"""Base class of methods that combine the weights of finished runs (ingredients) without training.

In rib's commands each ingredient is a run of the store, made first where it is missing (`rib.training.merge`). As a
callback of a Trainer a `Merge` combines the start and the end of that fit.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from torch import Tensor, nn

from rib.errors import RibError
from rib.methods.base import Method, Tuned
from rib.models.adapters import LowRank, plain_weights
from rib.models.layers import depths
from rib.models.weights import StateDict


@dataclass(frozen=True)
class Ingredients:
    """Weights and metadata of the finished runs that a merged model is made from.

    Attributes:
        start: The pretrained weights theta0.
        parts: Weights of each ingredient, in the order of ``ingredients``.
        labels: Names of the ingredients in tables and messages.
        sources: Dataset that each ingredient was fine-tuned on.
        depth: Depth of each tensor by name, 0 (embedding) to L + 1 (head).
        accuracy: Returns the accuracy of weights on held-out images, a fraction; None where nothing was held out.
        fisher: Returns the diagonal of the Fisher at given weights, by parameter name; None without images.
        parameters: Names of trained tensors, in contrast to BatchNorm's counters and statistics.
        family: By dataset, the dataset whose photographs it was made from.
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
        """Function that returns the accuracy of a model's weights on held-out images, for methods that choose by it.

        Raises:
            RibError: If every image of the source was trained on.
        """
        if self.accuracy is None:
            raise RibError(
                "expected held-out images, by the accuracy on which this method chooses how to merge (training images "
                "and targets may not be used for that); hold out a part of the source with data.holdout=0.1"
            )
        return self.accuracy


class Merge(Method):
    """Base class of methods that combine the weights of finished runs.

    Attributes:
        chooses: True if the method selects ingredients or a coefficient by the accuracy on held-out images.
        by_depth: The method needs the ``depth`` of tensors.
    """

    order: ClassVar[int] = 2
    changes_end: ClassVar[bool] = True
    chooses: bool = False
    by_depth: ClassVar[bool] = True

    @abstractmethod
    def merge(self, given: Ingredients) -> dict[str, Tensor]:
        """Return the merged weights, by the parameter names of the unmodified network."""

    def merge_for(self, dataset: str, given: Ingredients) -> dict[str, Tensor] | None:
        """Return weights made for scoring one dataset only (RIB soup); None to score it with those of `merge`."""
        return None

    def variants(self, given: Ingredients) -> dict[str, dict[str, Tensor]]:
        """Return weights of further models to score in the same pass, by label, such as an interpolation curve's."""
        return {}

    def prepare(self, module: Tuned) -> None:
        """Store a copy of the start weights."""
        self._head = module.head if self.by_depth else set()
        self._start = {name: tensor.detach().clone() for name, tensor in _plain(module.backbone).items()}

    def finish(self, module: Tuned) -> None:
        """Replace the model's weights by a merge of those at the start and at the end of this fit."""
        backbone = module.backbone
        end = {name: tensor.detach().cpu().clone() for name, tensor in backbone.state_dict().items()}
        start = {name: tensor.cpu() for name, tensor in self._start.items()}
        backbone.load_state_dict(
            self.merge(
                Ingredients(
                    start,
                    [end],
                    ["this fit"],
                    ["this fit"],
                    depth=depths(end, self._head) if self.by_depth else {},
                    parameters=frozenset(name for name, _ in backbone.named_parameters()),
                )
            )
        )


def _plain(network: nn.Module) -> StateDict:
    """Return a network's weights, with LoRA's updates folded in as they are at the end of a fit."""
    adapted = any(isinstance(child, LowRank) for child in network.modules())
    return plain_weights(network) if adapted else network.state_dict()


def check_coefficient(name: str, value: float, extrapolate: bool | None) -> float:
    """Return an interpolation coefficient unchanged if it lies within 0 (the start) to 1 (fine-tuned).

    Args:
        name: Name of the option, such as ``method.wise_ft.alpha``.
        value: The coefficient.
        extrapolate: Allow any finite number; None for a method that has no such option.

    Raises:
        RibError: If it lies outside 0..1 and extrapolation was not asked for.
    """
    if not (0 <= value <= 1 or (extrapolate and abs(value) < float("inf"))):
        option = f"method.{name.split('.')[1]}.extrapolate=true"
        more = f", or extrapolate=True (on the command line {option})" if extrapolate is False else ""
        raise RibError(f"{name}: expected a number from 0 (the start) to 1 (the fine-tuned end){more}, got {value}")
    return value


def single_ingredient(method: str, given: Ingredients) -> StateDict:
    """Return the weights of the only ingredient, for a method that takes exactly one.

    Args:
        method: Name of the method.
        given: All ingredients.

    Raises:
        RibError: If there is not exactly one.
    """
    if len(given.parts) != 1:
        names = ", ".join(given.labels)
        raise RibError(f"method.{method}.ingredients: expected one run, got {len(given.parts)} ({names})")
    return given.parts[0]
