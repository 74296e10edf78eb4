"""The start weights, and what else a method keeps for each of them: on the model's device or in the host's memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, get_args

import torch
from torch import Tensor

from rib.errors import RibError

KeepOn = Literal["device", "host"]


def check_keep_on(method: str, keep_on: KeepOn) -> KeepOn:
    """Return a method's option ``keep_on`` unchanged.

    Raises:
        RibError: If it is neither device nor host.
    """
    if keep_on not in get_args(KeepOn):
        raise RibError(f"method.{method}.keep_on: expected device or host, got {keep_on!r}")
    return keep_on


def kept(tensors: Iterable[Tensor], device: torch.device, keep_on: KeepOn = "device") -> list[Tensor]:
    """Return copies of tensors on a device, or in the host's memory, from where each step streams them.

    Host memory is pinned where the device is a GPU, so that tensors arrive at the speed of the bus.

    Args:
        tensors: Such as the trained weights.
        device: The device that trains.
        keep_on: ``device``, or ``host``.
    """
    if keep_on == "device":
        return [t.detach().to(device, copy=True) for t in tensors]
    copies = [t.detach().to("cpu", copy=True) for t in tensors]
    return [t.pin_memory() for t in copies] if device.type == "cuda" else copies


def groups(parameters: list[Tensor], *others: list[Tensor]) -> Iterator[tuple[list[Tensor], ...]]:
    """Yield parameters with what is kept for them, on their device: all at once, or streamed from the host one by one.

    Args:
        parameters: Tensors on the device that trains.
        *others: For each parameter a tensor, from `kept`.
    """
    if all(t.device == p.device for other in others for t, p in zip(other, parameters, strict=True)):
        yield parameters, *others
        return
    for p, *own in zip(parameters, *others, strict=True):
        yield [p], *([t.to(p.device, non_blocking=True)] for t in own)


def displacement(parameters: list[Tensor], anchors: list[Tensor]) -> list[Tensor]:
    """Return theta - theta0 for each tensor, on the parameters' device; theta0 may be in the host's memory."""
    return [d for some, starts in groups(parameters, anchors) for d in torch._foreach_sub(some, starts)]


def multiply(tensors: list[Tensor], by: list[Tensor] | Tensor | float) -> None:
    """Multiply tensors in place by one number, or each by its own tensor, which may be in the host's memory."""
    if not isinstance(by, list):
        torch._foreach_mul_(tensors, by)
        return
    for some, factors in groups(tensors, by):
        torch._foreach_mul_(some, factors)
