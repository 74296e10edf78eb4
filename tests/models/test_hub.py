"""Weights from the hub: its cache without a network, else a download, else one sentence soon."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from rib.config import compose
from rib.config.schema import ModelConfig
from rib.errors import RibError
from rib.models import hub as rib_hub
from rib.models.build import build
from rib.models.start import find_start
from tests.support.hub import stand_in

pytestmark = pytest.mark.usefixtures("no_progress")

TINY = "test_vit.r160_in1k"
CARD = "vit_base_patch16_clip_224.laion2b_ft_in1k"


def look_at(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what HF_ENDPOINT and HF_HOME set for a process that starts."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with stand_in() as hub:
        look_at(hub.url, tmp_path, monkeypatch)
        yield hub


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    look_at(url, tmp_path, monkeypatch)
    return url


def weights_of(architecture: str, file: Path, dtype: torch.dtype = torch.float16) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    state = timm.create_model(architecture, num_classes=1000).state_dict()
    state = {name: t.to(dtype) if t.is_floating_point() else t for name, t in state.items()}
    save_file(state, file)
    return state


def test_a_model_is_fetched_once_and_then_needs_no_network(hub, tmp_path, monkeypatch):
    state = weights_of("test_vit", hub.files.setdefault(f"timm/{TINY}/model.safetensors", tmp_path / "served"))
    model = ModelConfig(TINY, "timm")
    start = find_start(model)
    assert start.weights.is_relative_to(tmp_path / "hub")
    assert (start.name, start.architecture) == (TINY, "test_vit")
    loaded = build(start).backbone.state_dict()
    assert all(torch.equal(loaded[name], tensor.float()) for name, tensor in state.items())
    asked = len(hub.asked)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    assert find_start(model) == start
    assert len(hub.asked) == asked


@pytest.mark.slow
def test_the_card_names_its_model_exactly(hub, tmp_path):
    hub.files[f"timm/{CARD}/model.safetensors"] = file = tmp_path / "served"
    state = weights_of("vit_base_patch16_clip_224", file)
    assert file.stat().st_size > 170e6
    start = find_start(compose("model=clip_laion2b").model)
    assert (start.name, start.transform.mean[0]) == ("clip_laion2b", 0.48145466)
    model = build(start)
    assert torch.equal(model.backbone.head.weight, state["head.weight"].float())
    assert sum(p.numel() for p in model.parameters()) == 86_568_424
    for name in (CARD, f"timm/{CARD}", f"hf-hub:timm/{CARD}"):
        same = find_start(ModelConfig(name, "timm"))
        assert (same.digest, same.name) == (start.digest, CARD)
    # Deleted at once: pytest keeps the folders of three sessions.
    file.unlink()
    start.weights.resolve().unlink()


def test_a_torch_file_is_fetched_where_there_is_no_other(hub, tmp_path):
    hub.files[f"timm/{TINY}/pytorch_model.bin"] = tmp_path / "served"
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "served")
    start = find_start(ModelConfig(TINY, "timm"))
    assert start.weights.name == "pytorch_model.bin"
    build(start)


@pytest.mark.parametrize(
    "overrides", [["model=clip_laion2b"], ["model=zeroshot_laion2b"], ["model=timm", f"model.name={TINY}"]]
)
def test_without_a_network_there_is_one_sentence(nowhere, tmp_path, overrides):
    model = compose(*overrides).model
    with pytest.raises(RibError) as error:
        find_start(model)
    sentence = str(error.value)
    assert "\n" not in sentence
    for part in (f"model={model.name}", str(tmp_path / "hub"), nowhere, "HF_ENDPOINT", "model.weights="):
        assert part in sentence


def test_a_hub_that_may_not_be_asked_is_not(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RibError, match="HF_HUB_OFFLINE"):
        find_start(ModelConfig(TINY, "timm"))
    assert hub.asked == []


def test_a_hub_that_never_answers_is_given_up(tmp_path, monkeypatch):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        begun = time.monotonic()
        assert not rib_hub.is_reachable(0.5)
        assert time.monotonic() - begun < 3


def test_a_proxy_that_finds_nobody_is_no_hub(monkeypatch):
    with stand_in(status=502) as proxy:
        monkeypatch.setattr(constants, "ENDPOINT", proxy.url)
        assert not rib_hub.is_reachable()


@pytest.mark.parametrize(
    ("served", "said"),
    [("README.md", "has no model.safetensors and no pytorch_model.bin"), (None, "has no such repository")],
)
def test_a_hub_without_the_weights_is_named(hub, tmp_path, served, said):
    if served:
        hub.files[f"timm/{TINY}/{served}"] = tmp_path
    with pytest.raises(RibError, match=said):
        find_start(ModelConfig(TINY, "timm"))


def command(tmp_path: Path, url: str, *overrides: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
    return subprocess.run(
        [sys.executable, "-m", "rib.train", *overrides],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_the_readme_s_command_without_a_network(tmp_path):
    begun = time.monotonic()
    run = command(tmp_path, "http://127.0.0.1:1", "+method=ewc", "model=clip_laion2b")
    assert time.monotonic() - begun < 15
    assert run.returncode == 1
    warning, error = run.stderr.splitlines()
    assert warning.startswith("warning: toy data (mini)")
    assert error.startswith("rib: model=clip_laion2b: its weights") and "HF_ENDPOINT" in error


def test_a_misspelt_model_is_answered_with_the_right_spelling(tmp_path):
    run = command(tmp_path, "http://127.0.0.1:1", "+method=ewc", "model=clip_laoin2b")
    assert run.returncode == 1
    assert run.stderr.startswith("rib: model=clip_laoin2b: there is no such model; did you mean model=clip_laion2b?")
    assert run.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_readme_s_command_to_its_end(tmp_path, cache):
    """The literal command, on a ViT-B/16 of the true shape from a hub, on a few images."""
    with stand_in() as hub:
        hub.files[f"timm/{CARD}/model.safetensors"] = tmp_path / "served"
        weights_of("vit_base_patch16_clip_224", tmp_path / "served")
        small = ("data.limit=4", "epochs=1", "batch_size=2", "trainer=cpu", f"paths.cache={cache}", "data.root=null")
        run = command(tmp_path, hub.url, "+method=ewc", "model=clip_laion2b", *small)
    assert run.returncode == 0, run.stderr
    folder = Path(run.stdout.splitlines()[-1])
    assert (folder / "metrics.json").is_file()
    assert folder.relative_to(tmp_path).parts[:5] == ("runs", "mini", "clip_laion2b", "imagenet_r", "ewc")
    for file in (*tmp_path.rglob("*.safetensors"), *(tmp_path / "hf").rglob("blobs/*"), tmp_path / "served"):
        file.unlink(missing_ok=True)
