"""Every tensor of a network comes from its weights file: a small architecture of each timm family."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from rib.data.transform import Transform
from rib.errors import RibError
from rib.models.backbone import build_backbone
from rib.models.build import build
from rib.models.convert import fit_to_network
from rib.models.start import Start
from rib.models.weights import save_weights

FAMILIES = {
    "beit": "beit_base_patch16_224",
    "byoanet": "halonet_h1",
    "byobnet": "test_byobnet",
    "cait": "cait_xxs24_224",
    "coat": "coat_lite_tiny",
    "convit": "convit_tiny",
    "convmixer": "convmixer_768_32",
    "convnext": "test_convnext",
    "cpubone": "cpubone_nano",
    "crossvit": "crossvit_tiny_240",
    "csatv2": "csatv2",
    "cspnet": "cs3darknet_focus_s",
    "cspnext": "cspnext_tiny",
    "davit": "davit_tiny",
    "deepseek_vit": "deepseek_vit_412m",
    "deit": "deit_tiny_patch16_224",
    "densenet": "densenet121",
    "dla": "dla46x_c",
    "dpn": "dpn48b",
    "edgenext": "edgenext_xx_small",
    "efficientformer": "efficientformer_l1",
    "efficientformer_v2": "efficientformerv2_s0",
    "efficientnet": "test_efficientnet_gn",
    "efficientvim": "efficientvim_m1",
    "efficientvit_mit": "efficientvit_b0",
    "efficientvit_msra": "efficientvit_m0",
    "eva": "vit_tiny_patch16_dinov3_qkvb",
    "fasternet": "fasternet_t0",
    "fastvit": "fastvit_t8",
    "focalnet": "focalnet_tiny_srf",
    "gcvit": "gcvit_xxtiny",
    "gemma4_vit": "gemma4_vit_167m",
    "ghostnet": "ghostnet_050",
    "hardcorenas": "hardcorenas_b",
    "hgnet": "hgnetv2_b0",
    "hiera": "hiera_tiny_224",
    "hieradet_sam2": "sam2_hiera_tiny",
    "hrnet": "hrnet_w18_small",
    "iformer": "iformer_t",
    "inception_next": "inception_next_atto",
    "inception_resnet_v2": "inception_resnet_v2",
    "inception_v3": "inception_v3",
    "inception_v4": "inception_v4",
    "lcnetv2": "lcnetv2_small",
    "levit": "levit_128s",
    "lowformer": "lowformer_b0",
    "mambaout": "test_mambaout",
    "maxxvit": "test_coatnet",
    "metaformer": "poolformerv2_s12",
    "mlp_mixer": "gmlp_ti16_224",
    "mobilenetv3": "mobilenetv3_small_050",
    "mobilenetv5": "mobilenetv5_base",
    "mobilevit": "mobilevit_xxs",
    "mvitv2": "mvitv2_tiny",
    "naflexvit": "naflexvit_base_patch16_parfac_gap",
    "nasnet": "nasnetalarge",
    "nest": "nest_tiny",
    "nextvit": "nextvit_small",
    "nfnet": "test_nfnet",
    "pit": "pit_ti_224",
    "pnasnet": "pnasnet5large",
    "pvt_v2": "pvt_v2_b0",
    "qwen3_vit": "qwen3_vit_88m",
    "rdnet": "rdnet_tiny",
    "regnet": "regnetx_002",
    "repghost": "repghostnet_050",
    "repvit": "repvit_m1",
    "res2net": "res2next50",
    "resnest": "resnest14d",
    "resnet": "test_resnet",
    "resnetv2": "resnetv2_18",
    "rexnet": "rexnet_100",
    "selecsls": "selecsls42",
    "senet": "legacy_seresnet18",
    "sequencer": "sequencer2d_s",
    "shvit": "shvit_s1",
    "sknet": "skresnet18",
    "starnet": "starnet_s050",
    "swiftformer": "swiftformer_xs",
    "swin_transformer": "swin_tiny_patch4_window7_224",
    "swin_transformer_v2": "swinv2_tiny_window8_256",
    "swin_transformer_v2_cr": "swinv2_cr_tiny_224",
    "tiny_vit": "tiny_vit_5m_224",
    "tnt": "tnt_s_legacy_patch16_224",
    "tresnet": "tresnet_m",
    "twins": "twins_svt_small",
    "vgg": "vgg11",
    "visformer": "visformer_tiny",
    "vision_transformer": "test_vit",
    "vision_transformer_hybrid": "vit_tiny_r_s16_p8_224",
    "vision_transformer_relpos": "test_vit_relpos",
    "vision_transformer_sam": "samvit_base_patch16_224",
    "vitamin": "vitamin_small_224",
    "volo": "volo_d1_224",
    "vovnet": "ese_vovnet19b_slim_dw",
    "xception": "legacy_xception",
    "xception_aligned": "xception41p",
    "xcit": "xcit_nano_12_p8_224",
}
"""The smallest architecture with a classifier of each of timm's modules."""

