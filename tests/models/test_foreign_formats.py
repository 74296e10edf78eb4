"""Files of transformers, torchvision, WiSE-FT and FLYP: the same outputs as in the library that wrote them."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from types import ModuleType

import open_clip
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from rib.config.schema import ModelConfig
from rib.errors import RibError
from rib.models import zero_shot
from rib.models.build import build
from rib.models.start import find_start
from rib.models.weights import StoredWeights, save_weights
from rib.runtime.console import say_once
from tests.models.test_hub import hub

__all__ = ["hub"]

CLIP = "rib-test-foreign-quickgelu"
VIT = "test_vit.r160_in1k"
SMALL = {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 6, "num_attention_heads": 2}


@pytest.fixture(autouse=True)
def nothing_said_yet():
    say_once.cache_clear()


@pytest.fixture(scope="module")
def transformers():
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def scrambled(model: nn.Module, seed: int = 0) -> nn.Module:
    """A model with random values in every tensor, so that two tensors exchanged are seen in the output."""
    torch.manual_seed(seed)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1 if parameter.ndim > 1 else 0.3)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
        elif name.endswith("running_mean"):
            buffer.normal_(0, 0.2)
    return model.eval()


def read(file: Path, name: str = VIT, library: str = "timm") -> nn.Module:
    return build(find_start(ModelConfig(name, library, weights=str(file)))).backbone


def check_same(theirs: nn.Module, ours: nn.Module, size: int) -> None:
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, got = theirs(images), ours(images)
    expected = getattr(expected, "logits", expected)
    assert expected.std(dim=1).min() > 0.01
    assert (expected - got).abs().max() < 1e-5 * max(1, float(expected.abs().max()))


def saved(model, folder: Path, kind: str) -> Path:
    """The weights of a model of transformers in one of the forms that people have them in."""
    if kind == "shards":
        model.save_pretrained(folder, max_shard_size="300KB")
        assert len(list(folder.glob("model-*-of-*.safetensors"))) > 1
        return folder / "model.safetensors.index.json"
    if kind == "pytorch_model.bin":
        torch.save(model.state_dict(), folder / kind)
        return folder / kind
    if kind == "lightning.ckpt":
        state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        torch.save({"epoch": 1, "state_dict": state, "pytorch-lightning_version": "2"}, folder / kind)
        return folder / kind
    model.save_pretrained(folder)
    return folder if kind == "folder" else folder / kind


KINDS = ["folder", "shards", "pytorch_model.bin", "lightning.ckpt"]


def test_a_vit_of_transformers_is_timm_s(transformers, tmp_path, capsys):
    config = transformers.ViTConfig(image_size=160, patch_size=16, num_labels=1000, **SMALL)
    theirs = scrambled(transformers.ViTForImageClassification(config))
    for kind in KINDS:
        (tmp_path / kind).mkdir()
        check_same(theirs, read(saved(theirs, tmp_path / kind, kind)), 160)
        assert "read 104 tensors of Hugging Face's ViT as timm's" in capsys.readouterr().err
        say_once.cache_clear()
    for outputs, sentence in ((10, "has a head of 10 outputs; rib needs 1000 outputs"), (0, "has no head")):
        state = {n: t[:outputs] if n.startswith("classifier") else t for n, t in theirs.state_dict().items()}
        save_file({n: t for n, t in state.items() if len(t)}, tmp_path / "head.safetensors")
        with pytest.raises(RibError, match=sentence):
            read(tmp_path / "head.safetensors")


def test_a_shard_that_is_absent_or_given_alone_is_named(tmp_path):
    shard, index = tmp_path / "model-00001-of-00002.safetensors", tmp_path / "model.safetensors.index.json"
    save_file({"a": torch.zeros(1)}, shard)
    names = {"a": shard.name, "b": "model-00002-of-00002.safetensors"}
    index.write_text(json.dumps({"weight_map": names}))
    with pytest.raises(RibError, match=r"one of 2 shards; give their index, model\.safetensors\.index\.json"):
        read(shard)
    with pytest.raises(RibError, match=r"lists 2 shards, of which model-00002-of-00002\.safetensors is not beside it"):
        read(index)
    save_file({"b": torch.zeros(1)}, tmp_path / names["b"])
    first = find_start(ModelConfig(VIT, "timm", weights=str(index)))
    assert first.num_bytes == sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))
    save_file({"b": torch.ones(1)}, tmp_path / names["b"])
    assert find_start(ModelConfig(VIT, "timm", weights=str(index))).digest != first.digest


SLOW_MODELS = [
    ("ConvNext", {"depths": [2, 2, 6, 2], "hidden_sizes": [40, 80, 160, 320]}, "convnext_atto.d2_in1k", 64),
    ("ConvNextV2", {"depths": [2, 2, 6, 2], "hidden_sizes": [40, 80, 160, 320]}, "convnextv2_atto.fcmae_ft_in1k", 64),
    ("ResNet", {"depths": [2] * 4, "hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"}, "resnet18.a1_in1k", 64),
    ("ResNet", {}, "resnet50.a1_in1k", 64),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "config", "name", "size"), SLOW_MODELS)
def test_other_classifiers_of_transformers_are_timm_s(kind, config, name, size, transformers, tmp_path):
    model = getattr(transformers, f"{kind}ForImageClassification")
    theirs = scrambled(model(getattr(transformers, f"{kind}Config")(num_labels=1000, **config)))
    check_same(theirs, read(saved(theirs, tmp_path, "model.safetensors"), name), size)


@pytest.mark.slow
def test_a_distilled_deit_of_transformers_is_timm_s(transformers, tmp_path):
    sizes = {"hidden_size": 192, "intermediate_size": 768, "num_attention_heads": 3}
    config = transformers.DeiTConfig(num_labels=1000, **sizes)
    theirs = scrambled(transformers.DeiTForImageClassificationWithTeacher(config))
    file = saved(theirs, tmp_path, "model.safetensors")
    check_same(theirs, read(file, "deit_tiny_distilled_patch16_224.fb_in1k"), 224)


def test_a_model_of_transformers_without_a_mapping_is_named(transformers, tmp_path):
    config = transformers.BeitConfig(num_labels=1000, image_size=160, **SMALL)
    saved(transformers.BeitForImageClassification(config), tmp_path, "model.safetensors")
    with pytest.raises(RibError, match=r"looks like the model beit of transformers; of these rib reads CLIP, ViT"):
        read(tmp_path / "model.safetensors")


def test_torchvision_s_vit_and_convnext_are_timm_s(tmp_path, capsys):
    theirs = scrambled(torchvision.models.VisionTransformer(160, 16, 6, 2, 64, 192))
    torch.save({"model": theirs.state_dict(), "epoch": 1}, tmp_path / "vit.pth")
    check_same(theirs, read(tmp_path / "vit.pth"), 160)
    assert "read 80 tensors of torchvision's ViT as timm's" in capsys.readouterr().err
    older = {
        n.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2"): t for n, t in theirs.state_dict().items()
    }
    torch.save(older, tmp_path / "older.pth")
    check_same(theirs, read(tmp_path / "older.pth"), 160)
    block = torchvision.models.convnext.CNBlockConfig
    sizes = [(40, 80, 2), (80, 160, 2), (160, 320, 6), (320, None, 2)]
    theirs = scrambled(torchvision.models.ConvNeXt([block(*size) for size in sizes]))
    torch.save(theirs.state_dict(), tmp_path / "convnext.pth")
    check_same(theirs, read(tmp_path / "convnext.pth", "convnext_atto.d2_in1k"), 64)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A CLIP model of two layers with OpenAI's activation, known to open_clip by name."""
    config = {
        "embed_dim": 32,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
    }
    file = tmp_path_factory.mktemp("configs") / f"{CLIP}.json"
    file.write_text(json.dumps(config))
    open_clip.add_model_config(file)
    return scrambled(zero_shot.build_clip(CLIP))


