"""Fast trainable projection (FTP): keep each tensor within a learned radius of its start."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rib.errors import RibError
from rib.methods.anchor import displacement, kept
from rib.methods.base import Method, Tuned

LEAST = 1e-8
"""The first radius, the smallest learned one, and the constant added to norms, as in the authors' code."""
BETAS = (0.9, 0.999)


class FTP(Method):
    """Projection of each row i of a tensor after a step: theta_i <- theta0_i + min(1, gamma / ||d_i||_1) d_i.

    d = theta - theta0. Rows are those of the first dimension; a bias or the scales of a norm are one row. Their norm is
    the sum of magnitudes (MARS), and gamma is one radius for each tensor. Before that Adam moves gamma along -dL/dgamma
    = -sum_i <g_i, d'_i / ||d'_i||_1> over all rows, d' being the displacements before the last projection, and gamma is
    kept between 1e-8 and the largest ||d_i||_1. Tian et al., "Fast trainable projection for robust fine-tuning",
    NeurIPS 2023, arXiv 2310.19182, algorithm 1 and eq. 5. In a config::

        ftp:
          _target_: rib.methods.ftp.FTP
          radius: null
          rate: 0.01
          anneal: 1.0
          exclude_head: true

    Differs from the official code (GT-RIPL/FTP, ``util/FTP.py``): there it is an optimizer of its own; here it follows
    the run's optimizer. The steps are the same, for SGD and AdamW alike (Adam counts the first one, in which no radius
    moves, as well). A fixed ``radius`` is rib's addition, and a row inside its ball keeps its bits.

    Costs three copies of the weights, and three passes over them per step. The radii are saved in checkpoints.
    Does not stack with `lora` or `visual_prompt`, which do not train the weights themselves.

    Args:
        radius: null: learned, from 1e-8 on; a number fixes it for all tensors; inf is plain fine-tuning bit for bit.
        rate: Adam's learning rate for the radii, in units of row norms.
        anneal: Factor of gradients that would shrink a radius, 0 to 1; below 1 radii grow more easily.
        exclude_head: Do not project the head, as in the paper.

    Raises:
        RibError: For a value outside its range.
    """

    def __init__(
        self, radius: float | None = None, rate: float = 0.01, anneal: float = 1.0, exclude_head: bool = True
    ) -> None:
        if radius is not None and not radius >= 0:
            raise RibError(f"method.ftp.radius: expected a number of 0 or more, or null, got {radius}")
        if not 0 <= rate < float("inf"):
            raise RibError(f"method.ftp.rate: expected a finite number of 0 or more, got {rate}")
        if not 0 <= anneal <= 1:
            raise RibError(f"method.ftp.anneal: expected a number from 0 to 1, got {anneal}")
        self.radius = radius
        self.rate = rate
        self.anneal = anneal
        self.exclude_head = exclude_head
        self._start: list[Tensor] = []
        self._names: list[str] = []
        # One row per tensor: radius, Adam's first and second moment; and the number of steps.
        self._state = torch.zeros(0, 3)
        self._steps = 0
        self._tensor_of_row = torch.zeros(0, dtype=torch.long)
        # d theta / d gamma. Not read off the projected weights: 1 + 1e-8 is 1 in float32, and a radius would be stuck.
        self._directions: list[Tensor] = []

    def prepare(self, module: Tuned) -> None:
        """Store a copy of the start values of each tensor that will be projected."""
        device = module.trainer.strategy.root_device
        free = module.head if self.exclude_head else set()
        held = {n: p for n, p in module.backbone.named_parameters() if p.requires_grad and n not in free}
        self._names = list(held)
        self._start = kept(held.values(), device)
        counts = torch.tensor([_count(p) for p in self._start], dtype=torch.long)
        self._tensor_of_row = torch.arange(len(counts)).repeat_interleave(counts).to(device)
        first = LEAST if self.radius is None else self.radius
        self._state = torch.tensor([[first, 0.0, 0.0]] * len(held), device=device)
        self._steps, self._directions = 0, []

    @torch.no_grad()
    def after_step(self, module: Tuned) -> None:
        """Move the radii along this step's gradient, then project every tensor to within its radius.

        Both come after the optimizer's step, so that a step which float16's loss scaling skips leaves no trace.
        """
        if self.radius == float("inf") or not self._names:
            return
        parameters = dict(module.backbone.named_parameters())
        held: list[Tensor] = [parameters[name] for name in self._names]
        moved = displacement(held, self._start)
        # The R rows of all tensors in one vector, so that what is computed for rows takes one kernel each.
        norms = torch.cat([d.sum(dim=_within(d)).view(-1) for d in torch._foreach_abs(moved)]) + LEAST
        self._steps += 1
        if self._directions:
            largest = torch.zeros_like(self._state[:, 0]).scatter_reduce_(0, self._tensor_of_row, norms, "amax")
            self._move_radii(held, largest)
        inside = (self._state[:, 0][self._tensor_of_row] / norms).clamp_(max=1.0)
        # lerp at 1 gives its end: a row inside the radius keeps its bits, which start + d would round.
        torch._foreach_copy_(held, torch._foreach_lerp(self._start, held, _by_tensor(inside, held)))
        if self.radius is None:
            torch._foreach_div_(moved, _by_tensor(norms, held))
            self._directions = moved

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed fit needs: the radii, Adam's state for them, and each tensor's last direction."""
        return {"state": self._state, "steps": self._steps, "directions": self._directions}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._state = state_dict["state"].to(self._state.device)
        self._steps = state_dict["steps"]
        self._directions = [direction.to(self._state.device) for direction in state_dict["directions"]]

    def report(self) -> dict[str, float]:
        """Return the smallest and the largest radius gamma of all tensors."""
        radii = self._state[:, 0]
        return (
            {"ftp.smallest_radius": float(radii.min()), "ftp.largest_radius": float(radii.max())} if len(radii) else {}
        )

    def _move_radii(self, held: list[Tensor], largest: Tensor) -> None:
        """Update the radii of T tensors by one step of Adam, at most to ``largest``, their largest row norms (T,)."""
        torch._foreach_mul_(self._directions, [torch.zeros_like(p) if p.grad is None else p.grad for p in held])
        slope = torch.stack([along.sum() for along in self._directions])
        slope = torch.where(slope > 0, self.anneal * slope, slope)
        first, second = BETAS
        self._state[:, 1] = first * self._state[:, 1] + (1 - first) * slope
        self._state[:, 2] = second * self._state[:, 2] + (1 - second) * slope**2
        mean = self._state[:, 1] / (1 - first**self._steps)
        spread = (self._state[:, 2] / (1 - second**self._steps)).sqrt()
        moved = self._state[:, 0] - self.rate * mean / (spread + 1e-8)
        self._state[:, 0] = torch.minimum(moved, largest).clamp(min=LEAST)


def _count(tensor: Tensor) -> int:
    """Return the number of a tensor's rows, one per index of its first dimension; a vector or scalar is one row."""
    return len(tensor) if tensor.ndim > 1 else 1


def _within(tensor: Tensor) -> tuple[int, ...] | None:
    """Return the dimensions within a row; None for all."""
    return tuple(range(1, tensor.ndim)) if tensor.ndim > 1 else None


def _by_tensor(values: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    """Split values of all rows, shape (R,), into one tensor for each, which broadcasts over its rows."""
    parts = torch.split_with_sizes(values, [_count(t) for t in tensors])
    return [part.view(-1, *[1] * (t.ndim - 1)) if t.ndim else part[0] for part, t in zip(parts, tensors, strict=True)]
