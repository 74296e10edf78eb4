"""Fisher-weighted merging: an average in which each model weighs each parameter by its Fisher information."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from rib.errors import RibError
from rib.methods.merge import Ingredients, Merge, check_coefficient
from rib.models.weights import StateDict, average, combine, interpolate

FLOOR = 1e-8
"""Smallest Fisher, so that a weight which matters to no model is averaged plainly."""


class FisherMerge(Merge):
    """Fisher-weighted mean: theta = [(1-a) F0 theta0 + a mean_i(F_i theta_i)] / [(1-a) F0 + a mean_i(F_i)].

    F0 and F_i are the models' own Fishers. Matena & Raffel 2022, "Merging models with Fisher-weighted averaging", arXiv
    2111.09832, eq. 2, between the start and the ingredients; F is the diagonal at each model's weights on source
    images, at least 1e-8. In a config::

        fisher_merge:
          _target_: rib.methods.fisher_merge.FisherMerge
          ingredients: [finetune]
          alpha: 0.5
          samples: 1000
          seed: 0
          normalise: none

    Differs from the official code (mmatena/model_merging, ``merging.py``, ``fisher.py``): there each Fisher is divided
    by its Euclidean norm over all weights (``normalise=norm``), is of images of the model's own task and exact over all
    labels, and has a floor of 1e-6 for the first model alone; alpha is chosen on held-out images. Here eq. 2 is taken
    as written, since the size of a Fisher tells how confident its model is on the source; all are of the source's
    images, labels are sampled, and every model has the floor, that of wise-ft's code.

    Costs one backward pass for each of ``samples`` images and each model. Does not stack with ingredients of
    `visual_prompt`. In rib's commands only. At alpha 0 and 1 (with one ingredient) the result is the endpoint bit for
    bit; tensors that do not train are interpolated.

    Args:
        alpha: Weight of the ingredients against the start, 0 to 1.
        samples: Number of source images for each Fisher.
        seed: Seed of the choice of images and of sampled labels.
        normalise: ``none``, or ``norm``: each Fisher divided by its Euclidean norm over all weights.

    Raises:
        RibError: For an alpha outside 0..1, no samples, another normalisation, or where there are no images (in your
            own Trainer).
    """

    name: ClassVar[str] = "fisher_merge"
    rib_only: ClassVar[str] = "it needs the Fishers of finished runs"

    def __init__(
        self, alpha: float = 0.5, samples: int = 1000, seed: int = 0, normalise: Literal["none", "norm"] = "none"
    ) -> None:
        self.alpha = check_coefficient("method.fisher_merge.alpha", alpha, extrapolate=None)
        if samples < 1:
            raise RibError(f"method.fisher_merge.samples: expected at least 1 image, got {samples}")
        if normalise not in ("none", "norm"):
            raise RibError(f"method.fisher_merge.normalise: expected none or norm, got {normalise!r}")
        self.samples = samples
        self.seed = seed
        self.normalise = normalise

    def merge(self, given: Ingredients) -> dict[str, Tensor]:
        """Return the Fisher-weighted mean of the start weights and the ingredients."""
        if self.alpha == 0 or (self.alpha == 1 and len(given.parts) == 1):
            return interpolate(given.start, average(given.parts), self.alpha)
        if given.fisher is None:
            raise RibError("method.fisher_merge: needs source images for its Fishers; run it with python -m rib.train")
        states = [given.start, *given.parts]
        fishers = [given.fisher(state) for state in states]
        shares = [1 - self.alpha] + [self.alpha / len(given.parts)] * len(given.parts)
        weights = [s / (_norm(f) if self.normalise == "norm" else 1) for s, f in zip(shares, fishers, strict=True)]

        def weigh(name: str, tensors: list[Tensor]) -> Tensor:
            if name in fishers[0]:
                each = [w * f[name].double().cpu().clamp(min=FLOOR) for w, f in zip(weights, fishers, strict=True)]
            else:
                each = [torch.full_like(tensors[0], share) for share in shares]
            total = torch.stack([w * t for w, t in zip(each, tensors, strict=True)]).sum(dim=0)
            return total / torch.stack(each).sum(dim=0)

        return combine(states, weigh)


def _norm(fisher: StateDict) -> float:
    """Compute the Euclidean norm of a Fisher over all weights, at least `FLOOR` so that it can be divided by."""
    return max(math.sqrt(sum(float(f.double().square().sum()) for f in fisher.values())), FLOOR)
