"""A pretrained model as rib sees it: images in, logits out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from rib.models.adapters import PROMPT, BorderPrompt


class Classifier(nn.Module):
    """Normalisation and a backbone with its head.

    Normalisation is done here, on the batch and on its device, so that images travel and are cached as uint8 and no
    model can meet another's mean and std. Weights are stored without the prefix ``backbone.``.

    Args:
        backbone: timm or open_clip module, normalised images (B, 3, H, W) to logits (B, K).
        mean: Of each channel, in units of full brightness (0..1).
        std: Likewise.

    Attributes:
        prompt: What normalised images go through before the backbone, or None.
    """

    prompt: BorderPrompt | None
    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.backbone = backbone
        self.prompt = None
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def normalise(self, images: Tensor) -> Tensor:
        """From uint8 0..255 to zero mean and unit spread, (B, 3, H, W) in float32."""
        return (images.to(self.mean.dtype) / 255 - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        """Logits of all outputs, (B, K), for uint8 images (B, 3, H, W)."""
        normalised = self.normalise(images)
        return cast("Tensor", self.backbone(normalised if self.prompt is None else self.prompt(normalised)))

    def stored_weights(self) -> dict[str, Tensor]:
        """What a run keeps: the backbone's weights, and beside them what a prompt adds, shape (3, S, S)."""
        state: dict[str, Tensor] = self.backbone.state_dict()
        return state if self.prompt is None else {**state, PROMPT: self.prompt.picture.detach()}

    def load_stored(self, state: Mapping[str, Tensor]) -> None:
        """Take on weights as `stored_weights` gave them, with the prompt if there is one.

        Raises:
            RuntimeError: If they are another network's.
        """
        self.backbone.load_state_dict({name: tensor for name, tensor in state.items() if name != PROMPT})
        self.prompt = BorderPrompt.of(state[PROMPT].to(self.mean)) if PROMPT in state else None
