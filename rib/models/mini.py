"""Network for mini, the built-in benchmark: one ViT, small enough for hundreds of runs in an hour."""

from __future__ import annotations

from timm.models.vision_transformer import VisionTransformer

from rib.models.mini_weights import SIDE


def build_mini(outputs: int = 1000) -> VisionTransformer:
    """Build an untrained ViT for 48 px images: patches of 8 px, width 64, 4 blocks with 4 heads.

    Args:
        outputs: K; 1000 in the pretrained models, whose outputs are numbered like ImageNet's.
    """
    return VisionTransformer(img_size=SIDE, patch_size=8, embed_dim=64, depth=4, num_heads=4, num_classes=outputs)
