"""The classifier module: normalisation, an optional visual prompt, and a backbone with its head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from rib.models.adapters import PROMPT, BorderPrompt


class Classifier(nn.Module):
    """Network from uint8 images to logits: normalisation, then a backbone with its head.

    Images are normalised here, on the model's device, so that they are transferred and cached as uint8, and a model
    cannot be used with another model's mean and std. Weights are stored without the prefix ``backbone.``.

    Args:
        backbone: timm or open_clip module from normalised images (B, 3, H, W) to logits (B, K).
        mean: Mean of each channel, in units of full brightness (0..1).
        std: Standard deviation of each channel, in the same units.

    Attributes:
        prompt: Visual prompt that is added to normalised images, or None.
    """

    prompt: BorderPrompt | None
    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.backbone = backbone
        self.prompt = None
        # Not persistent: stored weights have exactly the keys of the timm or open_clip module.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def normalise(self, images: Tensor) -> Tensor:
        """Scale uint8 images (B, 3, H, W) to zero mean and unit variance, in float32."""
        return (images.to(self.mean.dtype) / 255 - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of all outputs, (B, K), for uint8 images (B, 3, H, W)."""
        normalised = self.normalise(images)
        return cast("Tensor", self.backbone(normalised if self.prompt is None else self.prompt(normalised)))

    def stored_weights(self) -> dict[str, Tensor]:
        """Return the weights to save: the backbone's, and the visual prompt's picture (3, S, S) if there is one."""
        state: dict[str, Tensor] = self.backbone.state_dict()
        return state if self.prompt is None else {**state, PROMPT: self.prompt.picture.detach()}

    def load_stored(self, state: Mapping[str, Tensor]) -> None:
        """Load weights that `stored_weights` returned, with a visual prompt if they contain one.

        Args:
            state: The backbone's weights, and a prompt's picture under `PROMPT`.

        Raises:
            RuntimeError: If names or shapes are not the backbone's.
        """
        self.backbone.load_state_dict({name: tensor for name, tensor in state.items() if name != PROMPT})
        self.prompt = BorderPrompt.of(state[PROMPT].to(self.mean)) if PROMPT in state else None
