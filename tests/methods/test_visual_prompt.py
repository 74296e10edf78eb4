"""The visual prompt against a loop that adds a frame by hand, and its storage."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from rib.errors import RibError
from rib.methods.base import Method
from rib.methods.visual_prompt import VisualPrompt
from rib.models.adapters import PROMPT, BorderPrompt
from rib.models.weights import save_weights
from tests.support.fitting import LR, MOMENTUM, SPACE, batch, fit, fit_in_pool, furthest, same
from tests.support.nets import NETS, SIDE, random_images


def prompt():
    return [VisualPrompt()]


class Watch(Method):
    """Record if the network is in eval mode at each step."""

    def __init__(self):
        self.seen = []

    def penalty(self, module, step):
        self.seen.append(not any(layer.training for layer in module.model.modules()))


def loop(model, border, frame, lr=LR, steps=3):
    """Four strips around the image, trained by plain SGD."""
    middle = slice(border, SIDE - border)
    parts = [frame[:, :border], frame[:, -border:], frame[:, middle, :border], frame[:, middle, -border:]]
    top, bottom, left, right = (part.clone().requires_grad_() for part in parts)

    def picture():
        inside = torch.zeros(3, SIDE - 2 * border, SIDE - 2 * border)
        return torch.cat([top, torch.cat([left, inside, right], 2), bottom], 1)

    optimizer = torch.optim.SGD([top, bottom, left, right], lr=lr, momentum=MOMENTUM)
    for step in range(steps):
        images, labels, _ = batch(step)
        optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.zero_grad()
        outputs = model.backbone(model.normalise(images) + picture())
        F.cross_entropy(SPACE.project(outputs), labels).backward()
        optimizer.step()
    return picture().detach()


@pytest.mark.parametrize("net", NETS)
def test_it_is_a_loop_over_a_frame(net):
    model = NETS[net]()
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.5
    watch = Watch()
    fit(model, *prompt(), watch, freeze_batch_norm=False)
    assert watch.seen == [True] * 3
    assert same(model.backbone.state_dict(), NETS[net]().backbone.state_dict())
    expected = loop(NETS[net](), 2, torch.zeros(3, SIDE, SIDE))  # 16 * 30 / 224 = 2.1
    assert torch.allclose(model.prompt.picture, expected, atol=1e-6)
    assert expected.abs().max() > 1e-5
    assert not model.prompt.picture[:, 2:-2, 2:-2].any()


def test_border_noise_and_learning_rate_are_options():
    noise = torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(7))
    model = fit(NETS["vit"](), VisualPrompt(border=5, init="randn", lr=10.0, seed=7))
    assert torch.allclose(model.prompt.picture, loop(NETS["vit"](), 5, noise, lr=10.0), atol=1e-4)


@pytest.mark.parametrize("net", NETS)
def test_a_frame_of_zeros_is_the_pretrained_model(net):
    model = fit(NETS[net](), *prompt(), lr=0.0)
    assert torch.equal(model(random_images(4)), NETS[net]()(random_images(4)))


def test_inside_the_border_nothing_changes():
    images = torch.randn(2, 3, SIDE, SIDE)
    changed = BorderPrompt(torch.randn(3, SIDE, SIDE), 3)(images) != images
    assert not changed[:, :, 3:-3, 3:-3].any()
    assert changed.sum() == 2 * 3 * (SIDE**2 - (SIDE - 6) ** 2)


@pytest.mark.parametrize("net", NETS)
def test_what_is_stored_gives_the_same_outputs(net, tmp_path):
    model = fit(NETS[net](), VisualPrompt(init="randn"))
    state = model.stored_weights()
    assert state.keys() == NETS[net]().backbone.state_dict().keys() | {PROMPT}
    save_weights(state, tmp_path / "weights.safetensors")
    again = NETS[net](seed=1)
    again.load_stored(load_file(tmp_path / "weights.safetensors"))
    assert torch.equal(again(random_images(4)), model(random_images(4)))
    assert torch.equal(again.prompt.mask, model.prompt.mask)
    assert same(again.stored_weights(), state)
    plain = NETS[net]()
    again.load_stored(plain.stored_weights())
    assert again.prompt is None
    assert torch.equal(again(random_images(4)), plain(random_images(4)))
    with pytest.raises(RuntimeError, match="Missing key"):
        again.load_stored({PROMPT: state[PROMPT]})


def test_a_prompt_of_zeros_is_stored_too():
    model = fit(NETS["vit"](), *prompt(), lr=0.0)
    again = NETS["vit"](seed=1)
    again.load_stored(model.stored_weights())
    assert torch.equal(again(random_images(4)), model(random_images(4)))


@pytest.mark.slow
@pytest.mark.parametrize("net", NETS)
def test_two_processes_are_one(net, gloo_pool):
    one = fit(NETS[net](), *prompt()).state_dict()
    first, second = gloo_pool.run(fit_in_pool, net, prompt, {})
    assert same(first, second)
    assert "prompt.frame" in first
    assert furthest(one, first) < 1e-5


@pytest.mark.parametrize("net", NETS)
def test_in_bfloat16_it_stays_finite(net):
    model = fit(NETS[net](), *prompt(), precision="bf16-mixed")
    assert model.prompt.picture.isfinite().all()
    assert model.prompt.picture.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"border": 0}, "method.visual_prompt.border: expected at least 1 pixel or null, got 0"),
        ({"init": "ones"}, "method.visual_prompt.init: expected zeros or randn, got 'ones'"),
        ({"lr": -1.0}, "method.visual_prompt.lr: expected a finite number of 0 or more, or null, got -1.0"),
        ({"lr": float("nan")}, "method.visual_prompt.lr: expected a finite number of 0 or more, or null, got nan"),
    ],
)
def test_a_wrong_option_has_its_sentence(options, message):
    with pytest.raises(RibError, match=message):
        VisualPrompt(**options)


def test_a_border_that_leaves_nothing_names_the_images_side():
    with pytest.raises(RibError, match=r"border: expected fewer than 8 pixels \(images are 16 px\), got 8"):
        fit(NETS["vit"](), VisualPrompt(border=8))
