"""Detection of networks whose training depends on how many processes share a batch."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from rib.models.randomness import depends_on_processes


@pytest.mark.parametrize(
    ("name", "moving", "frozen"),
    [
        ("vit_tiny_patch16_224", False, False),
        ("mixer_s32_224", False, False),
        ("convnext_atto", False, False),
        ("resnet18", True, False),
        ("mobilenetv3_small_050", True, False),
        ("swin_tiny_patch4_window7_224", True, True),  # stochastic depth at a rate of 0.1 by default
        ("mvitv2_tiny", False, False),
        ("resnetv2_50x1_bit", False, False),  # GroupNorm
    ],
)
def test_networks_of_timm(name, moving, frozen):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert depends_on_processes(model, batch_norm_moves=True) == moving
    assert depends_on_processes(model, batch_norm_moves=False) == frozen


@pytest.mark.parametrize(
    "rates",
    [
        {"drop_rate": 0.1},
        {"drop_path_rate": 0.1},
        {"attn_drop_rate": 0.1},
        {"proj_drop_rate": 0.1},
        {"pos_drop_rate": 0.1},
        {"patch_drop_rate": 0.5},
    ],
)
def test_every_rate_of_a_vit(rates):
    with torch.device("meta"):
        model = timm.create_model("vit_tiny_patch16_224", depth=2, **rates)
    assert depends_on_processes(model, batch_norm_moves=False)


def test_a_rate_that_only_a_forward_reads():
    with torch.device("meta"):  # EfficientNet and ResNet drop with F.dropout
        assert depends_on_processes(timm.create_model("efficientnet_lite0", drop_rate=0.2), batch_norm_moves=False)
        assert not depends_on_processes(timm.create_model("efficientnet_lite0"), batch_norm_moves=False)


@pytest.mark.parametrize(
    ("layer", "moving", "frozen"),
    [
        (nn.Dropout(0.0), False, False),
        (nn.Dropout2d(0.3), True, True),
        (nn.AlphaDropout(0.3), True, True),
        (nn.MultiheadAttention(8, 2, dropout=0.1), True, True),
        (nn.MultiheadAttention(8, 2), False, False),
        (nn.BatchNorm1d(4), True, False),
        (nn.BatchNorm2d(4, track_running_stats=False), True, True),
        (nn.SyncBatchNorm(4), False, False),
        (nn.InstanceNorm2d(4), False, False),
        (nn.InstanceNorm2d(4, track_running_stats=True), True, True),
        (timm.layers.BatchNormAct2d(4), True, False),
        (timm.layers.FrozenBatchNormAct2d(4), False, False),
        (timm.layers.EvoNorm2dB0(4), True, True),
        (timm.layers.DropPath(0.1), True, True),
        (timm.layers.DropPath(0.0), False, False),
        (timm.layers.DropBlock2d(0.1), True, True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_layers(layer, moving, frozen):
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(layer))
    assert depends_on_processes(model, batch_norm_moves=True) == moving
    assert depends_on_processes(model, batch_norm_moves=False) == frozen
