"""Model soups: the uniform or greedy mean of several fine-tuned models."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from rib.errors import RibError
from rib.methods.merge import Ingredients, Merge
from rib.models.weights import average


class Soup(Merge):
    """Mean of ingredients, theta = (1/N) sum_i theta_i, of all or of those that a greedy choice keeps.

    Wortsman et al. 2022, "Model soups", arXiv 2203.05482, section 2 and recipe 1. The ImageNet-RIB paper's soup is the
    uniform one of the start, plain fine-tuning, EWC and LwF. In a config::

        soup:
          _target_: rib.methods.soup.Soup
          ingredients: [pretrained, finetune, ewc, lwf]
          choice: uniform

    Differs from the official code (mlfoundations/model-soups, ``main.py``): there the greedy choice takes an ingredient
    only if accuracy rises (``strict=true``), where the paper's recipe 1 takes it if accuracy does not fall; and of
    ingredients with equal accuracy the last comes first there, here the first.

    A sweep as ingredients: ``[finetune optimizer.lr=.001, finetune optimizer.lr=.003, finetune seed=1]``. Costs its
    ingredients; a greedy choice scores the held-out part up to twice for each. Does not stack with ingredients of
    `visual_prompt` or `output_ensemble`, which have no weights of their own. In rib's commands only.

    Args:
        choice: ``uniform``, or ``greedy``: sort by accuracy on the part of the source that ``data.holdout`` kept from
            training, then add each one unless it lowers the soup's accuracy there.
        strict: Greedy as in the authors' code: an ingredient that leaves the accuracy unchanged is not taken.

    Raises:
        RibError: For another value of ``choice``, or a greedy choice where nothing was held out.
    """

    rib_only: ClassVar[str] = "it combines several finished runs"

    def __init__(self, choice: Literal["uniform", "greedy"] = "uniform", strict: bool = False) -> None:
        if choice not in ("uniform", "greedy"):
            raise RibError(f"method.soup.choice: expected uniform or greedy, got {choice!r}")
        self.choice = choice
        self.strict = strict
        self.chooses = choice == "greedy"
        self.kept: list[str] = []

    def merge(self, given: Ingredients) -> dict[str, Tensor]:
        """Return the mean of the weights of all ingredients, or of those that the greedy choice keeps."""
        kept = list(range(len(given.parts))) if self.choice == "uniform" else self._greedy(given)
        self.kept = [given.labels[i] for i in kept]
        return average([given.parts[i] for i in kept])

    def _greedy(self, given: Ingredients) -> list[int]:
        alone = [given.held_out_accuracy(part) for part in given.parts]
        order = sorted(range(len(alone)), key=lambda i: -alone[i])
        kept, best = [order[0]], alone[order[0]]
        for i in order[1:]:
            accuracy = given.held_out_accuracy(average([given.parts[j] for j in (*kept, i)]))
            if accuracy > best or (accuracy == best and not self.strict):
                kept, best = [*kept, i], accuracy
        return sorted(kept)

    def report(self) -> dict[str, float]:
        """Return the number of averaged ingredients, and for each averaged ingredient a 1 under its label."""
        return {"soup.ingredients": len(self.kept), **{f"soup.kept.{label}": 1.0 for label in self.kept}}
