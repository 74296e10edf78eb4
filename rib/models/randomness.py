"""Detect networks whose training depends on the number of processes, such as those with dropout or BatchNorm."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm

RATES = ("p", "prob", "drop_prob", "drop_rate")
"""Attributes that hold the rate of a dropout layer in torch, timm (PatchDropout, DropPath) and torchvision."""


def depends_on_processes(model: nn.Module, batch_norm_moves: bool) -> bool:
    """Return True if a network's trained weights depend on the number of processes, beyond rounding.

    Each process takes BatchNorm's statistics from its own images and draws its own dropout and stochastic depth.

    Args:
        model: The network, in any mode; on the meta device, too, since no weight is read.
        batch_norm_moves: True if BatchNorm trains with the batch's statistics (``batch_norm=update``).
    """
    return any(uses_batch_statistics(layer, batch_norm_moves) or _has_dropout(layer) for layer in model.modules())


def uses_batch_statistics(layer: nn.Module, batch_norm_moves: bool) -> bool:
    """Return True if a layer's output or its running statistics depend on which images share a batch."""
    if isinstance(layer, SyncBatchNorm) or "frozen" in type(layer).__name__.lower():
        return False
    if isinstance(layer, _BatchNorm):  # without stored statistics it uses the batch's even when frozen
        return batch_norm_moves or layer.running_var is None
    # timm's EvoNorm and InstanceNorm with statistics are not subclasses of BatchNorm, so batch_norm=frozen misses them.
    return layer._buffers.get("running_var") is not None


def _has_dropout(layer: nn.Module) -> bool:
    """Return True if a layer has a dropout or stochastic depth rate above 0.

    Many networks call ``F.dropout`` with a rate that they keep as an attribute (``drop_rate``, ``attn_drop``), so every
    number with "drop" in its name counts.
    """
    kind = type(layer).__name__.lower()
    drops = "drop" in kind or "stochasticdepth" in kind
    return any(
        isinstance(value, int | float) and not isinstance(value, bool) and value > 0
        for name, value in vars(layer).items()
        if "drop" in name.lower() or (drops and name in RATES)
    )
