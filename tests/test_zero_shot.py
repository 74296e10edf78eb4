"""Zero-shot heads: open_clip's own numbers, made once, kept beside the run store's cache, fine-tuned like any other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES
from safetensors.torch import load_file, save_file

from rib.config import compose
from rib.errors import RibError
from rib.models import zero_shot
from rib.models.zoo import build, find_start
from rib.pipeline import finetune
from rib.schema import ModelConfig
from tests.test_hub import hub

__all__ = ["hub"]

NAME = "rib-test-clip"
CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A CLIP model of two layers, known to open_clip by name."""
    file = tmp_path_factory.mktemp("configs") / f"{NAME}.json"
    file.write_text(json.dumps(CONFIG))
    open_clip.add_model_config(file)
    torch.manual_seed(0)
    return zero_shot.build_clip(NAME).eval()


@pytest.fixture
def clip_file(clip, tmp_path):
    save_file(clip.state_dict(), tmp_path / "clip.safetensors")
    return tmp_path / "clip.safetensors"


@pytest.fixture
def few_sentences(monkeypatch):
    """Four a class in place of 80, and a list that grows by one for each head made."""
    texts = tuple(of_class[:4] for of_class in zero_shot.sentences())
    monkeypatch.setattr(zero_shot, "sentences", lambda: texts)
    made: list[object] = []
    make_head = zero_shot.make_head
    monkeypatch.setattr(zero_shot, "make_head", lambda *given: made.append(given) or make_head(*given))
    return made


def test_the_head_is_open_clip_s_classifier_times_the_logit_scale(clip):
    names = [*IMAGENET_CLASSNAMES[:40], *sorted(IMAGENET_CLASSNAMES, key=len)[-5:]]
    tokenize = open_clip.get_tokenizer(NAME)
    theirs = open_clip.build_zero_shot_classifier(clip, tokenize, names, OPENAI_IMAGENET_TEMPLATES)
    texts = [[template(name) for template in OPENAI_IMAGENET_TEMPLATES] for name in names]
    ours = zero_shot.make_head(zero_shot_copy(clip), tokenize, texts, lambda done, note: None)
    assert torch.allclose(ours, theirs.T * clip.logit_scale.exp(), atol=1e-5)


def zero_shot_copy(clip):
    copy = zero_shot.build_clip(NAME).eval()
    copy.load_state_dict(clip.state_dict())
    return copy


def test_sentences_are_openai_s():
    texts = zero_shot.sentences()
    assert (len(texts), {len(of_class) for of_class in texts}) == (1000, {80})
    assert texts[1][0] == "a bad photo of a goldfish."


def test_logits_are_those_of_the_two_towers(clip, clip_file, tmp_path, few_sentences):
    start = find_start(ModelConfig(NAME, "open_clip", weights=str(clip_file)), tmp_path / "heads")
    model = build(start, 1000)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    tokens = open_clip.get_tokenizer(NAME)(list(zero_shot.sentences()[7]))
    with torch.no_grad():
        seen = clip.encode_image(model.normalise(images), normalize=True)
        said = clip.encode_text(tokens, normalize=True).mean(dim=0)
        expected = clip.logit_scale.exp() * seen @ (said / said.norm())
        assert torch.allclose(model(images)[:, 7], expected, atol=1e-4)


def test_a_zero_shot_model_comes_from_the_hub_and_is_fine_tuned(clip, hub, ask_for, tmp_path, few_sentences):
    hub.files["someone/clip/open_clip_model.safetensors"] = file = tmp_path / "served"
    save_file({n: t.half() for n, t in clip.state_dict().items()}, file)
    config = ask_for(
        "+method=ewc",
        "model=open_clip",
        f"model.name={NAME}",
        "model.hub=someone/clip",
        "data.limit=20",
        "epochs=1",
        "suite.targets=[imagenet_a,imagenet_r]",
    )
    config = replace(config, paths=replace(config.paths, cache=str(tmp_path / "cache")))
    (tmp_path / "cache").mkdir()
    for mini in Path(ask_for().paths.cache).glob("mini-v*"):
        (tmp_path / "cache" / mini.name).symlink_to(mini)
    run = finetune(config)
    weights = run.weights()
    assert weights.keys() == {*(n for n in clip.state_dict() if n.startswith("visual.")), "head.weight"}
    start = find_start(config.model, tmp_path / "cache" / "heads")
    head = load_file(tmp_path / "cache" / "heads" / f"{start.digest}.safetensors")["head.weight"]
    assert head.shape == weights["head.weight"].shape == (1000, 32)
    assert not torch.equal(head, weights["head.weight"])  # the head was trained, too
    assert len(few_sentences) == 1  # for four times that the model was built
    build(replace(start, weights=run.weights_file), 1000)
    assert len(few_sentences) == 1


def test_the_digest_covers_the_sentences(clip, clip_file, monkeypatch):
    model = ModelConfig(NAME, "open_clip", weights=str(clip_file))
    before = find_start(model)
    monkeypatch.setattr(zero_shot, "sentences", lambda: (("a goldfish",),))
    assert find_start(model).digest != before.digest


def test_weights_that_are_no_clip_or_another_one_are_refused(clip, tmp_path, few_sentences):
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    other = zero_shot.build_clip("ViT-B-32").state_dict()
    cut = {n: t for n, t in other.items() if "resblocks" not in n and "embedding.weight" not in n}
    save_file(cut, tmp_path / "cut.safetensors")
    for file in ("other", "cut"):
        start = find_start(ModelConfig(NAME, "open_clip", weights=str(tmp_path / f"{file}.safetensors")))
        with pytest.raises(RibError, match=f"{file}.safetensors does not fit {NAME}"):
            build(start, 1000)
    assert few_sentences == []  # the tower was looked at before the head was made
    save_file({**clip.state_dict(), "ln_final.bias": torch.zeros(3)}, tmp_path / "text.safetensors")
    start = find_start(ModelConfig(NAME, "open_clip", weights=str(tmp_path / "text.safetensors")))
    with pytest.raises(RibError, match=r"does not fit.*ln_final\.bias"):
        build(start, 1000)


@pytest.mark.slow
def test_a_shipped_zero_shot_model_of_the_true_shape(hub, tmp_path, monkeypatch):
    """DataComp-S's ViT-B/32 with one sentence a class (all 80 are minutes on a CPU)."""
    config = compose("model=zeroshot_datacomp_s").model
    hub.files[f"{config.hub}/open_clip_model.safetensors"] = file = tmp_path / "served"
    torch.manual_seed(0)
    save_file({n: t.half() for n, t in zero_shot.build_clip("ViT-B-32").state_dict().items()}, file)
    texts = tuple(of_class[:1] for of_class in zero_shot.sentences())
    monkeypatch.setattr(zero_shot, "sentences", lambda: texts)
    start = find_start(config, tmp_path / "heads")
    model = build(start, 1000)
    with torch.no_grad():
        logits = model(torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8))
    assert logits.shape == (2, 1000)
    scale = model.backbone.head.weight.norm(dim=1)
    assert torch.allclose(scale, scale.new_tensor(1 / 0.07), rtol=1e-3)
    for big in (file, start.weights.resolve()):
        big.unlink()
