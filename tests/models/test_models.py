"""Model configs: all build; weights files that do not fit are refused in one sentence."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import open_clip
import PIL.Image
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from rib.config import compose
from rib.config.defaults import flat_changes
from rib.config.schema import ModelConfig
from rib.config.shipped import conf_dir, options
from rib.data import catalog, mini
from rib.data.transform import read_image
from rib.errors import RibError
from rib.models.backbone import build_backbone
from rib.models.build import build
from rib.models.checkpoints import timm_checkpoint
from rib.models.head import Head
from rib.models.start import find_start
from rib.pipeline import finetune
from rib.runtime import content
from rib.runtime.files import file_digest
from tests.data.trees import replaced_in_place

TINY_TIMM = "test_vit.r160_in1k"
FACTS = Path(__file__).resolve().parents[3] / "shared" / "facts" / "models.json"


HEADLESS = {
    name
    for name in options("model")
    if "needs head=probe" in Path(conf_dir(), "model", f"{name}.yaml").read_text().replace("\n# ", " ")
}
"""Models whose checkpoint has no head of ImageNet's classes."""


@pytest.fixture
def timm_weights(tmp_path):
    torch.manual_seed(0)
    file = tmp_path / "test_vit.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), file)
    return file


@cache
def shipped(name: str) -> ModelConfig:
    """A shipped config; the two that take any model get one."""
    any_model = {
        "timm": [f"model.name={TINY_TIMM}"],
        "open_clip": ["model.name=ViT-B-32", "model.tag=laion2b_s34b_b79k"],
    }
    return compose(f"model={name}", *any_model.get(name, [])).model


def model_config(name: str, weights: Path) -> ModelConfig:
    """A shipped config with weights that are not looked at."""
    return replace(shipped(name), weights=str(weights))


@pytest.mark.parametrize("name", options("model"))
def test_every_model_config_builds_on_the_meta_device(name, timm_weights):
    start = find_start(model_config(name, timm_weights))
    with torch.device("meta"):
        backbone = build_backbone(start)
        outputs = backbone(torch.zeros(2, 3, start.transform.size, start.transform.size))
    assert outputs.shape == (2, len(catalog.real().outputs))


