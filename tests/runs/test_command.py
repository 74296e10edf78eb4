"""Commands printed in messages make the run they refer to: composed, and run in a shell."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rib.config import compose
from rib.config.check import check_config
from rib.config.command_schema import EvaluateConfig, ReportConfig
from rib.config.schema import PathsConfig
from rib.config.unchecked import compose_node
from rib.data import mini
from rib.errors import RibError
from rib.pipeline import finetune
from rib.reporting import runs_table
from rib.reporting.report import report
from rib.runs.command import command_for, command_of, scoring_command_of
from rib.runs.run import Run
from rib.runs.store import RunStore
from rib.sweeps.rescore import evaluate

pytestmark = pytest.mark.usefixtures("no_progress")

ODD = "st[3] ü=x"
"""A folder's name that means something to a shell, to Hydra and to glob."""

SAID = {
    "defaults": (),
    "limit": ("data.limit=40", "model=mini_tiny"),
    "root": ("data.root='/d a/x[1]=é,~'", "model=resnet50"),
    "suite": ("suite=paper", "suite.targets=[imagenet_v2,imagenet_a]", "suite.reported=[imagenet_r]"),
    "stack": ("+method=[spd,ftp]", "method.ftp.exclude_head=false", "method.spd.strength=.5"),
    "merged": (
        "+method=soup",
        "method.soup.ingredients=[pretrained,'ewc method.ewc.fisher=identity','finetune seed=+1']",
    ),
    "paper": ("experiment=paper", "+method=ewc", "paper.ewc=null"),
    "adamw": ("optimizer=adamw", "optimizer.lr=1e-5", "optimizer.betas=[.9,.98]"),
    "timm": ("model=timm", "model.name=resnet18.a1_in1k", "++model.published.imagenet_val=83.8"),
    "trainer": ("trainer=ddp", "trainer.accelerator=cpu", "seed=7", "batch_size=40", "accumulate=4"),
    "own class": ("+method.mine._target_=rib.methods.base.Method",),
    "own rates": ("+method=visual_prompt", "method.visual_prompt.lr={user:1,mini:0.5}"),
    "texts": ("model=timm", "model.name='7'", "model.tag='null'", "model.file='a \"b\"'", "model.hub='it\\'s'"),
}


def words_of(command: str) -> list[str]:
    words = shlex.split(command, comments=True)
    assert words[:3] in (["python", "-m", "rib.train"], ["python", "-m", "rib.evaluate"])
    return words[3:]


@pytest.mark.slow
@pytest.mark.parametrize("said", SAID.values(), ids=SAID.keys())
def test_a_command_composes_to_the_config_that_it_stands_for(said):
    config = compose(*said)
    command = command_for(config)
    assert "#" not in command
    # How it was said may differ, what was meant may not.
    assert replace(compose(*words_of(command)), given=[]) == replace(config, given=[])


@pytest.mark.slow
def test_only_what_is_not_default_is_said():
    assert command_for(compose()) == "python -m rib.train"
    assert command_for(compose("model=mini_tiny", "logger=wandb")) == "python -m rib.train model=mini_tiny"
    pretrained = compose("+method=pretrained", "dataset=imagenet_a", "seed=3", "optimizer=adamw", "data.limit=9")
    assert command_for(pretrained) == "python -m rib.train +method=pretrained data.limit=9"


def test_changes_of_a_config_are_said():
    made = compose("model=mini_tiny", "+method=ewc", "data.limit=40")
    assert words_of(command_for(made, method={}, batch_norm="frozen", force=True)) == [
        "model=mini_tiny",
        "data.limit=40",
        "batch_norm=frozen",
        "force=true",
    ]


@pytest.mark.slow
def test_what_a_command_cannot_say_stands_behind_it():
    mine = replace(compose("+method=wise_ft"), experiment="mine")
    mine.method["wise_ft"]["ingredients"] = ["l1sp+ewc seed=1"]
    command, _, comment = command_for(mine).partition("  # ")
    assert words_of(command)[:3] == ["hydra.searchpath=[DIR]", "experiment=mine", "+method=wise_ft"]
    assert comment == "DIR is the folder that holds experiment/mine.yaml and method/l1sp.yaml"
    elsewhere = replace(compose(), method={"mine": {"_target_": "not_here.Mine"}})
    assert "# method.mine._target_: cannot import 'not_here.Mine'" in command_for(elsewhere)
    away = compose("data.root=sub/folder")
    assert command_for(away).endswith("  # sub/folder (data.root) is not in this folder: give its full path")


def test_a_run_without_a_readable_config_has_the_command_that_its_metrics_tell():
    metrics = {
        "model": "resnet18.a1_in1k",
        "method": "lwf+wise_ft",
        "source": "imagenet_a",
        "seed": 2,
        "suite": "paper",
        "data": {"kind": "user"},
        "protocol": {"experiment": None},
        "options": {"method.lwf.strength": 3.0, "data.limit": 40},
    }
    words = words_of(command_for(metrics))
    told = ["model=timm", "model.name=resnet18.a1_in1k", "+method=[lwf,wise_ft]", "method.lwf.strength=3"]
    assert compose(*words) == compose(*told, "dataset=imagenet_a", "seed=2", "suite=paper", "data.limit=40")
    with pytest.raises(RibError, match=r"there is no such option"):
        command_for({**metrics, "options": {"optimizer.gone": 1}})


