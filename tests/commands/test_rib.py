"""``rib COMMAND`` is ``python -m rib.COMMAND``: output, exit codes, sweeps, several processes, a user's classes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rib.runs.store import RunStore

SCRIPT = "import sys; from rib.__main__ import main; sys.argv[0] = '/usr/bin/rib'; sys.exit(main())"
QUICK = ("model=mini_tiny", "epochs=1", "data.limit=13", "suite.targets=[imagenet_a]")
RIB = {"module": ["-m", "rib"], "script": ["-c", SCRIPT]}
"""Ways to start ``rib``: as a module, and as the console script does."""
DDP = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu")


def python(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=cwd, timeout=280)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("--cfg", "job", "seed=3"), ("lr=1",)], ids=" ".join)
def test_output_and_exit_code_are_those_of_the_module(arguments):
    one, two = python("-m", "rib", "train", *arguments), python("-m", "rib.train", *arguments)
    assert (one.returncode, one.stdout, one.stderr) == (two.returncode, two.stdout, two.stderr)
    assert one.stdout or one.stderr.startswith("rib: lr: there is no such option; did you mean optimizer.lr=1?")


@pytest.fixture
def options(tmp_path, cache):
    return (*QUICK, f"paths.runs={tmp_path / 'runs'}", f"paths.cache={cache}", "data.root=null")


@pytest.mark.slow
@pytest.mark.parametrize("way", RIB)
def test_a_run_ends_with_its_folder_and_finds_a_class_in_this_folder(way, options, tmp_path):
    (tmp_path / "mine.py").write_text("from rib.methods.base import Method\n\nclass Mine(Method):\n    pass\n")
    done = python(*RIB[way], "train", *options, "+method.mine._target_=mine.Mine", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = RunStore(tmp_path / "runs").one(method="mine")
    assert done.stdout.splitlines()[-1] == str(run.folder)


@pytest.mark.slow
@pytest.mark.parametrize("way", RIB)
def test_two_processes_make_one_run(way, options, tmp_path):
    done = python(*RIB[way], "train", *options, *DDP)
    assert done.returncode == 0, done.stderr
    run = RunStore(tmp_path / "runs").one(method="finetune")
    assert done.stdout.splitlines().count(str(run.folder)) == 1


@pytest.mark.slow
def test_a_sweep_of_jobs_with_two_processes(options, tmp_path):
    done = python("-m", "rib", "train", "-m", *options, *DDP, "seed=0,1")
    assert done.returncode == 0, done.stderr
    assert len(RunStore(tmp_path / "runs").finished(method="finetune")) == 2