@pytest.fixture
def one_sentence(monkeypatch):
    """One a class in place of 80."""
    texts = tuple(of_class[:1] for of_class in zero_shot.sentences())
    monkeypatch.setattr(zero_shot, "sentences", lambda given=None: texts)
    return [of_class[0] for of_class in texts]


def hf_clip(transformers):
    sizes = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        vision_config={"image_size": 32, "patch_size": 16, **sizes}, text_config=sizes, projection_dim=32
    )
    model = scrambled(transformers.CLIPModel(config))
    nn.init.constant_(model.logit_scale, 2.0)
    return model


def test_a_clip_of_transformers_is_open_clip_s(clip, transformers, one_sentence, tmp_path, capsys):
    theirs = hf_clip(transformers)
    ours = read(saved(theirs, tmp_path, "model.safetensors"), CLIP, "open_clip")
    said = capsys.readouterr().err
    assert f"read {len(theirs.state_dict())} tensors of Hugging Face's CLIP as open_clip's" in said
    images, classes = torch.randn(2, 3, 32, 32), [0, 7, 999]
    tokens = open_clip.get_tokenizer(CLIP)([one_sentence[i] for i in classes])
    with torch.no_grad():
        expected = theirs(pixel_values=images, input_ids=tokens).logits_per_image
        got = ours(images)[:, classes]
    assert expected.std(dim=1).min() > 0.01
    assert (expected - got).abs().max() < 1e-5 * float(expected.abs().max())


