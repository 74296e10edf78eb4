"""A pretrained model as rib sees it: images in, logits out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn


class Classifier(nn.Module):
    """Normalisation and a backbone with its head.

    Normalisation is done here, on the batch and on its device, so that images travel and are cached as uint8 and no
    model can meet another's mean and std. Weights are stored without the prefix ``backbone.``.

    Args:
        backbone: timm or open_clip module, normalised images (B, 3, H, W) to logits (B, K).
        mean: Of each channel, in units of full brightness (0..1).
        std: Likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def normalise(self, images: Tensor) -> Tensor:
        """From uint8 0..255 to zero mean and unit spread, (B, 3, H, W) in float32."""
        return (images.to(self.mean.dtype) / 255 - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        """Logits of all outputs, (B, K), for uint8 images (B, 3, H, W)."""
        return cast("Tensor", self.backbone(self.normalise(images)))
