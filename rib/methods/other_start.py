"""Negative controls: fine-tuning from pretrained weights with some of their entries shuffled."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from rib.errors import RibError
from rib.methods.base import Method, Tuned
from rib.runtime.files import digest_of


class OtherStart(Method):
    """Fine-tune from the pretrained weights with the entries of some tensors shuffled.

    ``head``: the rows of the head are permuted, so that every class has another's weights. ``all``: the entries of
    every parameter are permuted, which leaves each tensor's distribution and nothing that was learnt (randomisation by
    layers, Adebayo et al. 2018, "Sanity checks for saliency maps", section 3, arXiv 1810.03292). The accuracy reached
    then owes nothing to the shuffled weights; "before" in RI stays the pretrained model. In a config::

        other_start:
          _target_: rib.methods.other_start.OtherStart
          shuffled: head
          seed: 0

    There is no official code for these controls: Adebayo et al. re-initialize layers to test saliency maps; here
    entries are permuted, so that each tensor keeps its values.

    Cost: none. Does not stack with lp_ft, whose probe would replace the shuffled head.

    Args:
        shuffled: ``head`` or ``all``.
        seed: Seed of the permutations.

    Raises:
        RibError: For another value of ``shuffled``.
    """

    name: ClassVar[str] = "other_start"
    order: ClassVar[int] = -1

    def __init__(self, shuffled: Literal["head", "all"] = "head", seed: int = 0) -> None:
        if shuffled not in ("head", "all"):
            raise RibError(f"method.other_start.shuffled: expected head or all, got {shuffled!r}")
        self.shuffled = shuffled
        self.seed = seed

    @torch.no_grad()
    def prepare(self, module: Tuned) -> None:
        """Shuffle the entries of the pretrained weights, with the same permutation on every process."""
        backbone, head = module.backbone, module.head
        for name, p in backbone.named_parameters():
            generator = torch.Generator().manual_seed(int(digest_of([self.seed, name])[:15], 16))
            if self.shuffled == "all":
                p.copy_(p.flatten()[torch.randperm(p.numel(), generator=generator).to(p.device)].view_as(p))
            elif name in head:
                rows = torch.Generator().manual_seed(self.seed)  # weight and bias go together
                p.copy_(p[torch.randperm(len(p), generator=rows).to(p.device)])
