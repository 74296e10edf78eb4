"""Two small networks that every method is tested on: a ViT, and a ConvNet with BatchNorm."""

from __future__ import annotations

import timm
import torch
from torch import Tensor, nn

from rib.models.classifier import Classifier

OUTPUTS = 20
SIDE = 16
HALF = (0.5, 0.5, 0.5)


def small_vit(seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    backbone = timm.models.VisionTransformer(
        img_size=SIDE, patch_size=8, embed_dim=24, depth=2, num_heads=2, num_classes=OUTPUTS
    )
    return Classifier(backbone, HALF, HALF).eval()


def small_convnet(seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    backbone = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, OUTPUTS),
    )
    model = Classifier(backbone, HALF, HALF)
    model.train()
    with torch.no_grad():
        for _ in range(5):
            model(random_images(32, seed))  # statistics that are not the initial ones
    return model.eval()


def random_images(count: int, seed: int = 0) -> Tensor:
    return torch.randint(
        0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


NETS = {"vit": small_vit, "convnet": small_convnet}
