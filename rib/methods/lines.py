"""LiNeS: scale down the change of fine-tuning, most in the first layers."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from rib.errors import RibError
from rib.methods.merge import Ingredients, Merge, single_ingredient
from rib.models.weights import mix


class LiNeS(Merge):
    """Layer scaling: theta_l = theta0_l + (a + b (l - 1)/(L - 1)) (theta_l - theta0_l) for block l = 1..L.

    Wang et al., "LiNeS: post-training layer scaling prevents forgetting and enhances model merging", ICLR 2025, arXiv
    2410.17146, eq. 4. The factor is a before the first block and a + b behind the last. Early layers hold general
    features, so their change is scaled down most. In a config::

        lines:
          _target_: rib.methods.lines.LiNeS
          ingredients: [finetune]
          first: 0.1
          rise: 0.9
          behind: last

    Differs from the official code (wang-kee/LiNeS, ``src/eval/eval.py``): the paper scales only blocks, the code all
    other layers, before and behind them, by a (``behind=first``). Here the head and the norm before it have the factor
    of the last block: they were fine-tuned with it, and the head of the paper's CLIP does not train. For one task b is
    1 - a there, and a is chosen on held-out images, those of the old tasks too.

    Costs nothing after its ingredient. Does not stack with `visual_prompt`, which has no weights. In your own Trainer
    it scales the change of that fit.

    Args:
        first: a, of the first block and the embedding, 0 or more.
        rise: b; a + b is the factor of the last block. 1 and 0 leave the fine-tuned model bit for bit.
        behind: Layers behind the last block have the factor of the ``last`` block, or of the ``first``.

    Raises:
        RibError: If a factor is negative or not finite, or for another value of ``behind``.
    """

    def __init__(self, first: float = 0.1, rise: float = 0.9, behind: Literal["last", "first"] = "last") -> None:
        for name, value in (("first", first), ("rise", rise)):
            if not 0 <= value < float("inf"):
                raise RibError(f"method.lines.{name}: expected a finite number of 0 or more, got {value}")
        if behind not in ("last", "first"):
            raise RibError(f"method.lines.behind: expected last or first, got {behind!r}")
        self.first = first
        self.rise = rise
        self.behind = behind

    def merge(self, given: Ingredients) -> dict[str, Tensor]:
        """Return the start weights plus the change of fine-tuning, scaled layer by layer."""
        end = single_ingredient(self.name, given)
        blocks = max(given.depth.values()) - 1

        def factors(name: str) -> list[float]:
            depth = given.depth[name]
            place = 1 if depth > blocks and self.behind == "first" else min(max(depth, 1), blocks)
            factor = self.first + self.rise * ((place - 1) / (blocks - 1) if blocks > 1 else 1)
            return [1 - factor, factor]

        return mix([given.start, end], factors)
