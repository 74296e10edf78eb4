"""LiNeS: what training changed is scaled down, most in the first layers."""

from __future__ import annotations

from torch import Tensor

from rib.errors import RibError
from rib.methods.merge import Ingredients, Merge, only_part
from rib.weights import mix


class LiNeS(Merge):
    """theta_l = theta0_l + (a + b (l - 1)/(L - 1)) (theta_l - theta0_l) for block l = 1..L; a before, a + b behind.

    Wang et al., "LiNeS: post-training layer scaling prevents forgetting and enhances model merging", ICLR 2025, arXiv
    2410.17146, eq. 4. Early layers hold what is general, so their change is scaled down most. In a config::

        lines:
          _target_: rib.methods.lines.LiNeS
          ingredients: [finetune]
          first: 0.1
          rise: 0.9

    Costs nothing after its ingredient, which must have weights (not `visual_prompt`). The paper scales blocks alone and
    its code everything else by a. Here the head and the norm before it go with the last block: they were fine-tuned
    together, and the head of the paper's CLIP is none that trains.

    Args:
        first: a, of the first block and the embedding, 0 or more.
        rise: b; a + b is the factor of the last block. 1 and 0 leave the fine-tuned model bit for bit.

    Raises:
        RibError: If a factor is negative or no finite number.
    """

    def __init__(self, first: float = 0.1, rise: float = 0.9) -> None:
        for name, value in (("first", first), ("rise", rise)):
            if not 0 <= value < float("inf"):
                raise RibError(f"method.lines.{name}: expected a finite number of 0 or more, got {value}")
        self.first = first
        self.rise = rise

    def merge(self, given: Ingredients) -> dict[str, Tensor]:
        """The scaled weights."""
        end = only_part(self.name, given)
        blocks = max(given.depth.values()) - 1

        def factors(name: str) -> list[float]:
            place = min(max(given.depth[name], 1), blocks)
            factor = self.first + self.rise * ((place - 1) / (blocks - 1) if blocks > 1 else 1)
            return [1 - factor, factor]

        return mix([given.start, end], factors)