QUICK = ("model=mini_tiny", "epochs=1", "data.images_per_class=2", "data.limit=40", "suite.reported=[]")
TARGETS = "suite.targets=[imagenet_v2,imagenet_a,imagenet_r]"
RUNS = {
    "limit, suite, seed": (QUICK[0], "epochs=1", "data.limit=24", "suite.targets=[imagenet_a,imagenet_r]", "seed=3"),
    "stack": (*QUICK, TARGETS, "+method=[ewc,lwf]", "method.ewc.fisher=identity", "method.lwf.temperature=3"),
    "merged": (
        *(*QUICK, TARGETS, "+method=[lwf,wise_ft]", "method.wise_ft.alpha=0.25", "method.wise_ft.curve=[0,1]"),
        "method.wise_ft.ingredients=['finetune seed=+1 optimizer.lr=0.01']",
    ),
    "paper": (*QUICK, TARGETS, "experiment=paper", "+method=ewc"),
    "adamw": (*QUICK, TARGETS, "optimizer=adamw", "optimizer.betas=[.9,.98]", "accumulate=2", "batch_size=8"),
    "pretrained": (QUICK[0], "data.limit=24", TARGETS, "+method=pretrained", "predictions.logits=true"),
}


def in_shell(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command as somebody pastes it, where ``python`` is this one."""
    (cwd / "bin").mkdir(exist_ok=True)
    (link := cwd / "bin" / "python").unlink(missing_ok=True)
    link.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    link.chmod(0o755)
    repository = Path(__file__).resolve().parents[2]
    path = {"PATH": f"{cwd / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": f"{repository}:{cwd}"}
    environment = {k: v for k, v in os.environ.items() if k != "RIB_DATA"} | path
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=cwd, env=environment, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
@pytest.mark.parametrize("said", RUNS.values(), ids=RUNS.keys())
def test_the_printed_command_makes_the_very_run_again(said, tmp_path, cache):
    fixed = (f"paths.cache={cache}", "trainer=cpu", "data.root=null")
    run = finetune(compose(*fixed, f"paths.runs='{tmp_path / ODD}'", *said))
    metrics = run.metrics()
    command = command_of(run)
    shutil.rmtree(run.folder)
    done = in_shell(command, tmp_path)
    assert Path(done.stdout.splitlines()[-1]) == run.folder
    again = run.metrics()
    assert {k: v for k, v in again.items() if k != "seconds"} == {k: v for k, v in metrics.items() if k != "seconds"}


@pytest.mark.slow
def test_data_in_a_folder_with_an_odd_name_is_said_so_that_it_is_found(tmp_path, cache):
    root = tmp_path / f"da ta {ODD}"
    root.symlink_to(mini.ensure(cache))
    asked = compose(
        *(f"paths.runs='{tmp_path / ODD}'", f"paths.cache={cache}", "trainer=cpu", f"data.root='{root}'"),
        *("model=mini_tiny", "data.limit=20", "epochs=1", "data.allow_incomplete=true", TARGETS, "suite.reported=[]"),
    )
    run = finetune(asked)
    command = command_of(run)
    shutil.rmtree(run.folder)
    assert Path(in_shell(command, tmp_path).stdout.splitlines()[-1]) == run.folder


@pytest.mark.slow
def test_weights_from_elsewhere_are_scored_again_with_their_file_filled_in(tmp_path, ask_for, cache):
    run = finetune(ask_for(*QUICK, TARGETS))
    weights = tmp_path / "mine (1).safetensors"
    shutil.copy(run.weights_file, weights)
    said = (f"weights='{weights}'", "name='of A, B'", "model=mini_tiny", "dataset=imagenet_r", "data.limit=40", TARGETS)
    fixed = (f"paths.runs='{tmp_path / ODD}'", f"paths.cache={cache}", "trainer=cpu", "data.root=null")
    (external,) = evaluate(check_config(compose_node("evaluate", *fixed, *said), EvaluateConfig))
    command = command_of(external)
    assert "# FILE is the file of weights whose SHA-256 begins with" in command
    shutil.rmtree(external.folder)
    done = in_shell(command.replace("weights=FILE", shlex.quote(f"weights='{weights}'")), tmp_path)
    assert done.stdout.splitlines()[-1] == str(external.folder)
    assert external.metrics()["options"] == {"method.external.name": "of A, B", "data.limit": 40}


@pytest.mark.slow
def test_a_method_of_ones_own_is_made_again_without_its_yaml(tmp_path, cache):
    (tmp_path / "conf" / "method").mkdir(parents=True)
    (tmp_path / "conf" / "method" / "mine.yaml").write_text("mine: {_target_: my_code.Mine, strength: 1.0}\n")
    (tmp_path / "my_code.py").write_text(
        "from rib.methods.base import Method\n\n"
        "class Mine(Method):\n    name = 'mine'\n    def __init__(self, strength):\n        self.strength = strength\n"
    )
    fixed = f"paths.cache={cache} trainer=cpu {shlex.join(QUICK)} '{TARGETS}'"
    done = in_shell(
        f"python -m rib.train hydra.searchpath=[conf] +method=mine method.mine.strength=2 {fixed}", tmp_path
    )
    run = Run(Path(done.stdout.splitlines()[-1]))
    shown = in_shell(
        f"python -c 'from rib.runs.command import *; print(command_of(Run(Path(\"{run.folder}\"))))'", tmp_path
    ).stdout
    assert "++method.mine._target_=my_code.Mine ++method.mine.strength=2" in shown
    shutil.rmtree(run.folder)
    assert Path(in_shell(shown, tmp_path).stdout.splitlines()[-1]) == run.folder


@pytest.mark.slow
def test_the_report_prints_a_control_that_fills_the_gap(tmp_path, cache, capfd, monkeypatch):
    store = RunStore(tmp_path / ODD)
    fixed = (f"paths.runs='{store.root}'", f"paths.cache={cache}", "trainer=cpu", "data.root=null")
    run = finetune(compose(*fixed, *QUICK, TARGETS, "+method=ewc", "method.ewc.fisher=identity"))
    metrics = run.metrics()
    (line,) = runs_table.missing_controls([(run, {**metrics, "notes": {"batch_norm.layers": 3}})])
    command = line.partition("control: ")[2]
    control = Run(Path(in_shell(command, tmp_path).stdout.splitlines()[-1]))
    made = control.metrics()
    assert (made["method"], made["protocol"]["batch_norm"], made["protocol"]["limit"]) == ("finetune", "frozen", 40)
    report(ReportConfig(PathsConfig(str(store.root), None), {"name": "none"}, str(tmp_path / "report"), None))
    assert "cannot share a table" not in capfd.readouterr().err


@pytest.mark.slow
def test_the_report_prints_how_a_lost_pretrained_run_comes_back(tmp_path, cache):
    fixed = (f"paths.runs='{tmp_path / ODD}'", f"paths.cache={cache}", "trainer=cpu", "data.root=null")
    finetune(compose(*fixed, *QUICK, TARGETS, "seed=5"))
    (start,) = RunStore(tmp_path / ODD).finished(source="none")
    shutil.rmtree(start.folder)
    asked = ReportConfig(PathsConfig(str(tmp_path / ODD), None), {"name": "none"}, str(tmp_path / "report"), None)
    with pytest.raises(
        RibError, match=r"pretrained run that is gone; make that pretrained run again with python -m rib.train"
    ) as caught:
        report(asked)
    in_shell(str(caught.value).partition("make that pretrained run again with ")[2], tmp_path)
    assert start.metrics() is not None
    assert report(asked)


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("data.root=st[3]x", "quotes around a text with [ ]; write 'data.root=\"st[3]x\"'"),
        ("data.root=/ä", "quotes around a text with ä; write 'data.root=\"/ä\"'"),
        (
            "data.root=a,b",
            "-m data.root=a,b runs one after the other; a text with commas is 'data.root=",
        ),
        ("data.limit", "data.limit: this option needs a value, data.limit=VALUE"),
        ("experiment=papr", "experiment=papr: there is no such experiment; did you mean experiment=paper?"),
    ],
)
def test_what_hydra_reads_otherwise_is_one_sentence_with_what_it_would_read(argument, text, tmp_path):
    line = [sys.executable, "-m", "rib.train", argument]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith("rib: ")
    assert done.stderr.count("\n") == 1
    assert text in done.stderr


@pytest.mark.slow
def test_another_view_of_a_run_leaves_what_it_was_made_with(ask_for):
    quick = ("model=mini_tiny", "epochs=1", "data.images_per_class=1", "data.limit=20")
    run = finetune(ask_for(*quick, "suite.targets=[imagenet_a]", "suite.reported=[]"))
    made = {name: (run.folder / name).read_bytes() for name in ("config.yaml", "env.json")}
    (run.folder / "env.json").write_text("{}")  # as if it had been made elsewhere
    also = ("suite=paper", "suite.targets=[imagenet_v2]", "suite.reported=[]", "logger=none")
    assert finetune(ask_for(*quick, *also)) == run
    assert (run.folder / "config.yaml").read_bytes() == made["config.yaml"]
    assert (run.folder / "env.json").read_text() == "{}"
    first, second = run.metrics("seven*"), run.metrics("paper*")
    assert "suite.targets=[imagenet_a]" in command_of(run, first)
    assert " suite=paper " in command_of(run, second)
    said = words_of(scoring_command_of(run, second))
    assert said[0] == f"runs={run.folder}"
    assert {"suite=paper", "suite.targets=[imagenet_v2]", "suite.reported=[]", "force=true"} < {*said}
