"""Fine-tuning with the embedding layer frozen."""

from __future__ import annotations

from typing import ClassVar, Literal

from rib.errors import RibError
from rib.methods.base import Method, Tuned
from rib.models.adapters import token_names
from rib.models.layers import depths


class FreezeEmbed(Method):
    """Train everything but the embedding layer: theta_embed = theta0_embed.

    Kumar et al. 2022, "How to fine-tune vision models with SGD", section 4, arXiv 2211.09359: the first layer has by
    far the largest gradients; with it frozen, SGD does as well as AdamW out of distribution, in less memory.

    The embedding is everything before the first numbered layer (`rib.models.layers.depths`): a ViT's patch embedding,
    tokens and positions and the norm behind them, a ResNet's ``conv1`` and ``bn1``. A network that has nothing there
    (an `nn.Sequential`) has its first numbered layer with parameters frozen instead. BatchNorm's statistics are not
    parameters: they are fixed only with ``batch_norm=frozen``.

    In a config::

        freeze_embed:
          _target_: rib.methods.freeze_embed.FreezeEmbed
          tokens: frozen

    Differs from the official code (AnanyaKumar/transfer_learning, ``models/clip_model.py``): there the patch embedding
    and the norm behind it are frozen and tokens and positions train, with a question mark ("should we freeze pos
    embedding and cls token?"); that is ``tokens=trained``. Here they belong to the embedding, since they have the large
    gradients for which the paper freezes it.

    Cost: none. Does not stack with linear_probe or lora, which freeze the embedding already.

    Args:
        tokens: Learned tokens and positions: ``frozen`` like the rest of the embedding, or ``trained``.

    Raises:
        RibError: For another value of ``tokens``.
    """

    name: ClassVar[str] = "freeze_embed"
    order: ClassVar[int] = 0

    def __init__(self, tokens: Literal["frozen", "trained"] = "frozen") -> None:
        if tokens not in ("frozen", "trained"):
            raise RibError(f"method.freeze_embed.tokens: expected frozen or trained, got {tokens!r}")
        self.tokens = tokens

    def prepare(self, module: Tuned) -> None:
        """Freeze the parameters of the embedding layer."""
        backbone = module.backbone
        parameters = dict(backbone.named_parameters())
        depth = depths(parameters, module.head)
        first = min(depth.values())
        free = token_names(backbone) if self.tokens == "trained" else set()
        for name, p in parameters.items():
            if depth[name] == first and name not in free:
                p.requires_grad_(False)
