"""Features of layers: names in the order of computation, and no hook left behind."""

from __future__ import annotations

import pytest
import timm
import torch
from open_clip.transformer import VisionTransformer
from torch import nn

from rib.errors import RibError
from rib.models.features import class_tokens, feature_hooks, feature_layers, head_input, pool_tokens, readout
from rib.models.mini import build_mini
from rib.models.zero_shot import ZeroShot
from tests.support.nets import small_convnet


def tower() -> nn.Module:
    torch.manual_seed(0)
    visual = VisionTransformer(image_size=32, patch_size=16, width=32, layers=2, heads=2, mlp_ratio=4, output_dim=16)
    return ZeroShot(visual, 16, 7)


def resnet() -> nn.Module:
    return timm.create_model("resnet18", num_classes=7)


def average_vit() -> nn.Module:
    return timm.models.VisionTransformer(
        img_size=32, patch_size=16, embed_dim=24, depth=2, num_heads=2, class_token=False, global_pool="avg"
    )


CLIP = ["attn.out_proj", "mlp.c_fc", "mlp.c_proj"]
EXPECTED = {
    "mini": (
        build_mini,
        48,
        "cls",
        [f"blocks.{i}{p}" for i in range(4) for p in (".attn.proj", ".mlp.fc1", ".mlp.fc2", "")],
    ),
    "open_clip": (
        tower,
        32,
        "cls",
        [f"visual.transformer.resblocks.{i}{p}" for i in range(2) for p in (*(f".{c}" for c in CLIP), "")],
    ),
    "average": (
        average_vit,
        32,
        "mean",
        [f"blocks.{i}{p}" for i in range(2) for p in (".attn.proj", ".mlp.fc1", ".mlp.fc2", "")],
    ),
    "resnet": (resnet, 64, "mean", [f"layer{i}{p}" for i in range(1, 5) for p in (".0", ".1", "")]),
    "sequential": (lambda: small_convnet().backbone, 16, "mean", ["0", "1"]),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_layers_are_named_in_the_order_of_computation(name):
    make, side, reads, names = EXPECTED[name]
    net = make().eval()
    heard: dict[str, torch.Tensor] = {}
    with torch.inference_mode(), feature_hooks(net, readout(net), heard.__setitem__):
        net(torch.rand(3, 3, side, side))
    assert list(feature_layers(net)) == names
    assert list(heard) == names
    assert readout(net) == reads
    assert all(x.ndim == 2 and len(x) == 3 for x in heard.values())


@pytest.mark.parametrize("make", [build_mini, tower, resnet])
def test_hooks_are_gone_after_an_error(make):
    net = make()
    with pytest.raises(RuntimeError, match="stop"), feature_hooks(net, "all", lambda *_: None):
        raise RuntimeError("stop")
    with pytest.raises(RuntimeError, match="stop"), head_input(net, lambda _: None):
        raise RuntimeError("stop")
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_open_clips_projection_is_what_its_weights_compute():
    net = tower().eval()
    block = net.visual.transformer.resblocks[0]
    inputs, heard = [], {}
    handle = block.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.no_grad(), feature_hooks(net, "all", heard.__setitem__):
        net(torch.rand(2, 3, 32, 32))
    handle.remove()
    x = block.ln_1(inputs[0])
    q, k, v = nn.functional.linear(x, block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, dim=-1)
    q, k, v = (z.view(2, 5, 2, 16).transpose(1, 2) for z in (q, k, v))
    mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(2, 5, 32)
    expected = block.attn.out_proj(mixed).flatten(1)
    torch.testing.assert_close(heard["visual.transformer.resblocks.0.attn.out_proj"], expected, atol=1e-5, rtol=1e-5)


def test_tokens():
    tokens, places = torch.arange(24.0).view(2, 4, 3), torch.arange(24.0).view(2, 3, 2, 2)
    assert torch.equal(pool_tokens(tokens, "cls", prefix=1), tokens[:, 0])
    assert torch.equal(pool_tokens(tokens, "mean", prefix=1), tokens[:, 1:].mean(dim=1))
    assert torch.equal(pool_tokens(tokens, "all"), tokens.flatten(1))
    assert torch.equal(pool_tokens(places, "mean"), places.mean(dim=(2, 3)))
    assert torch.equal(pool_tokens(places, "mean", channels_last=True), places.mean(dim=(1, 2)))
    assert class_tokens(average_vit()) == 0
    with pytest.raises(RibError, match="tokens=cls: this model has no class token; expected tokens=mean or tokens=all"):
        pool_tokens(places, "cls")
