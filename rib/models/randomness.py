"""Which networks train differently in one process and in several, however well gradients are averaged."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm

RATES = ("p", "prob", "drop_prob", "drop_rate")
"""Where layers that drop something keep how often: torch, timm's PatchDropout and DropPath, torchvision."""


def depends_on_processes(model: nn.Module, batch_norm_moves: bool) -> bool:
    """Whether training a network in two processes gives other weights than in one, beyond rounding.

    Each process takes BatchNorm's statistics from its own images and draws its own dropout and stochastic depth. No
    weight is looked at, so a network on the meta device will do.

    Args:
        model: As it is built, in any mode.
        batch_norm_moves: Whether BatchNorm trains with the batch's statistics (``batch_norm=update``).
    """
    return any(_uses_the_batch(layer, batch_norm_moves) or _drops(layer) for layer in model.modules())


def _uses_the_batch(layer: nn.Module, batch_norm_moves: bool) -> bool:
    """Whether a layer's output or statistics depend on which images it sees together."""
    if isinstance(layer, SyncBatchNorm) or "frozen" in type(layer).__name__.lower():
        return False
    if isinstance(layer, _BatchNorm):  # without stored statistics it takes the batch's also when frozen
        return batch_norm_moves or layer.running_var is None
    # EvoNorm of timm and InstanceNorm with statistics are no BatchNorm, and are never frozen.
    return layer._buffers.get("running_var") is not None


def _drops(layer: nn.Module) -> bool:
    """Whether a layer has a rate above 0 at which it drops something.

    Many networks call ``F.dropout`` with a rate that they keep as a number of their own (``drop_rate``,
    ``attn_drop``), so every number called something with "drop" counts.
    """
    kind = type(layer).__name__.lower()
    drops = "drop" in kind or "stochasticdepth" in kind
    return any(
        isinstance(value, int | float) and not isinstance(value, bool) and value > 0
        for name, value in vars(layer).items()
        if "drop" in name.lower() or (drops and name in RATES)
    )
