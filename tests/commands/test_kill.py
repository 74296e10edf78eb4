"""Resuming after kill -9 at any moment: the same weights as a run that was never killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rib.runs.run import Run

ARGUMENTS = (
    "model=mini_small",
    "+method=ewc",
    "epochs=4",
    "batch_size=16",
    "checkpoint.every_minutes=0.001",
    "trainer=cpu",
    "data.root=null",
    "suite.targets=[imagenet_a,imagenet_r]",
)


def start(store: Path, cache: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "rib.train", *ARGUMENTS, f"paths.runs={store}", f"paths.cache={cache}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def kill(child: subprocess.Popen[str]) -> None:
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate()


def finish(store: Path, cache: Path) -> tuple[Path, str]:
    out, err = start(store, cache).communicate(timeout=120)
    assert out, err
    return Path(out.splitlines()[-1]), err


def checkpoints(store: Path) -> list[Path]:
    return list(store.glob("*/*/*/ewc/*/last.ckpt"))


def wait_for_training(store: Path, child: subprocess.Popen[str]) -> None:
    while not checkpoints(store):
        assert child.poll() is None, child.communicate()[1]
        time.sleep(0.01)


def assert_same(one: Path, other: Path) -> None:
    weights, others = load_file(one / "weights.safetensors"), load_file(other / "weights.safetensors")
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert one.name == other.name
    assert Run(one).metrics()["robustness_improvement"] == Run(other).metrics()["robustness_improvement"]
    leftovers = [p.name for p in other.rglob("*") if ".tmp" in p.name or p.name == "last.ckpt"]
    assert leftovers == []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    return finish(tmp_path_factory.mktemp("undisturbed") / "runs", cache)[0]


@pytest.mark.slow
def test_killed_in_mid_epoch_it_goes_on_to_the_same_weights(store, cache, undisturbed):
    child = start(store, cache)
    wait_for_training(store, child)
    kill(child)
    folder = checkpoints(store)[0].parent
    checkpoint = torch.load(folder / "last.ckpt", weights_only=False)
    assert checkpoint["global_step"] > 0
    found, err = finish(store, cache)
    assert "resuming at epoch" in err
    assert_same(undisturbed, found)


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(store, cache, undisturbed):
    child = start(store, cache)
    wait_for_training(store, child)
    os.kill(child.pid, signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "run the same command to resume" in err
    assert "Traceback" not in err
    assert_same(undisturbed, finish(store, cache)[0])


@pytest.mark.slow
def test_sigterm_is_no_success(store, cache):
    child = start(store, cache)
    wait_for_training(store, child)
    child.terminate()
    _, err = child.communicate(timeout=60)
    assert child.returncode == 143
    assert "run the same command to resume" in err
    assert checkpoints(store)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_five_random_moments(store, cache, undisturbed):
    dice = random.Random(0)
    moments = []
    for number in range(5):
        child = start(store, cache)
        if number % 2:
            wait_for_training(store, child)
            moment = dice.uniform(0, 1.5)
        else:
            moment = dice.uniform(0, 9)
        time.sleep(moment)
        moments.append((round(moment, 2), child.poll() is None, len(checkpoints(store))))
        kill(child)
    print("seconds, still running, checkpoints:", moments)
    assert_same(undisturbed, finish(store, cache)[0])
