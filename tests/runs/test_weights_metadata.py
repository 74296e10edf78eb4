"""Metadata of stored weights, and the lines of the documentation that load them without rib."""

from __future__ import annotations

import json
import shlex

import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file

import rib
from rib.config import compose
from rib.config.schema import ModelConfig
from rib.models.build import build
from rib.models.start import find_start
from rib.models.weights import save_weights
from rib.pipeline import finetune
from rib.runs.resolve import resolve
from rib.runs.weights_metadata import weights_metadata, without_folders
from rib.runtime.weights_file import read_metadata
from tests.support.pages import DOCS, blocks

CLIP = "rib-test-clip-out"
QUICK = ("model=mini_tiny", "data.limit=20", "epochs=1", "suite.targets=[imagenet_a,imagenet_r]")


def test_what_the_weights_of_a_run_say(ask_for):
    spec = resolve(ask_for(*QUICK, "+method=finetune", "batch_size=26"))
    found = weights_metadata(spec)
    transform = json.loads(found.pop("transform"))
    assert (transform["size"], transform["mean"]) == (48, [0.5, 0.5, 0.5])
    options = "data.limit=20 batch_size=26 epochs=1"
    expected = f"python -m rib.train +method=finetune model=mini_tiny dataset=imagenet_r seed=0 {options}"
    assert found.pop("command") == expected
    assert found == {
        "format": "pt",
        "rib_version": rib.__version__,
        "model": "mini_tiny",
        "library": "timm",
        "architecture": "vit_mini",
        "method": "finetune",
        "source": "imagenet_r",
        "data": "mini",
        "run": spec.training_key,
        "licence_weights": "Apache-2.0",
        "licence_data": "drawn by rib; Apache-2.0",
    }


@pytest.mark.parametrize(
    "words",
    [
        ("+method=ewc", "method.ewc.strength=3", "seed=4", "optimizer.lr=0.1"),
        ("+method=[lwf,ldifs]", "batch_size=26"),
        ("+method=wise_ft", "method.wise_ft.alpha=0.25", "epochs=2"),
        ("+method=pretrained",),
        ("dataset=imagenet_a",),
        ("dataset=imagenet_v2", "head=probe", "data.limit=null", "+method=pretrained"),
        ("head=probe", "head.reference=imagenet_val", "head.l2=[0.1]", "data.limit=null"),
    ],
)
def test_the_command_makes_the_same_run(words, ask_for):
    spec = resolve(ask_for(*QUICK, *words))
    command = shlex.split(weights_metadata(spec)["command"])
    assert command[:3] == ["python", "-m", "rib.train"]
    paths = spec.config.paths
    again = compose(*command[3:], f"paths.runs={paths.runs}", f"paths.cache={paths.cache}", "trainer=cpu")
    assert resolve(again).training_key == spec.training_key


def test_no_path_and_nothing_of_the_machine_is_in_them(ask_for, tmp_path):
    state = timm.create_model("test_vit").state_dict()
    (tmp_path / "private place").mkdir()
    save_file(state, file := tmp_path / "private place" / "mine.safetensors")
    words = ("model=timm", "model.name=test_vit.r160_in1k", f"model.weights='{file}'", "data.workers=0")
    spec = resolve(ask_for(*words, "+method=lwf", "data.limit=20"))
    metadata = weights_metadata(spec)
    assert "model.weights=mine.safetensors" in shlex.split(metadata["command"])
    assert "licence_weights" not in metadata  # the user's own file
    text = json.dumps(metadata)
    assert str(tmp_path) not in text and "private" not in text and "workers" not in text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/a b/c/mine.pt", "mine.pt"),
        ("~/x/mine.pt", "mine.pt"),
        ("../runs/abc", "abc"),
        ("C:\\Users\\me\\w.pt", "w.pt"),
        (["/a/b", {"x": "/c/d e"}], ["b", {"x": "d e"}]),
        ("ewc method.lwf.inputs=/a/b seed=1", "ewc method.lwf.inputs=b seed=1"),
        ("timm/vit_base", "timm/vit_base"),
        (0.001, 0.001),
    ],
)
def test_folders_are_taken_off_every_path(value, expected):
    assert without_folders(value) == expected


def loading_blocks() -> list[str]:
    text = (DOCS / "howto" / "checkpoint.md").read_text()
    found = [b.text for b in blocks(DOCS / "howto" / "checkpoint.md") if b.language == "python" and "RUN" in b.text]
    assert len(found) == 2 and "without rib" in text
    return found


def test_the_documented_lines_load_a_run_in_plain_timm(ask_for, tmp_path):
    torch.manual_seed(0)
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "mine.safetensors")
    model = ("model=timm", "model.name=test_vit.r160_in1k", f"model.weights={tmp_path / 'mine.safetensors'}")
    run = finetune(ask_for(*model, "+method=pretrained", "data.limit=20", "suite.targets=[imagenet_r]"))
    assert read_metadata(run.weights_file)["architecture"] == "test_vit"
    names = {"RUN": str(run.folder)}
    exec(loading_blocks()[0].replace("vit_base_patch16_clip_224", "test_vit"), names)
    images = torch.rand(2, 3, 160, 160)
    start = find_start(ModelConfig("test_vit.r160_in1k", "timm", weights=str(run.weights_file)))
    with torch.no_grad():
        assert torch.equal(names["model"](images), build(start).backbone(images))
    # A run of an older version of rib: the same tensors without metadata have the same digest.
    assert run.is_intact
    save_weights(run.weights(), run.weights_file)
    assert read_metadata(run.weights_file) == {} and run.is_intact
    assert find_start(ModelConfig("test_vit.r160_in1k", "timm", weights=str(run.weights_file))).digest == start.digest


def test_the_documented_lines_load_a_run_in_plain_open_clip(tmp_path):
    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
    }
    (tmp_path / f"{CLIP}.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / f"{CLIP}.json")
    torch.manual_seed(0)
    tower = {f"visual.{n}": t for n, t in open_clip.create_model(CLIP).visual.state_dict().items()}
    save_weights(
        {**tower, "head.weight": torch.randn(1000, 32)}, tmp_path / "weights.safetensors", {"rib_version": "1"}
    )
    model = build(find_start(ModelConfig(CLIP, "open_clip", weights=str(tmp_path / "weights.safetensors"))))
    names = {"RUN": str(tmp_path), "images": torch.rand(2, 3, 32, 32)}
    with torch.no_grad():
        exec(loading_blocks()[1].replace("ViT-B-16", CLIP), names)
        assert torch.allclose(names["logits"], model.backbone(names["images"]), atol=1e-6)
