"""Fused optimizers, channels last, gradient checkpointing and compilation: the same step, faster or smaller."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from rib.errors import RibError
from rib.methods.ewc import EWC
from rib.methods.spd import SPD
from rib.models.memory_format import prefer_channels_last
from rib.models.recompute import checkpoint_gradients
from rib.models.weights import save_weights
from rib.pipeline import finetune
from rib.training.acceleration import accelerate, fused
from tests.support.fitting import fit, furthest, plain, same
from tests.support.nets import NETS, random_images, small_convnet, small_vit

SGD = {"_target_": "torch.optim.SGD", "lr": 0.1}


@pytest.mark.parametrize(
    ("node", "precision", "expected"),
    [
        (SGD, "32-true", True),
        ({"_target_": "torch.optim.AdamW"}, "bf16-mixed", True),
        (SGD, "16-mixed", False),  # Lightning could not clip, and methods would read scaled gradients
        ({**SGD, "fused": False}, "32-true", False),
        ({**SGD, "foreach": True}, "32-true", False),
        ({"_target_": "torch.optim.LBFGS"}, "32-true", False),
        ({"_target_": "my.optim.SGD"}, "32-true", False),
    ],
)
def test_an_optimizer_is_fused_where_it_can_be_and_nothing_else_was_asked_for(node, precision, expected):
    assert fused(node, precision) == ({"fused": True} if expected else {})


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("methods", [list, lambda: [EWC(2.0, samples=16)], lambda: [SPD()]])
def test_channels_last_and_fused_give_the_same_weights(net, methods, tmp_path):
    expected = fit(NETS[net](), *methods(), steps=5).state_dict()
    model = prefer_channels_last(NETS[net]())
    fit(model, *methods(), steps=5, optimizer=partial(torch.optim.SGD, momentum=0.9, fused=True))
    assert furthest(model.state_dict(), expected) < 1e-6
    if net == "convnet":
        assert not model.backbone[0].weight.is_contiguous()
    save_weights(model.stored_weights(), tmp_path / "weights.safetensors")
    stored = load_file(tmp_path / "weights.safetensors")
    assert all(torch.equal(t, stored[name]) for name, t in model.stored_weights().items())


def test_gradient_checkpointing_changes_no_bit():
    model = small_vit()
    accelerate(model, compiled=False, checkpointed=True, frozen_batch_norm=False)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        model(random_images(4))
        small = sum(kept)
        kept.clear()
        small_vit()(random_images(4))
    assert small < sum(kept) / 2
    assert same(fit(model).state_dict(), plain("vit"))
    assert checkpoint_gradients(model, enable=False)
    assert not model.backbone.grad_checkpointing


def test_a_network_that_cannot_be_checkpointed_is_refused():
    with pytest.raises(RibError, match="would count twice in BatchNorm's running statistics; set batch_norm=frozen"):
        accelerate(small_convnet(), compiled=False, checkpointed=True, frozen_batch_norm=False)
    with pytest.raises(RibError, match="gradient_checkpointing: this network does not support it"):
        accelerate(small_convnet(), compiled=False, checkpointed=True, frozen_batch_norm=True)


@pytest.mark.slow
def test_a_compiled_model_trains_to_the_same_weights(ask_for, tmp_path):
    """Within rounding; skipped where torch has no compiler for the CPU."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:  # of several kinds
        pytest.skip(f"no compiler: {error}")
    found = []
    for compiled in ("false", "true"):
        run = finetune(
            ask_for(
                *("+method=ewc", "model=mini_tiny", "dataset=imagenet_r", "steps=3", f"compile={compiled}"),
                f"paths.runs={tmp_path / compiled}",
            )
        )
        found.append(load_file(run.weights_file))
    assert not same(*found), "compiled operations round elsewhere"
    assert furthest(*found) < 1e-4