def test_a_clip_of_transformers_comes_from_the_hub(clip, hub, transformers, one_sentence, tmp_path):
    theirs = hf_clip(transformers)
    hub.files["openai/clip/model.safetensors"] = saved(theirs, tmp_path, "model.safetensors")
    start = find_start(ModelConfig(CLIP, "open_clip", hub="openai/clip"))
    expected = theirs.state_dict()["visual_projection.weight"]
    assert torch.equal(build(start).backbone.visual.proj, expected.T)


def test_an_image_tower_of_transformers_lacks_a_head(clip, transformers, tmp_path):
    config = transformers.CLIPVisionConfig(image_size=32, patch_size=16, projection_dim=32, **SMALL)
    theirs = transformers.CLIPVisionModelWithProjection(config)
    saved(theirs, tmp_path, "model.safetensors")
    with pytest.raises(RibError, match=r"does not fit .* another architecture \(6 layers, not 2\)"):
        read(tmp_path / "model.safetensors", CLIP, "open_clip")
    tower = {n: t for n, t in hf_clip(transformers).state_dict().items() if n.startswith("vis")}
    save_file(tower, tmp_path / "tower.safetensors")
    with pytest.raises(
        RibError, match=r"has no head and no text tower to make one from; give a file of the whole CLIP"
    ):
        read(tmp_path / "tower.safetensors", CLIP, "open_clip")
    of_images = {n: t for n, t in tower.items() if n.startswith("vision_model.")} | {
        "classifier.weight": torch.ones(2, 64)
    }
    save_file(of_images, tmp_path / "other.safetensors")
    with pytest.raises(RibError, match="it is a CLIPForImageClassification, whose head open_clip does not have"):
        read(tmp_path / "other.safetensors", CLIP, "open_clip")
    with pytest.raises(RibError, match=r"it is Hugging Face's CLIP: use model=open_clip"):
        read(tmp_path / "tower.safetensors")


