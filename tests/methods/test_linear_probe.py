"""Methods that freeze a part: the linear probe and the frozen embedding, against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rib.errors import RibError
from rib.methods.base import Method
from rib.methods.freeze_embed import FreezeEmbed
from rib.methods.linear_probe import LinearProbe
from tests.support.fitting import LR, MOMENTUM, SPACE, batch, fit, fit_in_pool, furthest, same
from tests.support.nets import NETS

HEAD = {"vit": "backbone.head.", "convnet": "backbone.5."}
EMBEDDING = {
    "vit": {
        "backbone.cls_token",
        "backbone.pos_embed",
        "backbone.patch_embed.proj.weight",
        "backbone.patch_embed.proj.bias",
    },
    "convnet": {"backbone.0.weight", "backbone.0.bias"},
}


def probe():
    return [LinearProbe()]


def freeze():
    return [FreezeEmbed()]


class Watch(Method):
    """Record if the network is in eval mode at each step."""

    def __init__(self):
        self.seen = []

    def penalty(self, module, step):
        self.seen.append(not any(layer.training for layer in module.model.modules()))


def loop(model, names, steps=3):
    """Plain steps on the named parameters alone, in eval mode."""
    trained = [p for name, p in model.named_parameters() if name in names]
    optimizer = torch.optim.SGD(trained, lr=LR, momentum=MOMENTUM)
    for step in range(steps):
        images, labels, _ = batch(step)
        optimizer.param_groups[0]["lr"] = LR * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.zero_grad()
        F.cross_entropy(SPACE.project(model(images)), labels).backward()
        optimizer.step()
    return model.state_dict()


def moved(net, end):
    start = NETS[net]().state_dict()
    return {name for name in start if not torch.equal(start[name], end[name])}


@pytest.mark.parametrize("net", NETS)
def test_a_probe_is_a_loop_over_the_head_in_eval_mode(net):
    model = NETS[net]()
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.5
    watch = Watch()
    found = fit(model, *probe(), watch, epochs=1, freeze_batch_norm=False).state_dict()
    names = {name for name in found if name.startswith(HEAD[net])}
    assert watch.seen == [True] * 3
    assert moved(net, found) == names
    assert furthest(found, loop(NETS[net](), names)) < 1e-6


def test_a_probe_stays_in_eval_mode_over_epochs():
    watch = Watch()
    start = NETS["convnet"]().state_dict()
    end = fit(NETS["convnet"](), *probe(), watch, epochs=2, accumulate=2, freeze_batch_norm=False).state_dict()
    assert watch.seen == [True] * 6
    assert torch.equal(start["backbone.1.running_mean"], end["backbone.1.running_mean"])


def test_the_authors_probe_trains_tokens_and_outer_norms_of_a_vit():
    found = fit(NETS["vit"](), LinearProbe("unfrozen_norms")).state_dict()
    names = {
        f"backbone.{n}" for n in ("cls_token", "pos_embed", "norm.weight", "norm.bias", "head.weight", "head.bias")
    }
    assert moved("vit", found) == names
    assert furthest(found, loop(NETS["vit"](), names)) < 1e-6


def test_the_authors_probe_lets_batch_norm_drift():
    statistics = {"backbone.1.running_mean", "backbone.1.running_var", "backbone.1.num_batches_tracked"}
    found = fit(NETS["convnet"](), LinearProbe("unfrozen_norms"), freeze_batch_norm=False).state_dict()
    assert moved("convnet", found) == {"backbone.5.weight", "backbone.5.bias"} | statistics


@pytest.mark.parametrize("net", NETS)
def test_freeze_embed_is_a_loop_without_the_embedding(net):
    found = fit(NETS[net](), *freeze()).state_dict()
    start = NETS[net]()
    names = {name for name, _ in start.named_parameters()} - EMBEDDING[net]
    assert moved(net, found) == names
    assert furthest(found, loop(start, names)) < 1e-6


def test_tokens_and_positions_may_train_as_in_the_authors_code():
    found = fit(NETS["vit"](), FreezeEmbed(tokens="trained")).state_dict()
    start = NETS["vit"]()
    names = {name for name, _ in start.named_parameters()} - EMBEDDING["vit"]
    names |= {"backbone.cls_token", "backbone.pos_embed"}
    assert moved("vit", found) == names
    assert furthest(found, loop(start, names)) < 1e-6
    with pytest.raises(RibError, match=r"method.freeze_embed.tokens: expected frozen or trained, got 'none'"):
        FreezeEmbed(tokens="none")


@pytest.mark.slow
@pytest.mark.parametrize("make", [probe, freeze])
@pytest.mark.parametrize("net", NETS)
def test_two_processes_are_one(net, make, gloo_pool):
    one = fit(NETS[net](), *make()).state_dict()
    first, second = gloo_pool.run(fit_in_pool, net, make, {})
    assert same(first, second)
    assert furthest(one, first) < 1e-5


@pytest.mark.parametrize("make", [probe, freeze])
def test_in_bfloat16_weights_stay_finite_and_frozen(make):
    found = fit(NETS["vit"](), *make(), precision="bf16-mixed").state_dict()
    assert all(t.isfinite().all() for t in found.values())
    assert "backbone.pos_embed" not in moved("vit", found)
    assert "backbone.head.weight" in moved("vit", found)


def test_another_way_to_train_is_refused():
    with pytest.raises(RibError, match=r"method.linear_probe.train: expected frozen or unfrozen_norms, got 'all'"):
        LinearProbe("all")
