"""Two processes, started by the command itself, against one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rib.models.weights import distance
from rib.runs.run import Run
from rib.runs.store import RunStore

ARGUMENTS = (
    "+method=ewc",
    "model=mini_small",
    "epochs=1",
    "batch_size=26",
    "data.images_per_class=6",
    "data.holdout=.1",
    "data.root=null",
    "suite.targets=[imagenet_a,imagenet_r]",
)


def train(store: Path, cache: Path, *overrides: str) -> tuple[Run, Run]:
    line = [sys.executable, "-m", "rib.train", *ARGUMENTS, f"paths.runs={store}", f"paths.cache={cache}", *overrides]
    done = subprocess.run(line, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    run = Run(Path(done.stdout.splitlines()[-1]))
    assert done.stdout.splitlines().count(str(run.folder)) == 1
    return run, RunStore(store).one(method="pretrained")


@pytest.mark.slow
def test_two_processes_train_and_score_as_one_does(tmp_path, cache):
    one, one_before = train(tmp_path / "one", cache, "trainer=cpu")
    two, two_before = train(tmp_path / "two", cache, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    assert one.key == two.key
    for dataset in ("imagenet_a", "imagenet_r", "imagenet_val"):
        alone, shared = one_before.predictions(dataset), two_before.predictions(dataset)
        assert np.array_equal(alone.top5[:, 0], shared.top5[:, 0])
        assert np.allclose(alone.log_prob, shared.log_prob, atol=1e-4)
    moved = distance(one.weights(), one_before.weights())
    # Gradients are summed in another order; five steps of it stay below a thousandth of the way gone.
    assert distance(one.weights(), two.weights()) < 1e-3 * moved
    told = {f"ewc.{name}" for name in ("capped_share", "fisher_error", "fisher_mean", "lambda")}
    assert one.metrics()["notes"].keys() == two.metrics()["notes"].keys() == told
    leftovers = [p.name for p in (tmp_path / "two").rglob("*") if ".tmp" in p.name]
    assert leftovers == []
    assert list((tmp_path / "two" / "claims").iterdir()) == []


@pytest.mark.slow
def test_accumulated_batches_in_two_processes_are_one_whole_batch(tmp_path, cache):
    """41 images: one step an epoch, of one batch, or of four in two processes, the last of 5 shared as 3 and 2."""
    quick = ("model=mini_tiny", "data.holdout=0", "data.limit=41", "epochs=2", "suite.targets=[imagenet_a]")
    one, before = train(tmp_path / "one", cache, *quick, "trainer=cpu", "batch_size=42")
    both = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    two, _ = train(tmp_path / "two", cache, *quick, *both, "batch_size=12", "accumulate=100")
    assert distance(one.weights(), two.weights()) < 1e-5 * distance(one.weights(), before.weights())


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_is_refused_with_both_numbers(tmp_path, cache):
    line = [sys.executable, "-m", "rib.train", *ARGUMENTS, f"paths.runs={tmp_path}", f"paths.cache={cache}"]
    more = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "batch_size=25"]
    done = subprocess.run([*line, *more], capture_output=True, text=True, timeout=200)
    assert done.returncode == 1
    assert "batch_size: expected a batch size that 2 processes can share evenly, got 25" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_two_processes_choose_and_merge_as_one_does(tmp_path, cache):
    chosen = (
        "+method=soup",
        "method.soup.ingredients=[pretrained,finetune,'finetune seed=1']",
        "method.soup.choice=greedy",
    )

    def soup(store: Path, *overrides: str) -> Run:
        line = [
            sys.executable,
            "-m",
            "rib.train",
            *chosen,
            *ARGUMENTS[1:],
            f"paths.runs={store}",
            f"paths.cache={cache}",
        ]
        done = subprocess.run([*line, *overrides], capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr
        return Run(Path(done.stdout.splitlines()[-1]))

    one = soup(tmp_path / "one", "trainer=cpu")
    two = soup(tmp_path / "two", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    assert one.key == two.key
    assert one.metrics()["notes"] == two.metrics()["notes"]
    before = RunStore(tmp_path / "one").one(method="pretrained").weights()
    assert distance(one.weights(), two.weights()) <= 1e-3 * max(distance(one.weights(), before), 1e-6)
    for name, entry in one.metrics()["accuracy"].items():
        assert abs(entry["after"] - two.metrics()["accuracy"][name]["after"]) < 0.01
