"""Layer decay and surgical rates against plain loops."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from rib.errors import RibError
from rib.methods.layer_decay import LayerDecay
from rib.methods.surgical import Surgical
from rib.models.layers import depths, head_names, layer_of
from tests.methods.test_regularizers import STEPS, loop
from tests.support.fitting import SPACE, batch, fit, furthest
from tests.support.nets import NETS, small_vit


@pytest.mark.parametrize("net", NETS)
def test_layer_decay_is_a_rate_by_depth(net):
    backbone = NETS[net]().backbone
    depth = depths([n for n, _ in backbone.named_parameters()], head_names(backbone))
    top = max(depth.values())
    found = fit(NETS[net](), LayerDecay(0.5), steps=STEPS).state_dict()
    expected = loop(net, rate_of=lambda name: 0.5 ** (top - depth[name.removeprefix("backbone.")]))
    assert furthest(found, expected) < 2e-6


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("per", ["layer", "tensor"])
def test_surgical_rates_are_relative_gradient_norms(net, per):
    method = Surgical(samples=16, per=per)
    fit(NETS[net](), method, steps=1)
    model = NETS[net]().eval()
    images, labels, _ = (torch.cat(parts) for parts in zip(batch(0), batch(1), strict=True))
    F.cross_entropy(SPACE.project(model(images)), labels).backward()
    squares: dict[str, list[float]] = {}
    for name, p in model.backbone.named_parameters():
        sums = squares.setdefault(layer_of(name) if per == "layer" else name, [0.0, 0.0])
        sums[0] += float(p.grad.square().sum())
        sums[1] += float(p.detach().square().sum())
    ratio = {layer: (g / w) ** 0.5 for layer, (g, w) in squares.items() if w > 0}
    largest = max(ratio.values())
    assert method.rates.keys() == squares.keys()
    for layer, rate in method.rates.items():
        assert rate == pytest.approx(ratio.get(layer, largest) / largest, rel=1e-3)
    assert max(method.rates.values()) == 1
    told = {"surgical.smallest_rate": min(method.rates.values())}
    assert per == "layer" or told.items() <= method.report().items()


def test_weights_that_are_all_zero_do_not_take_every_rate():
    """||g|| / ||theta|| has no value there; taken for the largest, it would leave nothing for all other layers."""
    model = small_vit()
    with torch.no_grad():
        model.backbone.cls_token.zero_()
        model.backbone.pos_embed.zero_()
    method = Surgical(samples=16)
    fit(model, method, steps=1)
    assert method.rates["cls_token"] == method.rates["pos_embed"] == 1
    others = [rate for layer, rate in method.rates.items() if layer not in ("cls_token", "pos_embed")]
    assert max(others) == 1
    assert sorted(others)[0] > 1e-4


def test_another_unit_is_one_sentence():
    with pytest.raises(RibError, match=r"method\.surgical\.per: expected layer or tensor, got 'block'"):
        Surgical(per="block")
