"""Image sizes other than the checkpoint's: the network is resized, or a sentence says why it cannot be."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.layers import resample_abs_pos_embed

from rib.config import compose
from rib.errors import RibError
from rib.models.build import build
from rib.models.size import size_to_build
from rib.models.start import find_start
from rib.pipeline import finetune
from tests.models.test_zero_shot import clip, clip_file, few_sentences

__all__ = ["clip", "clip_file", "few_sentences"]

VIT = "vit_tiny_patch16_224"


@pytest.mark.parametrize(
    ("library", "architecture", "own", "size", "built_for"),
    [
        ("timm", "resnet18", 224, 288, None),
        ("timm", "convnext_atto", 224, 225, None),  # a ConvNet rounds, as it does at its own size
        ("timm", VIT, 224, 384, 384),
        ("timm", "swin_tiny_patch4_window7_224", 224, 384, 384),
        ("timm", "beit_base_patch16_224", 224, 384, 384),
        ("timm", "eva02_tiny_patch14_336", 336, 448, 448),  # says its own size to its network itself
        ("timm", "coatnet_0_rw_224", 224, 256, 256),
        ("timm", "twins_pcpvt_small", 224, 256, None),
        ("open_clip", "ViT-B-32", 224, 288, 288),
        ("open_clip", "convnext_base", 224, 256, None),
    ],
)
def test_what_a_network_must_be_built_for(library, architecture, own, size, built_for):
    assert size_to_build(library, architecture, 1000, own, size) == built_for


@pytest.mark.parametrize(
    ("library", "architecture", "own", "size", "sentence"),
    [
        ("timm", VIT, 224, 225, "divides images into a grid of 16 pixels; expected a multiple of 16, got 225"),
        ("timm", VIT, 224, 8, "expected a multiple of 16, got 8"),
        ("timm", "swin_tiny_patch4_window7_224", 224, 225, "expected a multiple of 4, got 225"),
        ("timm", "tnt_s_patch16_224", 224, 225, "expected a multiple of 16, got 225"),
        ("timm", "volo_d1_224", 224, 225, "expected a multiple of 16, got 225"),
        (
            "timm",
            "cait_xxs24_224",
            224,
            384,
            "cannot take images of 384 pixels (its library does not resample pos_",
        ),
        ("timm", "vgg11", 224, 8, "cannot take images of 8 pixels"),
        ("timm", "bat_resnext26ts", 256, 384, "cannot take images of 384 pixels"),
        ("open_clip", "ViT-B-32", 224, 225, "expected a multiple of 32, got 225"),
        ("open_clip", "RN50", 224, 288, "does not resample visual.attnpool.positional_embedding"),
        ("open_clip", "ViT-B-16-SigLIP", 224, 288, "cannot take images of 288 pixels"),
        ("mini", "vit_mini", 48, 64, "expected 48 pixels, the only size of mini's models, got 64"),
    ],
)
def test_what_cannot_be_is_one_sentence(library, architecture, own, size, sentence):
    with pytest.raises(RibError) as error:
        size_to_build(library, architecture, 1000, own, size)
    assert str(error.value).startswith("model.transform.size: ")
    assert sentence in str(error.value)


@pytest.mark.parametrize("change", ["64", "0", "[48,32]"])
def test_mini_says_so_before_anything_runs(change):
    with pytest.raises(RibError, match=r"model\.transform"):
        find_start(compose("model=mini_tiny", f"model.transform.size={change}").model)


@pytest.fixture
def vit_file(tmp_path):
    torch.manual_seed(0)
    save_file(timm.create_model(VIT).state_dict(), tmp_path / "vit.safetensors")
    return tmp_path / "vit.safetensors"


def options(file, size):
    return "model=timm", f"model.name={VIT}", f"model.weights={file}", f"model.transform.size={size}"


@pytest.mark.slow
def test_position_embeddings_are_resampled_by_timm_and_nothing_else_changes(vit_file):
    own, stored = compose(*options(vit_file, 224)).model, load_file(vit_file)
    same = build(find_start(own)).backbone.state_dict()
    assert all(torch.equal(same[name], tensor) for name, tensor in stored.items())
    start = find_start(compose(*options(vit_file, 64)).model)
    model = build(start)
    found = model.backbone.state_dict()
    expected = resample_abs_pos_embed(stored.pop("pos_embed"), [4, 4], num_prefix_tokens=1)
    assert torch.equal(found["pos_embed"], expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in stored.items())
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    with torch.no_grad():
        theirs = timm.create_model(VIT, img_size=64).eval()
        theirs.load_state_dict({**stored, "pos_embed": expected})
        assert torch.allclose(model(images), theirs(model.normalise(images)))


@pytest.mark.slow
def test_a_run_at_another_size_trains_scores_and_is_loaded_again(ask_for, vit_file, capsys):
    quick = ("suite.targets=[imagenet_a]", "suite.reported=[]", "data.limit=20", "epochs=1", "batch_size=10")
    run = finetune(ask_for(*options(vit_file, 64), *quick))
    assert run.weights()["pos_embed"].shape == (1, 1 + 4 * 4, 192)
    soup = ("+method=wise_ft", "method.wise_ft.alpha=1")
    again = finetune(ask_for(*options(vit_file, 64), *quick, *soup))
    assert all(torch.equal(tensor, again.weights()[name]) for name, tensor in run.weights().items())
    own = build(find_start(compose(*options(run.weights_file, 64)).model)).backbone.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in run.weights().items())
    # At the checkpoint's own size again they are resampled, which is said.
    larger = build(find_start(compose(*options(run.weights_file, 224)).model))
    assert larger.backbone.state_dict()["pos_embed"].shape == (1, 1 + 14 * 14, 192)
    assert "resized by timm: pos_embed" in capsys.readouterr().err


@pytest.mark.slow
def test_open_clip_s_position_embeddings_are_resampled_and_its_head_is_not(clip, clip_file, few_sentences):
    name = ("model=open_clip", "model.name=rib-test-clip", f"model.weights={clip_file}")
    own, larger = (
        build(find_start(compose(*name, f"model.transform.size={size}").model)).backbone for size in (32, 64)
    )
    found, was = larger.state_dict(), own.state_dict()
    assert found["visual.positional_embedding"].shape == (1 + 4 * 4, 64)
    assert was["visual.positional_embedding"].shape == (1 + 2 * 2, 64)
    grid = was["visual.positional_embedding"][1:].T.reshape(1, 64, 2, 2)
    expected = torch.nn.functional.interpolate(grid, size=(4, 4), mode="bicubic", antialias=True)
    assert torch.allclose(found["visual.positional_embedding"][1:], expected.reshape(64, 16).T, atol=1e-6)
    assert all(torch.equal(found[n], was[n]) for n in found if n != "visual.positional_embedding")
    with torch.no_grad():
        assert math.isfinite(float(larger.eval()(torch.zeros(1, 3, 64, 64)).sum()))