@pytest.mark.parametrize(("activation", "fits"), [("quick_gelu", True), ("gelu", False)])
def test_the_config_beside_the_weights_says_the_activation(activation, fits, clip, transformers, tmp_path, capsys):
    config = {"model_type": "clip", "vision_config": {"hidden_act": activation}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(clip.state_dict(), tmp_path / "model.safetensors")
    for given in (tmp_path, tmp_path / "model.safetensors"):
        if fits:
            find_start(ModelConfig(CLIP, "open_clip", weights=str(given)))
        else:
            with pytest.raises(RibError, match=r"the config\.json beside .* says gelu, and .* has quickgelu"):
                find_start(ModelConfig(CLIP, "open_clip", weights=str(given)))
            find_start(ModelConfig(CLIP, "open_clip", weights=str(given), activation="quickgelu"))
    transformers.CLIPConfig(vision_config={"hidden_act": "gelu"}).save_pretrained(tmp_path)
    with pytest.raises(RibError, match="says gelu, and"):
        find_start(ModelConfig(CLIP, "open_clip", weights=str(tmp_path)))


def test_other_image_sizes_of_clip_are_told(clip, tmp_path):
    larger = {**clip.state_dict(), "visual.positional_embedding": torch.zeros(17, 64)}
    save_file(larger, tmp_path / "larger.safetensors")
    with pytest.raises(RibError, match=r"it is for images of 64 pixels: add model\.transform\.size=64"):
        read(tmp_path / "larger.safetensors", CLIP, "open_clip")


class Encoder(nn.Module):
    """As `ImageEncoder` and `CLIPEncoder` of WiSE-FT and FLYP hold a CLIP model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


class Classifier(nn.Module):
    """As `ImageClassifier` of WiSE-FT and FLYP: the features have unit length before the head."""

    def __init__(self, clip: nn.Module, bias: bool) -> None:
        super().__init__()
        self.image_encoder = Encoder(clip)
        self.classification_head = nn.Linear(32, 1000)
        nn.init.normal_(self.classification_head.bias, std=float(bias))

    def forward(self, images):
        return self.classification_head(F.normalize(self.image_encoder.model.encode_image(images), dim=-1))


@pytest.mark.parametrize("bias", [False, True])
def test_a_classifier_of_wise_ft_keeps_its_head(bias, clip, tmp_path, capsys):
    theirs = Classifier(zero_shot.build_clip(CLIP), bias)
    theirs.image_encoder.model.load_state_dict(clip.state_dict())
    del theirs.image_encoder.model.transformer
    torch.save({f"module.{n}": t for n, t in theirs.state_dict().items()}, tmp_path / "wise.pt")
    ours = read(tmp_path / "wise.pt", CLIP, "open_clip")
    check_same(theirs, ours, 32)
    said = capsys.readouterr().err
    num_read = 2 + sum(name.startswith("visual.") for name in clip.state_dict())
    assert f"read {num_read} tensors of a classifier of WiSE-FT's or FLYP's code as open_clip's; left out" in said
    assert ("head.bias" in ours.state_dict()) == bias
    # What a run stores is read again, with or without the bias.
    save_weights(ours.state_dict(), tmp_path / "run.safetensors")
    check_same(theirs, read(tmp_path / "run.safetensors", CLIP, "open_clip"), 32)


@pytest.mark.slow
def test_a_clip_encoder_of_flyp_gets_its_head_from_its_text_tower(clip, one_sentence, tmp_path):
    torch.save(Encoder(clip).state_dict(), tmp_path / "flyp.pt")
    torch.save(
        {"name": "run", "epoch": 3, "state_dict": {f"module.{n}": t for n, t in clip.state_dict().items()}},
        tmp_path / "epoch_3.pt",
    )
    save_file(clip.state_dict(), tmp_path / "plain.safetensors")
    plain = read(tmp_path / "plain.safetensors", CLIP, "open_clip").state_dict()
    for name in ("flyp.pt", "epoch_3.pt"):
        state = read(tmp_path / name, CLIP, "open_clip").state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in plain.items())
    without = {n: t for n, t in clip.state_dict().items() if not n.startswith("transformer.")}
    torch.save(
        Encoder(nn.Identity()).state_dict() | {f"model.{n}": t for n, t in without.items()}, tmp_path / "wise.pt"
    )
    with pytest.raises(RibError, match=r"it has no head, and its text tower, which would make one, lacks transformer"):
        read(tmp_path / "wise.pt", CLIP, "open_clip")


@pytest.mark.parametrize("pickled", [True, False])
def test_a_pickled_module_is_not_executed_and_told_how_to_convert(pickled, tmp_path, monkeypatch):
    module = ModuleType("src.models.modeling")
    for name in ("src", "src.models"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    module.ImageClassifier = type("ImageClassifier", (nn.Linear,), {"__module__": module.__name__})
    file, model = tmp_path / "checkpoint_10.pt", module.ImageClassifier(2, 2)
    if pickled:
        file.write_bytes(pickle.dumps(model))
    else:
        torch.save(model, file)
    del sys.modules[module.__name__]
    with pytest.raises(RibError) as caught:
        read(file, CLIP, "open_clip")
    said = str(caught.value)
    assert "src.models.modeling.ImageClassifier" in said and "does not execute" in said
    assert (
        "it is a whole ImageClassifier: if you trust it, run in an environment with the code of WiSE-FT or FLYP" in said
    )
    # The sentence's own command, where that code is there.
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.chdir(tmp_path)
    exec(said.partition("FLYP: ")[2], {})
    assert torch.equal(torch.load("weights.pt")["weight"], model.weight)


@pytest.mark.slow
def test_a_misfit_is_told_its_likely_reason(tmp_path, capsys):
    torch.manual_seed(0)
    for options, sentence in (
        ({"depth": 4}, r"another architecture \(4 layers, not 6\): give the name of the architecture"),
        ({"embed_dim": 32}, r"another architecture \(width 32, not 64\)"),
        (
            {"embed_dim": 32, "patch_size": 32},
            r"another architecture \(width 32, not 64, patches of 32 pixels, not 16\)",
        ),
    ):
        save_file(timm.create_model("test_vit", **options).state_dict(), tmp_path / "other.safetensors")
        with pytest.raises(RibError, match=sentence):
            read(tmp_path / "other.safetensors")
    save_file(timm.create_model("test_vit", patch_size=32).state_dict(), tmp_path / "patches.safetensors")
    read(tmp_path / "patches.safetensors")
    assert "patches of 32 pixels to 16: is model.name the file's architecture?" in capsys.readouterr().err
    save_file(timm.create_model("resnet18").state_dict(), tmp_path / "resnet.safetensors")
    with pytest.raises(RibError, match="most names differ: it is another architecture"):
        read(tmp_path / "resnet.safetensors")


def test_stored_weights_are_read_as_they_are(tmp_path):
    state = timm.create_model("test_vit").state_dict()
    save_weights(state, tmp_path / "w.safetensors", {"rib_version": "1"})
    assert all(torch.equal(StoredWeights(tmp_path / "w.safetensors")[n], t) for n, t in state.items())
