"""Selective projection decay (SPD): pull back tensors that drift away from the start against their gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from rib.methods.anchor import displacement, kept
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
        # Of T tensors before the step: whether descent leads back to the start, and the distance from it, shape (T,).
        self._inward = torch.zeros(0, dtype=torch.bool)
        self._distance = torch.zeros(0)

    def prepare(self, module: Tuned) -> None:
        """Store a copy of the start weights."""
        self._anchor = kept(trained_parameters(module), module.trainer.strategy.root_device)

    @torch.no_grad()
    def before_step(self, module: Tuned) -> None:
        """Measure each tensor's distance from the start, and its gradient along that displacement, before the step."""
        trained = trained_parameters(module)
        moved = displacement(trained, self._anchor)
        self._distance = torch.stack(torch._foreach_norm(moved))
        torch._foreach_mul_(moved, [torch.zeros_like(p) if p.grad is None else p.grad for p in trained])
        self._inward = torch.stack([along.sum() for along in moved]) > 0

    @torch.no_grad()
    def after_step(self, module: Tuned) -> None:
        """Pull back the tensors whose negative gradient pointed to the start, without GPU-to-CPU synchronisation."""
        if self.strength == 0:
            return
        trained = trained_parameters(module)
        moved = displacement(trained, self._anchor)
        now = torch.stack(torch._foreach_norm(moved))
        ratio = ((now - self._distance) / now.clamp(min=torch.finfo(now.dtype).tiny)).clamp(0, 1)
        pull = self.strength * torch.where(self._inward, ratio, 0.0)
        torch._foreach_addcmul_(trained, moved, pull.unbind(), value=-1)
