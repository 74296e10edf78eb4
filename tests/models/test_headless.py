"""Starts without a head: the checkpoint's own is dropped, everything else must fit as strictly as ever."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from rib.config import compose
from rib.config.schema import ModelConfig
from rib.errors import RibError
from rib.models.build import build
from rib.models.head import ClassTexts, Head
from rib.models.layers import linear_head
from rib.models.start import find_start
from tests.models.test_zero_shot import NAME, clip, clip_file

__all__ = ["clip", "clip_file"]

TINY = "test_vit.r160_in1k"
PROBE = Head(5, probe=True)


def weights(file: Path, **options) -> Path:
    torch.manual_seed(0)
    save_file(timm.create_model("test_vit", **options).state_dict(), file)
    return file


@pytest.mark.parametrize("own", [0, 7, 21843])
def test_a_head_of_any_size_is_dropped_and_the_backbone_is_the_file_s(tmp_path, own):
    file = weights(tmp_path / "mine.safetensors", num_classes=own)
    start = find_start(ModelConfig(TINY, "timm", weights=str(file)), head=PROBE)
    backbone = build(start).backbone
    state, given = backbone.state_dict(), load_file(file)
    assert state["head.weight"].shape == (5, given["norm.weight"].numel()) and not state["head.weight"].any()
    assert all(torch.equal(state[n], t) for n, t in given.items() if not n.startswith("head."))


def test_what_is_not_the_head_must_be_there(tmp_path):
    file = weights(tmp_path / "mine.safetensors", num_classes=0)
    start = find_start(ModelConfig(TINY, "timm", weights=str(file)), head=PROBE)
    whole = load_file(file)
    for changed, sentence in (
        ({n: t for n, t in whole.items() if n != "norm.bias"}, r"norm\.bias should be \(\d+,\), is absent"),
        ({**whole, "extra.weight": torch.ones(3)}, r"extra\.weight should be absent"),
        ({**whole, "norm.bias": torch.ones(3)}, r"norm\.bias should be .* is \(3,\)"),
    ):
        save_file(changed, file)
        with pytest.raises(RibError, match=sentence):
            build(start)


def test_weights_of_a_run_from_it_have_the_head(tmp_path):
    start = find_start(ModelConfig(TINY, "timm", weights=str(weights(tmp_path / "a.safetensors"))), head=PROBE)
    model = build(start)
    linear_head(model.backbone).weight.data.fill_(2.0)
    save_file(model.stored_weights(), tmp_path / "b.safetensors")
    fitted = start.with_weights(tmp_path / "b.safetensors")
    assert not fitted.headless and fitted.outputs == 5
    assert (build(fitted).backbone.head.weight == 2).all()


def test_a_model_without_imagenet_s_outputs_is_taken_with_a_probe_alone():
    model = ModelConfig("vit_small_patch14_dinov2.lvd142m", "timm", weights=None)
    with pytest.raises(RibError, match=r"not an ImageNet-1K classifier \(0 outputs, expected 1000\).* head=probe"):
        find_start(model, download=False)
    from rib.models.checkpoints import timm_checkpoint

    known = timm_checkpoint(model, PROBE)
    assert (known.architecture, known.transform["size"]) == ("vit_small_patch14_dinov2", 518)


def test_networks_that_end_otherwise_are_refused_in_a_sentence():
    distilled = timm.create_model("deit_tiny_distilled_patch16_224")
    with pytest.raises(RibError, match="VisionTransformerDistilled has several classifiers; choose another model"):
        linear_head(distilled)
    with pytest.raises(RibError, match="a Conv2d as its classifier"):
        linear_head(_convolutional())


def _convolutional() -> torch.nn.Module:
    network = timm.create_model("resnet18", num_classes=4)
    network.fc = torch.nn.Conv2d(512, 4, 1)
    return network


def test_an_open_clip_tower_gets_a_head_with_a_bias_and_reads_no_sentences(clip, clip_file, monkeypatch):
    monkeypatch.setattr("rib.models.zero_shot.sentences", lambda texts=None: pytest.fail("no sentence is needed"))
    start = find_start(ModelConfig(NAME, "open_clip", weights=str(clip_file)), head=PROBE)
    backbone = build(start).backbone
    assert backbone.head.weight.shape[0] == 5 and not backbone.head.bias.any()
    tower = {n: t for n, t in backbone.state_dict().items() if n.startswith("visual.")}
    assert all(torch.equal(t, clip.state_dict()[n]) for n, t in tower.items())


def test_a_suite_s_words_make_its_zero_shot_head_and_its_digest(clip, clip_file, tmp_path):
    model = ModelConfig(NAME, "open_clip", weights=str(clip_file))
    texts = ClassTexts(("dog", "cat {b}"), ("a photo of a {}.", "art of a {}."))
    start = find_start(model, tmp_path, head=Head(2, texts))
    head = build(start).backbone.head.weight
    import open_clip

    tokens = open_clip.get_tokenizer(NAME)(["a photo of a cat {b}.", "art of a cat {b}."])
    with torch.no_grad():
        features = clip.eval().encode_text(tokens, normalize=True).mean(dim=0)
        expected = torch.nn.functional.normalize(features, dim=0) * clip.logit_scale.exp()
    assert torch.allclose(head[1], expected, atol=1e-4)
    assert len(list((tmp_path / "heads").glob("*.safetensors"))) == 1
    others = [Head(2, replace(texts, names=("dog", "cow"))), Head(2, replace(texts, templates=("a {}.",)))]
    digests = {find_start(model, tmp_path, head=other).digest for other in others}
    assert len(digests | {start.digest, find_start(model).digest}) == 4


def test_mini_takes_another_number_of_outputs():
    start = find_start(compose("model=mini_tiny").model, head=PROBE)
    assert build(start).backbone.head.weight.shape == (5, 64)
