"""RIB soup: the mean of the models fine-tuned on the benchmark's other sources."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from rib.errors import RibError
from rib.methods.merge import Ingredients, Merge
from rib.models.weights import average


class RibSoup(Merge):
    """Mean of the models fine-tuned on the other sources; for each target without the one fine-tuned on that target.

    It tests whether an average of models, each fine-tuned on one shift, does better than the best of them on a shift
    that none was trained on. With source X the soup is of every other source that may be trained on, and target T is
    scored by the soup without T's fine-tune either: leave-one-out. In a config::

        rib_soup:
          _target_: rib.methods.rib_soup.RibSoup
          ingredients: ['finetune dataset=others']
          leave_out: own

    There is no official code: the method is rib's own.

    Costs its ingredients, and a forward of each target by a model of its own. Does not stack with ingredients of
    `visual_prompt`. In rib's commands only.

    Args:
        leave_out: ``own`` leaves out the target's own fine-tune; ``family`` also those of sets made of the same
            photographs (Cartoon, Drawing and C are all made from val).

    Raises:
        RibError: For another value of ``leave_out``, or if nothing is left to average.
    """

    name: ClassVar[str] = "rib_soup"
    rib_only: ClassVar[str] = "it combines several finished runs"

    def __init__(self, leave_out: Literal["own", "family"] = "own") -> None:
        if leave_out not in ("own", "family"):
            raise RibError(f"method.rib_soup.leave_out: expected own or family, got {leave_out!r}")
        self.leave_out = leave_out

    def merge(self, given: Ingredients) -> dict[str, Tensor]:
        """Return the mean of the models fine-tuned on all other sources."""
        return average(given.parts)

    def merge_for(self, dataset: str, given: Ingredients) -> dict[str, Tensor] | None:
        """Return the mean of the models not trained on a dataset; None if that is all of them (then use `merge`)."""
        kept = self.unseen(dataset, given)
        if len(kept) == len(given.parts):
            return None
        if not kept:
            raise RibError(
                f"method.rib_soup: every ingredient was fine-tuned on {dataset} or its photographs, so none can be "
                "averaged for it; add ingredients of other sources"
            )
        return average([given.parts[i] for i in kept])

    def unseen(self, dataset: str, given: Ingredients) -> list[int]:
        """Return the indices of the ingredients that were not trained on a dataset, or on its family."""

        def kin(name: str) -> str:
            return given.family.get(name, name) if self.leave_out == "family" else name

        return [i for i, source in enumerate(given.sources) if kin(source) != kin(dataset)]
