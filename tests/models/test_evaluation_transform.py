"""The transform that a network in memory records is the one with which rib evaluates its checkpoint."""

from __future__ import annotations

from dataclasses import asdict

import open_clip
import pytest
import timm
import torch
from torch import nn

from rib.config import compose
from rib.config.schema import ModelConfig
from rib.data.transform import Transform
from rib.models.build import build
from rib.models.checkpoints import timm_checkpoint
from rib.models.evaluation_transform import record_transform, recorded_transform
from rib.models.start import find_start

CHECKPOINTS = ("resnet18.a1_in1k", "resnet18.tv_in1k", "resnet50.tv2_in1k", "vit_tiny_patch16_224.augreg_in21k_ft_in1k")


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_of_timm(name):
    with torch.device("meta"):
        network = timm.create_model(name)
    expected = timm_checkpoint(ModelConfig(name, "timm")).transform
    found = recorded_transform(network)
    assert isinstance(found, Transform)
    assert asdict(found) == expected
    assert recorded_transform(nn.Sequential(network, nn.Identity())) == found
    assert recorded_transform(nn.DataParallel(network)) == found
    assert recorded_transform(nn.ModuleDict({"net": network})) is None
    assert recorded_transform(nn.Sequential(nn.Identity(), network)) is None


@pytest.mark.slow
def test_of_open_clip():
    network = open_clip.create_model("ViT-B-32-256", device="meta")
    found = recorded_transform(network)
    assert found == Transform(256, 1.0, "bicubic", open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    assert recorded_transform(nn.Sequential(network.visual, nn.Identity())) == found
    network.visual.preprocess_cfg["resize_mode"] = "squash"
    squash = recorded_transform(network)
    assert callable(squash)


def test_of_a_centre_crop_that_is_none():
    network = nn.Identity()
    cfg = {"input_size": (3, 32, 32), "crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bicubic"}
    network.pretrained_cfg = {**cfg, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    squash = recorded_transform(network)
    assert callable(squash)
    from PIL import Image

    assert squash(Image.new("RGB", (50, 20))).shape == (3, 32, 32)


def test_rib_records_it_in_what_it_builds():
    start = find_start(compose("model=mini_tiny").model)
    model = build(start)
    assert recorded_transform(model.backbone) == start.transform
    assert recorded_transform(model) == start.transform
    network = timm.create_model("resnet18.a1_in1k", num_classes=3)  # another checkpoint's record must not win
    record_transform(network, start.transform)
    assert recorded_transform(network) == start.transform
