"""Gradient checkpointing: keep only what enters each block, and compute the rest of its activations again."""

from __future__ import annotations

from typing import Any

from torch import nn


def checkpoint_gradients(model: nn.Module, enable: bool = True) -> bool:
    """Switch gradient checkpointing on or off, as timm and open_clip have it (Chen et al. 2016, arXiv 1604.06174).

    A training step then keeps the input of each block instead of all activations, and runs each block
    forward twice. Gradients are the same bit for bit where the same kernels run again.

    Args:
        model: A model that contains a network of timm or open_clip.
        enable: False to switch it off.

    Returns:
        Whether the network has it.
    """
    network: Any = next((m for m in model.modules() if hasattr(m, "set_grad_checkpointing")), None)
    if network is None:
        return False
    try:
        network.set_grad_checkpointing(enable)
    except AssertionError:  # timm's way of saying that this network cannot
        return False
    return True