@pytest.mark.parametrize("name", [n for n in options("model") if not n.startswith("mini_")])
def test_every_transform_is_what_the_library_says(name, timm_weights):
    config = model_config(name, timm_weights)
    transform = find_start(config).transform
    if config.library == "open_clip":
        record = open_clip.get_pretrained_cfg(config.architecture or config.name, config.tag) if config.tag else {}
        clip = open_clip.get_model_config(config.architecture or config.name)
        preprocess = open_clip.transform.PreprocessCfg(
            size=clip["vision_cfg"]["image_size"],
            **{k: v for k, v in record.items() if k in ("mean", "std", "interpolation", "resize_mode")},
        )
        theirs = open_clip.transform.image_transform_v2(preprocess, is_train=False)
    else:
        full = f"{config.architecture}.{config.tag}" if config.tag else config.name
        cfg = timm.get_pretrained_cfg(full).to_dict()
        data = timm.data.resolve_data_config(pretrained_cfg=cfg, use_test_size=True)
        theirs = timm.data.create_transform(**data)
        assert (cfg["num_classes"] == 1000) == (name not in HEADLESS)
    size = transform.size
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (2 * size, 2 * size + 60, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    (file := timm_weights.with_name("image.png")).write_bytes(buffer.getvalue())
    mean, std = (torch.tensor(v)[:, None, None] for v in (transform.mean, transform.std))
    ours = (read_image(file, transform, backend="pil").float() / 255 - mean) / std
    assert torch.allclose(ours, theirs(image), atol=1e-5)


@pytest.mark.parametrize("name", [n for n in options("model") if not n.startswith("mini_")])
def test_every_repository_and_activation_is_what_the_library_says(name):
    config = shipped(name)
    if config.hub is None:
        assert config.package or name in ("timm", "open_clip")
    elif config.library == "timm":
        assert config.hub == timm.get_pretrained_cfg(f"{config.architecture}.{config.tag}").hf_hub_id
    elif config.tag:
        record = open_clip.get_pretrained_cfg(config.architecture, config.tag)
        assert config.hub == record["hf_hub"].rpartition("/")[0]
        clip = open_clip.get_model_config(config.architecture)
        assert clip.get("quick_gelu", False) == record.get("quick_gelu", False)


def test_models_without_a_head_are_taken_with_a_probe_alone():
    assert len(HEADLESS) == 7
    for name in HEADLESS:
        with pytest.raises(RibError, match=r"not an ImageNet-1K classifier .*head=probe"):
            find_start(replace(shipped(name), hub=None), download=False)
        known = timm_checkpoint(shipped(name), Head(1000, probe=True))
        header = Path(conf_dir(), "model", f"{name}.yaml").read_text().replace("\n# ", " ")
        with torch.device("meta"):
            network = timm.create_model(known.architecture, num_classes=0)
        assert f"{sum(p.numel() for p in network.parameters()) / 1e6:.1f} M parameters without a head" in header


@pytest.mark.parametrize("name", [n for n in options("model") if n not in ("timm", "open_clip")])
def test_published_accuracies_are_in_the_header_as_in_the_config(name):
    header = Path(conf_dir(), "model", f"{name}.yaml").read_text().partition("name:")[0]
    published = shipped(name).published
    assert f"model={name} " in header or name.startswith("mini_")
    for value in published.values():
        assert f"{value:.2f}" in header


def test_every_model_says_what_it_had_seen_and_it_is_no_option_of_a_run():
    named = [shipped(name).pretraining for name in options("model") if name not in ("timm", "open_clip")]
    assert all(seen.images and seen.objective for seen in named)
    assert flat_changes(compose("model=mini_small", "model.pretraining.images=1")) == {}
    kinds = {shipped(name).pretraining.objective for name in options("model") if name.startswith("zeroshot_")}
    assert kinds == {"contrastive"}


def published_by_libraries(config: ModelConfig) -> dict[str, float]:
    """Percent by the facts' names of datasets; torchvision's for its second weights, which timm has at 176 px only."""
    facts, architecture = json.loads(FACTS.read_text()), config.architecture
    if config.tag is None:
        return {}
    if config.tag == "tv2_in1k":
        second = [e for e in facts["torchvision"] if e["weights"] == "IMAGENET1K_V2"]
        return next({"imagenet": e["acc1"]} for e in second if e["name"] == architecture)
    if config.library == "timm":
        classifiers = (e for e in facts["timm_classifier"] if e["name"] == f"{architecture}.{config.tag}")
        return next((e["anchors_top1"] for e in classifiers), {})  # without a head of ImageNet's there is no accuracy
    pair = (architecture, config.tag)
    return next(e["anchors_zeroshot_top1"] for e in facts["open_clip"] if (e["model"], e["tag"]) == pair)


@pytest.mark.skipif(not FACTS.is_file(), reason=f"no {FACTS}")
def test_published_accuracies_are_those_of_the_libraries_tables():
    names = {f"imagenet-{end}": f"imagenet_{end}" for end in ("v2", "a", "r", "sketch")} | {"imagenet": "imagenet_val"}
    configs = {name: shipped(name) for name in options("model") if name not in ("timm", "open_clip")}
    expected = {
        name: {names[key]: value for key, value in published_by_libraries(config).items() if key in names}
        for name, config in configs.items()
    }
    assert {name: config.published for name, config in configs.items()} == expected


def test_mini_takes_a_file_of_weights_too(ask_for, tmp_path):
    shipped_weights = find_start(compose("model=mini_tiny").model).weights
    changed = {name: 2 * tensor for name, tensor in load_file(shipped_weights).items()}
    save_file(changed, tmp_path / "mine.safetensors")
    start = find_start(compose("model=mini_tiny", f"model.weights={tmp_path / 'mine.safetensors'}").model)
    loaded = build(start).backbone.state_dict()
    assert all(torch.equal(loaded[name], tensor.float()) for name, tensor in changed.items())


def test_weights_replaced_in_place_are_other_weights(tmp_path, monkeypatch):
    """A checkpoint written anew under its name, with its old time, by the very next command or in the same process."""
    monkeypatch.setattr(content, "RACY_NS", 0)
    file = tmp_path / "mine.safetensors"
    save_file({"a": torch.zeros(3)}, file)
    model = compose("model=mini_tiny", f"model.weights={file}").model
    first = find_start(model, tmp_path / "cache").digest
    assert first == find_start(model, tmp_path / "cache").digest == find_start(model).digest == file_digest(file)[:16]
    replaced_in_place(file)
    assert find_start(model, tmp_path / "cache").digest == file_digest(file)[:16] != first


def test_weights_are_read_once_for_all_commands(tmp_path, monkeypatch):
    monkeypatch.setattr(content, "RACY_NS", 0)
    file = tmp_path / "mine.safetensors"
    save_file({"a": torch.zeros(3)}, file)
    model = compose("model=mini_tiny", f"model.weights={file}").model
    first = find_start(model, tmp_path / "cache").digest
    monkeypatch.setattr(content, "_digest", lambda file: pytest.fail("read again"))
    assert find_start(model, tmp_path / "cache").digest == first


def test_only_the_hubs_own_cache_is_trusted_by_the_name_of_a_file(tmp_path):
    told = []
    for folder in ("models--timm--some/blobs", "mine/blobs"):
        file = tmp_path / folder / ("ab" * 32)
        file.parent.mkdir(parents=True)
        file.write_bytes(b"anything")
        told.append(find_start(compose("model=mini_tiny", f"model.weights={file}").model).digest)
    assert told == ["ab" * 8, file_digest(file)[:16]]


@pytest.mark.slow
def test_a_timm_model_has_its_own_transform_and_trains(ask_for, timm_weights):
    config = ask_for(
        "model=timm",
        f"model.name={TINY_TIMM}",
        f"model.weights={timm_weights}",
        "data.limit=30",
        "epochs=1",
        "suite.targets=[imagenet_a,imagenet_r]",
    )
    start = find_start(config.model)
    data = timm.data.resolve_model_data_config(timm.create_model(TINY_TIMM))
    assert start.transform.size == data["input_size"][-1]
    assert start.transform.crop_pct == data["crop_pct"]
    assert start.transform.mean == tuple(data["mean"])
    assert start.architecture == "test_vit"
    run = finetune(config)
    assert run.weights().keys() == timm.create_model("test_vit").state_dict().keys()


def test_the_classifier_is_the_backbone_on_normalised_images(timm_weights):
    start = find_start(ModelConfig(TINY_TIMM, "timm", weights=str(timm_weights)))
    model = build(start)
    images = torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8)
    mean, std = (torch.tensor(v)[:, None, None] for v in (start.transform.mean, start.transform.std))
    with torch.no_grad():
        assert torch.equal(model(images), model.backbone((images.float() / 255 - mean) / std))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": "mini_lagre", "library": "mini"}, "expected one of"),
        (
            {"name": "vit_base_patch16_224.augreg_in1", "library": "timm"},
            "did you mean vit_base_patch16_224.augreg_in1k",
        ),
        (
            {"name": "vit_base_patch16_clip_224.laion2b", "library": "timm"},
            "bare CLIP tower.* model=open_clip model.name=ViT-B-16 model.tag=laion2b_s34b_b88k",
        ),
        (
            {"name": "vit_base_patch16_clip_224.openai", "library": "timm"},
            "model=open_clip model.name=ViT-B-16-quickgelu model.tag=openai",
        ),
        (
            {"name": "vit_base_patch16_224.augreg_in21k", "library": "timm"},
            "21843 outputs, expected 1000.*did you mean vit_base_patch16_224.augreg_in21k_ft_in1k",
        ),
        ({"name": "ViT-B-16", "library": "open_clip", "tag": "openai"}, "use ViT-B-16-quickgelu"),
        ({"name": "ViT-B-16", "library": "open_clip", "tag": "laion2b"}, "did you mean laion2b_s34b_b88k"),
        ({"name": "ViT-B-16", "library": "open_clip"}, "model.tag: expected one of openai, "),
        ({"name": "ViT-B16", "library": "open_clip", "tag": "openai"}, "did you mean ViT-B-16"),
        ({"name": "coca_ViT-B-32", "library": "open_clip", "tag": "laion2b_s13b_b90k"}, "not supported"),
        ({"name": TINY_TIMM, "library": "timm", "package": "no_such_package"}, "pip install no-such-package"),
        ({"name": TINY_TIMM, "library": "timm", "weights": "none.pt"}, "none.pt does not exist"),
        ({"name": TINY_TIMM, "library": "keras"}, "expected mini, timm or open_clip, got 'keras'"),
    ],
)
def test_what_cannot_be_found_is_one_sentence(change, sentence):
    with pytest.raises(RibError, match=sentence):
        find_start(ModelConfig(**change))


