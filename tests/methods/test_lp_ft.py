"""LP-FT against two plain loops, over the head and over everything; invalid probes."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from rib.errors import RibError
from rib.methods.ewc import EWC
from rib.methods.linear_probe import LinearProbe
from rib.methods.lp_ft import LPFT
from rib.methods.wise_ft import WiseFT
from rib.models.layers import head_names
from rib.models.weights import save_weights
from rib.training.schedule import warmup_cosine
from tests.support.fitting import LR, MOMENTUM, SPACE, batch, fit, fit_in_pool, furthest, plain, same
from tests.support.nets import NETS, small_vit


def loop(model, parameters, steps=3):
    optimizer = torch.optim.SGD(parameters, lr=LR, momentum=MOMENTUM)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = LR * warmup_cosine(step, 0, steps)
        images, labels, _ = batch(step)
        model.zero_grad()
        F.cross_entropy(SPACE.project(model(images)), labels).backward()
        optimizer.step()


@pytest.mark.parametrize("net", NETS)
def test_it_is_two_plain_loops(net, tmp_path):
    file = tmp_path / "probe.safetensors"
    probe = fit(NETS[net](), LinearProbe())
    save_weights(probe.backbone.state_dict(), file)
    found = fit(NETS[net](), LPFT(file)).state_dict()
    model = NETS[net]().eval()
    head = head_names(model.backbone)
    loop(model, [p for name, p in model.backbone.named_parameters() if name in head])
    assert furthest(probe.state_dict(), model.state_dict()) < 1e-6
    loop(model, model.parameters())
    assert furthest(found, model.state_dict()) < 2e-6
    assert furthest(found, plain(net)) > 1e-4


def test_what_else_is_in_the_stack_holds_on_to_the_probe(tmp_path):
    file = tmp_path / "probe.safetensors"
    probe = fit(small_vit(), LinearProbe(), lr=1.0)
    save_weights(probe.backbone.state_dict(), file)
    held = fit(small_vit(), LPFT(file), EWC(1e30, fisher="identity", form="proximal")).state_dict()
    assert furthest(held, probe.state_dict()) < 1e-6
    assert furthest(held, small_vit().state_dict()) > 1e-3


def test_what_is_no_probe_is_one_sentence(tmp_path):
    with pytest.raises(RibError, match=r"method\.lp_ft: expected the weights of a finished linear probe, got none"):
        fit(small_vit(), LPFT())
    save_weights(NETS["convnet"]().backbone.state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(RibError, match=r"method\.lp_ft: the linear probe .* does not fit the model"):
        fit(small_vit(), LPFT(tmp_path / "other.safetensors"))


def half_way():
    return [WiseFT(0.5), EWC(3.0, samples=16)]


@pytest.mark.slow
@pytest.mark.parametrize("net", NETS)
def test_in_two_processes_a_merge_at_the_end_of_a_fit_is_that_of_one(net, gloo_pool):
    one = fit(NETS[net](), *half_way()).state_dict()
    first, second = gloo_pool.run(fit_in_pool, net, half_way, {})
    assert same(first, second)
    assert furthest(one, first) < 1e-5
