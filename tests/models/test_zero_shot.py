"""Zero-shot heads: open_clip's numbers, built once, cached, and fine-tuned like any other head."""

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
from rib.config.schema import ModelConfig
from rib.errors import RibError
from rib.models import zero_shot
from rib.models.build import build
from rib.models.start import find_start
from rib.pipeline import finetune
from tests.models.test_hub import hub

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
    monkeypatch.setattr(zero_shot, "sentences", lambda given=None: texts)
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
    model = build(start)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    tokens = open_clip.get_tokenizer(NAME)(list(zero_shot.sentences()[7]))
    with torch.no_grad():
        seen = clip.encode_image(model.normalise(images), normalize=True)
        said = clip.encode_text(tokens, normalize=True).mean(dim=0)
        expected = clip.logit_scale.exp() * seen @ (said / said.norm())
        assert torch.allclose(model(images)[:, 7], expected, atol=1e-4)


@pytest.mark.slow
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
    build(replace(start, weights=run.weights_file))
    assert len(few_sentences) == 1


def test_the_digest_covers_the_sentences(clip, clip_file, monkeypatch):
    model = ModelConfig(NAME, "open_clip", weights=str(clip_file))
    before = find_start(model)
    monkeypatch.setattr(zero_shot, "sentences", lambda given=None: (("a goldfish",),))
    assert find_start(model).digest != before.digest


@pytest.mark.slow
def test_weights_that_are_no_clip_or_another_one_are_refused(clip, tmp_path, few_sentences):
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    other = zero_shot.build_clip("ViT-B-32").state_dict()
    cut = {n: t for n, t in other.items() if "resblocks" not in n and "embedding.weight" not in n}
    save_file(cut, tmp_path / "cut.safetensors")
    for file in ("other", "cut"):
        start = find_start(ModelConfig(NAME, "open_clip", weights=str(tmp_path / f"{file}.safetensors")))
        with pytest.raises(RibError, match=f"{file}.safetensors does not fit {NAME}"):
            build(start)
    assert few_sentences == []  # the tower was looked at before the head was made
    save_file({**clip.state_dict(), "ln_final.bias": torch.zeros(3)}, tmp_path / "text.safetensors")
    start = find_start(ModelConfig(NAME, "open_clip", weights=str(tmp_path / "text.safetensors")))
    with pytest.raises(RibError, match=r"does not fit.*ln_final\.bias"):
        build(start)


TOWERS = {
    "custom-text": {**CONFIG, "custom_text": True},
    "resnet": {
        **CONFIG,
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "head_width": 32},
    },
    "timm": {**CONFIG, "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit", "timm_proj": "linear"}},
    "sigmoid": {**CONFIG, "custom_text": True, "init_logit_bias": -10.0},
}
"""Kinds of CLIP models, small: open_clip's classes and image towers."""


@pytest.fixture(params=TOWERS)
def kind(request, tmp_path):
    """The name of a small model of one kind, and the model."""
    file = tmp_path / f"rib-test-{request.param}.json"
    file.write_text(json.dumps(TOWERS[request.param]))
    open_clip.add_model_config(file)
    torch.manual_seed(0)
    yield file.stem, zero_shot.build_clip(file.stem).eval()
    open_clip.factory._MODEL_CONFIG_PATHS.remove(file)


@pytest.fixture
def quick_heads(monkeypatch):
    """Heads that are a sum over all weights of both towers, in place of what the towers make of sentences."""
    made: list[torch.Tensor] = []

    def make_head(clip, *_):
        total = sum(float(t.double().sum()) for t in clip.state_dict().values())
        made.append(torch.full((1000, 32), total))
        return made[-1]

    monkeypatch.setattr(zero_shot, "make_head", make_head)
    return made


def load(file, name):
    return build(find_start(ModelConfig(name, "open_clip", weights=str(file)))).backbone.state_dict()