def test_weights_that_do_not_fit_are_refused_by_name(tmp_path, timm_weights):
    start = find_start(
        ModelConfig("mini_small", "mini", weights=str(timm_weights), transform=compose().model.transform)
    )
    with pytest.raises(RibError, match=r"does not fit vit_mini: \S+ should be"):
        build(start)
    fits = find_start(ModelConfig(TINY_TIMM, "timm", weights=str(timm_weights)))
    with pytest.raises(RibError, match="has a head of 1000 outputs; rib needs 40 outputs, the suite's classes"):
        build(replace(fits, outputs=40))


def test_pickled_code_and_damaged_files_are_refused(tmp_path):
    pickled = tmp_path / "model.pt"
    torch.save(torch.nn.Linear(2, 2), pickled)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"not weights")
    for file in (pickled, damaged):
        with pytest.raises(RibError, match=f"cannot read {file} as weights"):
            build(find_start(ModelConfig(TINY_TIMM, "timm", weights=str(file))))


def test_a_torch_file_of_tensors_is_read(tmp_path):
    torch.manual_seed(1)
    state = timm.create_model("test_vit").state_dict()
    file = tmp_path / "weights.pt"
    torch.save({"state_dict": state}, file)
    model = build(find_start(ModelConfig(TINY_TIMM, "timm", weights=str(file))))
    assert torch.equal(model.backbone.state_dict()["head.weight"], state["head.weight"])