QUICK = ("convnext", "dla", "efficientnet", "maxxvit", "vision_transformer")
"""One that timm loads without asking what is missing, some with a filter of names, some without."""


def start_of(architecture: str, file: Path) -> Start:
    """Return the start of a file of weights; its transform does not matter here."""
    transform = Transform(32, 1.0, "bicubic", (0.5,) * 3, (0.5,) * 3)
    return Start(architecture, "timm", architecture, file, "0" * 16, 1, transform, 1000)


def weights(architecture: str) -> dict[str, torch.Tensor]:
    """Random weights of a network that is not drawn itself; integers are random, too, and what is tied stays so."""
    with torch.device("meta"):
        shapes = timm.create_model(architecture, num_classes=1000).state_dict(keep_vars=True)
    draw = torch.Generator().manual_seed(0)
    drawn = {
        id(t): torch.randn(t.shape, generator=draw, dtype=t.dtype)
        if t.is_floating_point()
        else torch.randint(0, 2, t.shape, generator=draw).to(t.dtype)
        for t in shapes.values()
    }
    return {name: drawn[id(t)] for name, t in shapes.items()}


def test_every_family_of_timm_is_tested():
    assert FAMILIES.keys() == set(timm.list_modules())
    assert all(name in timm.list_models(module=module) for module, name in FAMILIES.items())


def blank(start: Start, pretrained: bool = False) -> nn.Module:
    """The network with NaN everywhere, which is quicker than drawing it and tells what was not loaded."""
    if pretrained:
        return build_backbone(start, pretrained=True)
    with torch.device("meta"):
        network = build_backbone(start)
    network = network.to_empty(device="cpu").requires_grad_(False)
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.fill_(torch.nan if tensor.is_floating_point() else 0)
    return network


def check(family: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole files come back bit for bit; without one tensor, with another head, or of junk they are refused."""
    monkeypatch.setattr("rib.models.build.build_backbone", blank)
    start = start_of(FAMILIES[family], folder / "weights.safetensors")
    given = weights(start.architecture)
    save_weights(given, start.weights)
    network = build(start).backbone
    assert same(network.state_dict(), given)
    assert same(fit_to_network(start, {f"module.net.{n}": t for n, t in given.items()}, network), given)
    times = Counter(t.data_ptr() for t in given.values())
    alone = [name for name, t in given.items() if t.is_floating_point() and times[t.data_ptr()] == 1]
    for name in (alone[len(alone) // 2], alone[-1]):
        with pytest.raises(RibError, match=f"{name} should be|no head .*{name}"):
            fit_to_network(start, {n: t for n, t in given.items() if n != name}, network)
    with pytest.raises(RibError, match=r"should be \(.*\), is absent"):
        fit_to_network(start, {"something": torch.zeros(3), "more": torch.zeros(2)}, network)
    with pytest.raises(RibError, match=r"should be \(.*\), is absent"):  # the same shapes in the same order
        fit_to_network(
            start, {f"layer_{i}.{n.rpartition('.')[2]}": t for i, (n, t) in enumerate(given.items())}, network
        )
    heads = {name for name, t in given.items() if t.ndim and t.shape[0] == 1000}
    with pytest.raises(RibError, match="rib needs 1000 outputs"):
        fit_to_network(start, {n: t[:10] if n in heads else t for n, t in given.items()}, network)
    start.weights.unlink()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("family", QUICK)
def test_every_tensor_comes_from_the_file(family, tmp_path, monkeypatch):
    check(family, tmp_path, monkeypatch)


@pytest.mark.slow
def test_a_tensor_of_two_names_is_one(tmp_path):
    """CoaT's blocks share their position encodings: one name is enough, two values are too many."""
    start = start_of(FAMILIES["coat"], tmp_path / "weights.safetensors")
    given = weights(start.architecture)
    save_weights(given, start.weights)
    network = build(start).backbone
    save_weights(network.state_dict(), start.weights)
    assert same(load_file(start.weights), given)
    one, other = "cpe1.proj.weight", "serial_blocks1.0.cpe.proj.weight"
    assert same(fit_to_network(start, {n: t for n, t in given.items() if n != other}, network), given)
    with pytest.raises(RibError, match=f"{one} and {other} are one tensor of coat_lite_tiny, and two in"):
        fit_to_network(start, {**given, other: 2 * given[other]}, network)


# Every third of them: all are tried before a release, with RIB_ALL_FAMILIES=1.
OTHERS = [family for family in FAMILIES if family not in QUICK][:: 1 if os.environ.get("RIB_ALL_FAMILIES") else 3]


@pytest.mark.slow
@pytest.mark.parametrize("family", OTHERS)
def test_every_tensor_comes_from_the_file_for_every_family(family, tmp_path, monkeypatch):
    check(family, tmp_path, monkeypatch)
