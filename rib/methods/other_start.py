"""Fine-tuning from weights that know less than the pretrained ones: controls, not methods."""

from __future__ import annotations

from typing import ClassVar, Literal

import lightning.pytorch as L
import torch

from rib.errors import RibError
from rib.methods.base import Method
from rib.models.layers import head_names
from rib.runtime.files import digest_of


class OtherStart(Method):
    """Fine-tunes from the pretrained weights with some of their tensors' entries shuffled.

    ``head``: the rows of the head change places, so that every class is called by another's name. ``all``: the entries
    of every floating tensor change places, which leaves each tensor's distribution and nothing that was learnt
    (randomisation by layers, Adebayo et al. 2018, "Sanity checks for saliency maps", section 3, arXiv 1810.03292). What
    fine-tuning then reaches owes nothing to what was shuffled; "before" in RI stays the pretrained model. In a config::

        other_start:
          _target_: rib.methods.other_start.OtherStart
          shuffled: head
          seed: 0

    There is no official code for these controls: Adebayo et al. draw layers anew to test saliency maps; here entries
    change places, so that each tensor keeps its values.

    Cost: none. Not beside lp_ft, whose probe would take the head's place.

    Args:
        shuffled: ``head`` or ``all``.
        seed: Of the order.

    Raises:
        RibError: For any other part.
    """

    order: ClassVar[int] = -1

    def __init__(self, shuffled: Literal["head", "all"] = "head", seed: int = 0) -> None:
        if shuffled not in ("head", "all"):
            raise RibError(f"method.other_start.shuffled: expected head or all, got {shuffled!r}")
        self.shuffled = shuffled
        self.seed = seed

    @property
    def name(self) -> str:
        """As in logs and metrics.json."""
        return "other_start"

    @torch.no_grad()
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Shuffle, the same on every process."""
        if stage != "fit":
            return
        backbone = pl_module.model.backbone  # type: ignore[union-attr]
        assert isinstance(backbone, torch.nn.Module)
        head = head_names(backbone)
        for name, p in backbone.named_parameters():
            generator = torch.Generator().manual_seed(int(digest_of([self.seed, name])[:15], 16))
            if self.shuffled == "all":
                p.copy_(p.flatten()[torch.randperm(p.numel(), generator=generator).to(p.device)].view_as(p))
            elif name in head:
                rows = torch.Generator().manual_seed(self.seed)  # weight and bias go together
                p.copy_(p[torch.randperm(len(p), generator=rows).to(p.device)])
