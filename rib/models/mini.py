"""The one architecture of mini's models: a ViT small enough that hundreds of runs are a matter of an hour."""

from __future__ import annotations

from timm.models.vision_transformer import VisionTransformer

from rib.models.mini_weights import SIDE


def build_mini() -> VisionTransformer:
    """An untrained ViT: 48 px in patches of 8, width 64, 4 blocks of 4 heads, ImageNet's 1000 outputs."""
    return VisionTransformer(img_size=SIDE, patch_size=8, embed_dim=64, depth=4, num_heads=4, num_classes=1000)
