"""Model Stock: interpolate from the start to the mean of fine-tuned models, by the angle between their changes."""

from __future__ import annotations

from itertools import combinations
from statistics import fmean
from typing import ClassVar

import torch
from torch import Tensor

from rib.errors import RibError
from rib.methods.merge import Ingredients, Merge
from rib.models.weights import mix


class ModelStock(Merge):
    """Interpolation per tensor: theta = t mean_i(theta_i) + (1 - t) theta0, t = N c / (1 + (N - 1) c).

    Jang et al., "Model Stock: all we need is just a few fine-tuned models", ECCV 2024, arXiv 2403.19522, eq. 3 and
    section 4: fine-tunes lie on a thin shell around a centre, and this is the point nearest to it in their plane with
    the start. c = cos(d_i, d_j) is the mean over pairs of ingredients, d_i = theta_i - theta0. In a config::

        model_stock:
          _target_: rib.methods.model_stock.ModelStock
          ingredients: [finetune, 'finetune seed=+1']

    Differs from the official code (naver-ai/model-stock, a notebook; read in public copies of it): there t is negative
    for opposed displacements, which leads beyond the start, and tensors that CLIP's image side does not train are
    simply averaged. It is written for two fine-tunes; the formula for N is the paper's.

    Costs its ingredients. Does not stack with `visual_prompt`, which has no weights. A tensor that no ingredient moved
    stays; opposed displacements (c < 0) give the start. In rib's commands only.

    Raises:
        RibError: If there are fewer than two ingredients.
    """

    name: ClassVar[str] = "model_stock"
    rib_only: ClassVar[str] = "it combines several finished runs"

    def merge(self, given: Ingredients) -> dict[str, Tensor]:
        """Return each tensor interpolated between the start and the mean of the ingredients."""
        count = len(given.parts)
        if count < 2:
            raise RibError(f"method.model_stock.ingredients: expected two runs or more, got {count}")

        def factors(name: str) -> list[float]:
            if not given.start[name].is_floating_point():
                return [0.0] * count + [1.0]
            start = given.start[name].double().flatten()
            moved = [part[name].double().flatten() - start for part in given.parts]
            cosine = fmean(float(torch.cosine_similarity(a, b, dim=0)) for a, b in combinations(moved, 2))
            ratio = count * max(cosine, 0.0) / (1 + (count - 1) * max(cosine, 0.0))
            return [1 - ratio] + [ratio / count] * count

        return mix([given.start, *given.parts], factors)
