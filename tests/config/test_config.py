"""Validation of commands: accepted overrides, and the one-sentence errors for the others."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from rib.config import compose
from rib.config.check import check_config
from rib.config.command_schema import BenchmarkConfig
from rib.config.defaults import flat_changes
from rib.config.shipped import conf_dir, options
from rib.config.unchecked import compose_node
from rib.data.worlds import cache_dir
from rib.errors import RibError
from rib.methods.build import build_object

pytestmark = pytest.mark.usefixtures("no_progress")


def command(*arguments: str, module: str = "rib.train", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, cwd=cwd, timeout=60
    )


WRONG = [
    (("+methd=ewc",), "methd: there is no such option; did you mean +method=ewc?"),
    (("optimzer.lr=1",), "optimzer.lr: there is no such option; did you mean optimizer.lr=1?"),
    (("+optimzer.lr=1",), "optimzer: there is no such option; did you mean optimizer.lr=1?"),
    (("epochs=ten",), "epochs: expected a whole number, got 'ten'; did you mean epochs=10?"),
    (("model=mini_lagre",), "model=mini_lagre: there is no such model; did you mean model=mini_large?"),
    (("method=ewcc",), "method=ewcc: there is no such method; did you mean +method=ewc?"),
    (("method=ewc", "method.ewc.strenght=3"), "did you mean method.ewc.strength=3?"),
    (("method=ewc", "+method.ewc.strenght=3"), "did you mean method.ewc.strength=3?"),
    (("method.ewc.strength=3",), "method ewc is not selected; add +method=ewc"),
    (("method=ewc", "method.ewc.strength=much"), "method.ewc.strength: expected a value like 1.0, got 'much'"),
    (("+data.lmit=3",), "data.lmit: there is no such option; did you mean data.limit=3?"),
    (("+trainer.max_epochs=3",), "trainer.max_epochs: there is no such option"),
    (("+optimizer.momentun=.5",), "did you mean optimizer.momentum=.5?"),
    (
        ("data.image_backend=pill",),
        "data.image_backend: expected one of torchvision, pil, got 'pill'; did you mean data.image_backend=pil?",
    ),
    (("+method.mine._target_=nowhere.Mine",), "method.mine._target_: cannot import 'nowhere.Mine'"),
    (("+method.mine.strength=1",), "method.mine: expected a class named in _target_, found none"),
]


@pytest.mark.parametrize(("overrides", "sentence"), WRONG, ids=[" ".join(o) for o, _ in WRONG])
def test_a_mistake_is_answered_with_the_nearest_right_spelling(overrides, sentence):
    with pytest.raises(RibError) as error:
        compose(*overrides)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("arguments", [("+methd=ewc",), ("optimzer.lr=1",), ("epochs=ten",), ("model=mini_lagre",)])
def test_from_the_command_line_it_is_one_line_and_exit_code_1(arguments):
    begun = time.perf_counter()
    done = command(*arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("rib: ")
    assert done.stderr.count("\n") == 1
    print(f"{arguments}: {time.perf_counter() - begun:.2f} s")


def test_help_and_cfg_need_no_torch():
    code = (
        "import sys; sys.argv[1:] = ['--cfg', 'job']; from rib.train import main; main(); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "batch_size: 64" in done.stdout


def test_a_misspelt_key_in_a_users_own_yaml_is_found(tmp_path):
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "mine.yaml").write_text("# @package _global_\nbatchsize: 3\n")
    done = command(f"hydra.searchpath=[{tmp_path}]", "experiment=mine")
    assert done.returncode == 1
    assert "there is no such option; did you mean batch_size?" in done.stderr


@pytest.mark.parametrize("spelling", ["+method=ewc", "method=ewc"])
def test_both_spellings_of_method_work(spelling):
    assert list(compose(spelling).method) == ["ewc"]


def test_options_are_the_flat_overrides_that_are_not_default():
    assert flat_changes(compose("method=ewc", "batch_size=64")) == {}
    changed = flat_changes(compose("method=ewc", "method.ewc.strength=3", "data.images_per_class=2", "data.workers=1"))
    assert changed == {"method.ewc.strength": 3, "data.images_per_class": 2}


@pytest.mark.parametrize("name", ["mini_small", "resnet50", "clip_laion2b", "efficientnet_lite0"])
def test_a_models_own_transform_is_no_option_and_another_is(name):
    assert flat_changes(compose(f"model={name}")) == {}
    assert flat_changes(compose(f"model={name}", "model.transform.crop_pct=0.875")) == {
        "model.transform.crop_pct": 0.875
    }


def test_statistics_shared_between_devices_are_an_option():
    assert flat_changes(compose("trainer=ddp", "trainer.sync_batchnorm=true")) == {"trainer.sync_batchnorm": True}
    assert flat_changes(compose("model=timm", "model.name=x.y", "model.transform.size=64")) == {
        "model.transform.size": 64
    }


def test_no_method_is_plain_fine_tuning():
    assert compose().method == {}


@pytest.mark.parametrize(
    "choice",
    [
        f"{g}={n}"
        for g in ("dataset", "suite", "head", "optimizer", "trainer", "logger", "paths", "figures", "data")
        for n in options(g)
    ],
)
def test_every_file_of_conf_composes(choice):
    compose(choice)


def test_every_folder_of_conf_is_known_to_the_tests():
    tested_elsewhere = {"analysis", "model", "method", "experiment", "pretrain", "hydra", "study"}
    here = {"dataset", "suite", "head", "optimizer", "trainer", "logger", "paths", "figures", "data"}
    assert {p.name for p in Path(conf_dir()).iterdir() if p.is_dir() and any(p.iterdir())} <= here | tested_elsewhere


@pytest.mark.parametrize("name", options("study"))
def test_every_study_composes_and_its_drawing_is_made(name):
    config = check_config(compose_node("benchmark", f"study={name}"), BenchmarkConfig)
    assert config.study == name
    assert {"table", "paragraph", "figures"} <= set(dir(build_object(config.draw)))
    header = Path(conf_dir(), "study", f"{name}.yaml").read_text().split("\nstudy:")[0]
    assert f"python -m rib.benchmark study={name}" in header
    assert "Cost" in header


def test_an_empty_folder_of_runs_is_an_error_and_an_empty_cache_is_the_default(monkeypatch, tmp_path):
    with pytest.raises(RibError, match=r"paths.runs: expected a folder, got an empty text"):
        compose("paths.runs=")
    monkeypatch.setenv("RIB_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir(compose().paths.cache) == tmp_path / "rib"