def test_every_kind_of_clip_model_comes_from_its_file(kind, tmp_path, quick_heads):
    """With a wrapper and a prefix, under older names of the text tower, and without BatchNorm's counters."""
    name, clip = kind
    state = clip.state_dict()
    torch.save({"epoch": 1, "state_dict": {f"module.{n}": t for n, t in state.items()}}, tmp_path / "wrapped.pt")
    save_file({n.removeprefix("text."): t for n, t in state.items()}, tmp_path / "older.safetensors")
    save_file({n: t for n, t in state.items() if "num_batches" not in n}, tmp_path / "uncounted.safetensors")
    for file in ("wrapped.pt", "older.safetensors", "uncounted.safetensors"):
        built = load(tmp_path / file, name)
        assert all(torch.equal(built[n], t) for n, t in state.items() if n.startswith("visual."))
        assert torch.equal(built["head.weight"], zero_shot.make_head(clip))


def test_a_tensor_missing_from_either_tower_is_named(kind, tmp_path, quick_heads):
    name, clip = kind
    names = [n for n in clip.state_dict() if "logit" not in n and "num_batches" not in n]
    of_image, of_text = ([n for n in names if n.startswith("visual.") == image] for image in (True, False))
    for lost in (of_image[-1], of_text[-1]):
        save_file({n: t for n, t in clip.state_dict().items() if n != lost}, tmp_path / "less.safetensors")
        with pytest.raises(RibError, match=rf"less\.safetensors does not fit {name}: .*{lost}"):
            load(tmp_path / "less.safetensors", name)
    assert quick_heads == []


def test_a_text_tower_of_another_length_is_refused_and_not_resized(clip, tmp_path, quick_heads):
    state = {**clip.state_dict(), "positional_embedding": torch.zeros(40, 64)}
    save_file(state, tmp_path / "short.safetensors")
    with pytest.raises(RibError, match=r"does not fit.*positional_embedding.*\[40, 64\]"):
        load(tmp_path / "short.safetensors", NAME)


def test_weights_from_elsewhere_do_not_get_the_head_of_the_start(clip, clip_file, tmp_path, quick_heads):
    """Heads are kept by the file they are made of: a start with other weights in its place has another head."""
    start = find_start(ModelConfig(NAME, "open_clip", weights=str(clip_file)), tmp_path / "cache")
    first = build(start).backbone.head.weight
    torch.manual_seed(1)
    save_file(zero_shot.build_clip(NAME).state_dict(), tmp_path / "other.safetensors")
    other = build(replace(start, weights=tmp_path / "other.safetensors")).backbone.head.weight
    assert len(quick_heads) == 2
    assert not torch.equal(first, other)


def test_a_text_tower_that_is_no_number_is_said_of_the_file(clip, tmp_path, quick_heads):
    save_file({**clip.state_dict(), "text_projection": torch.full((64, 32), torch.nan)}, tmp_path / "nan.safetensors")
    with pytest.raises(RibError, match=r"nan\.safetensors holds NaN or infinite values"):
        load(tmp_path / "nan.safetensors", NAME)


@pytest.mark.slow
def test_a_shipped_zero_shot_model_of_the_true_shape(hub, tmp_path, monkeypatch):
    """DataComp-S's ViT-B/32 with one sentence a class (all 80 are minutes on a CPU)."""
    config = compose("model=zeroshot_datacomp_s").model
    hub.files[f"{config.hub}/open_clip_model.safetensors"] = file = tmp_path / "served"
    torch.manual_seed(0)
    save_file({n: t.half() for n, t in zero_shot.build_clip("ViT-B-32").state_dict().items()}, file)
    texts = tuple(of_class[:1] for of_class in zero_shot.sentences())
    monkeypatch.setattr(zero_shot, "sentences", lambda given=None: texts)
    start = find_start(config, tmp_path / "heads")
    model = build(start)
    with torch.no_grad():
        logits = model(torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8))
    assert logits.shape == (2, 1000)
    scale = model.backbone.head.weight.norm(dim=1)
    assert torch.allclose(scale, scale.new_tensor(1 / 0.07), rtol=1e-3)
    for big in (file, start.weights.resolve()):
        big.unlink()
