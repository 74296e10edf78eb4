"""LiNeS: what training changed is scaled down, most in the first layers."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from rib.errors import RibError
from rib.methods.merge import Ingredients, Merge, only_part
from rib.models.weights import mix


class LiNeS(Merge):
    """theta_l = theta0_l + (a + b (l - 1)/(L - 1)) (theta_l - theta0_l) for block l = 1..L; a before, a + b behind.

    Wang et al., "LiNeS: post-training layer scaling prevents forgetting and enhances model merging", ICLR 2025, arXiv
    2410.17146, eq. 4. Early layers hold what is general, so their change is scaled down most. In a config::

        lines:
          _target_: rib.methods.lines.LiNeS
          ingredients: [finetune]
          first: 0.1
          rise: 0.9
          behind: last

    Differs from the official code (wang-kee/LiNeS, ``src/eval/eval.py``): the paper scales blocks alone, the code all
    else, in front and behind, by a (``behind=first``). Here the head and the norm before it go with the last block:
    they were fine-tuned together, and the head of the paper's CLIP is none that trains. For one task b is 1 - a there,
    and a is chosen on held-out images, those of the old tasks too.

    Costs nothing after its ingredient, which must have weights (not `visual_prompt`).

    Args:
        first: a, of the first block and the embedding, 0 or more.
        rise: b; a + b is the factor of the last block. 1 and 0 leave the fine-tuned model bit for bit.
        behind: What lies behind the last block goes with the ``last`` block, or with the ``first``.

    Raises:
        RibError: If a factor is negative or no finite number, or for another place.
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
        """The scaled weights."""
        end = only_part(self.name, given)
        blocks = max(given.depth.values()) - 1

        def factors(name: str) -> list[float]:
            depth = given.depth[name]
            place = 1 if depth > blocks and self.behind == "first" else min(max(depth, 1), blocks)
            factor = self.first + self.rise * ((place - 1) / (blocks - 1) if blocks > 1 else 1)
            return [1 - factor, factor]

        return mix([given.start, end], factors)
