"""Test whether a network with BatchNorm can train on a batch of one image."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def takes_one_image(model: nn.Module, images: Tensor) -> bool:
    """Return True if a network, with its layers' train and eval modes as they are, accepts a batch of one image.

    BatchNorm in train mode needs two values per channel: one image gives them if the layer's input is a map, but not
    after a global pooling. A forward pass of a copy shows which is the case.

    Args:
        model: The network in the mode in which it will train.
        images: uint8, shape (B, 3, H, W); the first one is used.
    """
    updating = [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.training]
    if not updating:
        return True
    trial = copy.deepcopy(model)  # a forward pass would move the running statistics of the network itself
    for layer in trial.modules():
        layer._forward_hooks.clear()  # methods' hooks, copied along, must not record this pass
    try:
        with torch.no_grad():
            trial(images[:1])
    except ValueError as error:  # torch has no class of its own for this error
        if "more than 1 value per channel" in str(error):
            return False
        raise
    return True
