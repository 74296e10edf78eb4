"""What BatchNorm makes of a batch of one image."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def takes_one_image(model: nn.Module, images: Tensor) -> bool:
    """Whether a network as it is (layers in train or eval mode) can be shown a single image.

    BatchNorm that takes its statistics from the batch needs two values a channel: one image is enough where it looks at
    a map, and too few behind a global pooling. Which is the case is tried, on a copy.

    Args:
        model: In the mode that it trains in.
        images: uint8, shape (B, 3, H, W); the first is shown.
    """
    moving = [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.training]
    if not moving:
        return True
    trial = copy.deepcopy(model)
    for layer in trial.modules():
        layer._forward_hooks.clear()  # those who listen to the network are not to hear of this
    try:
        with torch.no_grad():
            trial(images[:1])
    except ValueError as error:
        if "more than 1 value per channel" in str(error):
            return False
        raise
    return True
