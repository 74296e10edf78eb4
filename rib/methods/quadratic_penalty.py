"""Quadratic penalty on the distance from the start weights, and the strength at which SGD becomes unstable with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from rib.methods.anchor import displacement, multiply


class _Pull(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchors: list[Tensor], root: Any, *parameters: Tensor) -> Tensor:
        scaled = displacement(list(parameters), anchors)
        multiply(scaled, root)
        ctx.scaled, ctx.root = scaled, root
        return torch.stack(torch._foreach_norm(scaled)).square().sum() / 2

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> Any:
        # In place: the one copy of the weights that the forward pass made becomes the gradient.
        pull, ctx.scaled = ctx.scaled, None
        if pull is None:
            raise RuntimeError("the penalty's gradient is computed once; call the penalty again for a second backward")
        multiply(pull, ctx.root)
        multiply(pull, scale)
        return (None, None, *pull)


def quadratic(parameters: Sequence[Tensor], anchors: list[Tensor], root: list[Tensor] | float) -> Tensor:
    """Compute the penalty 1/2 sum_i F_i (theta_i - theta0_i)^2, a scalar in nats, in float32 also under autocast.

    It takes F's root, so that a sum of squares and a product with it are all there is to do: multi-tensor kernels, a
    few of them for all tensors, and one copy of the weights. The value stays on the device.

    Args:
        parameters: theta, tensor by tensor.
        anchors: theta0, of the same shapes; these and the root may be in the host's memory.
        root: The square root of F, of the same shapes, or one number for all.
    """
    with torch.autocast(parameters[0].device.type, enabled=False):
        value: Tensor = _Pull.apply(anchors, root, *parameters)
    return value


def stability_bound(optimizer: Optimizer) -> float:
    """Return the largest curvature of a quadratic loss at which SGD with its peak learning rate still converges.

    2 (1 + m) / lr with momentum m, 2 (1 + m) / (1 + 2 m) / lr with Nesterov's, 2 / lr without; infinity for any other
    optimizer, whose steps are not in proportion to gradients.
    """
    if not isinstance(optimizer, SGD):
        return float("inf")
    bounds = [float("inf")]
    for group in optimizer.param_groups:
        momentum, lr = group["momentum"], peak_rate(group)
        factor = 2 * (1 + momentum) / (1 + 2 * momentum if group["nesterov"] else 1)
        if lr > 0:
            bounds.append(factor / lr)
    return min(bounds)


def peak_rate(group: Mapping[str, Any]) -> float:
    """Return the largest learning rate of a parameter group: its scheduler's peak if known, else the current rate."""
    rate: float = group.get("max_lr", group.get("initial_lr", group["lr"]))
    return rate
