"""Selective projection decay (SPD): pull back tensors that drift away from the start against their gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from rib.methods.base import Method, Tuned, trained_parameters
from rib.methods.l2sp import check_strength


class SPD(Method):
    """Projection after each step of each tensor with c = -<g, d> < 0: theta <- theta - strength * r * (theta - theta0).

    d = theta - theta0 before the step, d+ after it, g the gradient, r = clip((||d+|| - ||d||) / ||d+||, 0, 1): strength
    1 takes back what the step added to the distance. Tian et al., "Rethinking weight decay for robust fine-tuning of
    foundation models", NeurIPS 2024, arXiv 2411.01713, algorithm 1. With c < 0 a descent step leads back towards the
    start, so that it is momentum which moves the tensor away, and not the loss. In a config::

        spd:
          _target_: rib.methods.spd.SPD
          strength: 1.0

    Differs from the official code (GT-RIPL/Selective-Projection-Decay, ``adamSPD.py``): there it is part of Adam and
    replaces weight decay; here it follows any optimizer, whose own weight decay should be 0 to match. Adapters, which
    the official code pulls to zero, are refused. The rule is the same, for each trained tensor.

    Costs a copy of the weights, and two passes over them per step. It has no state between steps. Does not stack with
    `lora` or `visual_prompt`, which do not train the weights themselves.

    Args:
        strength: 0 or more; 0 is plain fine-tuning bit for bit.

    Raises:
        RibError: If it is negative or not finite.
    """

    def __init__(self, strength: float = 1.0) -> None:
        self.strength = check_strength("spd", strength)
        self._anchor: list[Tensor] = []
        self._before: list[tuple[Tensor, Tensor]] = []

    def prepare(self, module: Tuned) -> None:
        """Store a copy of the start weights."""
        device = module.trainer.strategy.root_device
        self._anchor = [p.detach().clone().to(device) for p in trained_parameters(module)]

    @torch.no_grad()
    def before_step(self, module: Tuned) -> None:
        """Measure each tensor's distance from the start, and its gradient along that displacement, before the step."""
        self._before = []
        for p, p0 in zip(trained_parameters(module), self._anchor, strict=True):
            moved = p - p0
            gradient = p.grad if p.grad is not None else torch.zeros_like(p)
            self._before.append(((gradient * moved).sum(), moved.norm()))

    @torch.no_grad()
    def after_step(self, module: Tuned) -> None:
        """Pull back the tensors whose negative gradient pointed to the start, without GPU-to-CPU synchronisation."""
        if self.strength == 0:
            return
        for p, p0, (along, distance) in zip(trained_parameters(module), self._anchor, self._before, strict=True):
            moved = p - p0
            now = moved.norm()
            ratio = ((now - distance) / now.clamp(min=torch.finfo(now.dtype).tiny)).clamp(0, 1)
            p.sub_(self.strength * torch.where(along > 0, ratio, 0.0) * moved)
