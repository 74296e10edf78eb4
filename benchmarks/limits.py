"""Where the limit of some work lies: its operations over this machine's rate, and its bytes over the bandwidth.

Operations are those of matrix products and convolutions (torch's ``FlopCounterMode``); a training step has three times
those of a forward pass. Bytes are those of all tensors that the operators of a forward pass read and write, as if no
cache held any of them. The larger of the two quotients is the shortest time that unfused operators could take.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from rib.runs.spec import RunSpec

TRAINING = 3
"""Operations and bytes of a training step over those of a forward pass."""


class _Bytes(TorchDispatchMode):
    """Counts the bytes of all operators' inputs and outputs, but for views."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if not function.is_view:
            tensors = [t for t in torch.utils._pytree.tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)]
            self.total += sum(t.numel() * t.element_size() for t in tensors)
        return out


@cache
def rates() -> tuple[float, float]:
    """Return this machine's operations a second in float32 (a matrix product), and bytes a second (a copy)."""
    a, b = torch.rand(1536, 1536), torch.rand(1536, 1536)
    source, target = torch.rand(2**25), torch.empty(2**25)
    return 2 * 1536**3 / _best(lambda: a @ b), 2 * 4 * 2**25 / _best(lambda: target.copy_(source))


def _best(work: Callable[[], Any]) -> float:
    times = []
    for _ in range(6):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times)


@torch.no_grad()
def forward_work(model: nn.Module, image: Tensor) -> tuple[float, float]:
    """Return the operations and the bytes of a forward pass, for each image of a batch (B, 3, H, W)."""
    with FlopCounterMode(display=False) as operations, _Bytes() as moved:
        model.eval()(image)
    return operations.get_total_flops() / len(image), moved.total / len(image)


def limit_of(operations: float, moved: float, took: float) -> str:
    """Say both quotients, and how far from the larger one the time lies.

    Args:
        operations: Of the whole work.
        moved: Bytes of the whole work.
        took: Seconds that it took.
    """
    rate, bandwidth = rates()
    first, second = operations / rate, moved / bandwidth
    bound = "operations" if first > second else "bytes"
    return (
        f"{operations / 1e9:.0f} GFLOP at {rate / 1e9:.0f} GFLOP/s = {first:.2f} s; {moved / 1e9:.1f} GB at "
        f"{bandwidth / 1e9:.1f} GB/s = {second:.2f} s; rib is at {took / max(first, second):.2f} times the limit by "
        f"{bound}"
    )


def limit_of_passes(spec: RunSpec, passes: float, took: float) -> str:
    """Say the limit of work that consists of forward passes of one image through a run's network.

    Args:
        spec: The run, whose network is built.
        passes: Images times passes; a training step counts as `TRAINING` of them.
        took: Seconds that it took.
    """
    from rib.models.build import build

    size = spec.start.transform.size
    operations, moved = forward_work(build(spec.start), torch.zeros(8, 3, size, size, dtype=torch.uint8))
    return limit_of(passes * operations, passes * moved, took)
