"""Selective projection decay: pull back only the layers that run away against their gradient's will."""

from __future__ import annotations

import lightning.pytorch as L
import torch
from torch import Tensor
from torch.optim import Optimizer

from rib.methods.base import Method
from rib.methods.l2sp import non_negative
from rib.training.module import FineTuner


class SPD(Method):
    """After each step, for each tensor with c = -<g, d> < 0: theta <- theta - strength * r * (theta - theta0).

    d = theta - theta0 before the step, d+ after it, g the gradient, r = clip((||d+|| - ||d||) / ||d+||, 0, 1): strength
    1 takes back what the step added to the distance. Tian et al., "Rethinking weight decay for robust fine-tuning of
    foundation models", NeurIPS 2024, arXiv 2411.01713, algorithm 1. c < 0 says that the gradient itself points back
    towards the start, so going on is momentum's doing and not the loss's. In a config::

        spd:
          _target_: rib.methods.spd.SPD
          strength: 1.0

    Differs from the official code (GT-RIPL/Selective-Projection-Decay, ``adamSPD.py``): not in its rule, tensor by
    tensor over all that train. There it is part of Adam and stands in the place of weight decay; here it follows any
    optimizer, whose own weight decay should be 0 to match. Adapters, which theirs pulls to zero, are refused.

    Costs a copy of the weights and a pass over them a step. It has no state between steps. Not with `lora` or
    `visual_prompt`, which train something else than weights.

    Args:
        strength: 0 or more; 0 is plain fine-tuning bit for bit.

    Raises:
        RibError: If it is negative or no finite number.
    """

    def __init__(self, strength: float = 1.0) -> None:
        self.strength = non_negative("spd", strength)
        self._anchor: list[Tensor] = []
        self._before: list[tuple[Tensor, Tensor]] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take the anchor."""
        if stage == "fit":
            assert isinstance(pl_module, FineTuner)
            device = trainer.strategy.root_device
            self._anchor = [p.detach().clone().to(device) for p in pl_module.model.parameters() if p.requires_grad]

    @torch.no_grad()
    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """While the weights are the old ones: how far each tensor is, and where its gradient points."""
        assert isinstance(pl_module, FineTuner)
        self._before = []
        for p, p0 in zip(_trained(pl_module), self._anchor, strict=True):
            moved = p - p0
            gradient = p.grad if p.grad is not None else torch.zeros_like(p)
            self._before.append(((gradient * moved).sum(), moved.norm()))

    @torch.no_grad()
    def after_step(self, module: FineTuner) -> None:
        """Project where the gradient pointed back; no tensor is looked at on the host."""
        if self.strength == 0:
            return
        for p, p0, (along, distance) in zip(_trained(module), self._anchor, self._before, strict=True):
            moved = p - p0
            now = moved.norm()
            ratio = ((now - distance) / now.clamp(min=torch.finfo(now.dtype).tiny)).clamp(0, 1)
            p.sub_(self.strength * torch.where(along > 0, ratio, 0.0) * moved)


def _trained(module: FineTuner) -> list[Tensor]:
    return [p for p in module.model.parameters() if p.requires_grad]