def test_a_clip_file_for_a_classifier_is_refused_with_what_takes_it(tmp_path):
    tower = timm.create_model("test_vit", num_classes=0).state_dict()
    save_file(
        {**{f"visual.{n}": t for n, t in tower.items()}, "logit_scale": torch.ones(())}, tmp_path / "clip.safetensors"
    )
    start = find_start(ModelConfig(TINY_TIMM, "timm", weights=str(tmp_path / "clip.safetensors")))
    with pytest.raises(RibError, match="without an ImageNet head: use model=open_clip"):
        build(start)


@pytest.mark.slow
def test_older_names_of_timm_s_own_networks_are_known(tmp_path):
    """DeiT III's authors wrote them so; timm converts."""
    torch.manual_seed(0)
    state = timm.create_model("deit3_small_patch16_224").state_dict()
    older = {n.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): t for n, t in state.items()}
    assert older.keys() != state.keys()
    save_file(older, tmp_path / "deit3.safetensors")
    name = "deit3_small_patch16_224.fb_in1k"
    built = build(find_start(ModelConfig(name, "timm", weights=str(tmp_path / "deit3.safetensors"))))
    assert all(torch.equal(built.backbone.state_dict()[n], t) for n, t in state.items())
    (tmp_path / "deit3.safetensors").unlink()


def test_mini_names_what_ships():
    assert [n for n in options("model") if n.startswith("mini_")] == sorted(
        f"mini_{size}" for size in ("tiny", "small", "medium", "large")
    )
    assert len(mini.catalog().outputs) == 1000
