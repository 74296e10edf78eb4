"""Multiruns: one table of all jobs, a sentence for each failed one; several processes; a cluster's queue."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.utils import setup_globals
from hydra.utils import instantiate
from lightning.pytorch import Trainer

from rib.config.shipped import conf_dir
from rib.errors import RibError
from rib.models.weights import distance
from rib.reporting.formatting import points
from rib.runs.resolve import resolve
from rib.runs.run import Run
from rib.runs.store import RunStore
from rib.runtime.console import rank
from rib.runtime.processes import launch_processes, trainer_plugins

SHORT = ("model=mini_small", "epochs=1", "data.images_per_class=4", "suite.targets=[imagenet_a,imagenet_r]")
TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
LOCAL = ("hydra/launcher=submitit_local", "hydra.launcher.timeout_min=600")


def sweep(store: Path, cache: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "rib.train", "-m", f"paths.runs={store}", f"paths.cache={cache}", "data.root=null"]
    return subprocess.run([*line, *overrides], capture_output=True, text=True, timeout=500)


def jobs(store: Path) -> list[dict]:
    """The records of the last sweep."""
    last = max((store / "multirun").glob("*/*"))
    return [json.loads(file.read_text()) for file in sorted(last.glob("job.*.json"))]


def same_weights(one: Run, other: Run) -> bool:
    mine, others = one.weights(), other.weights()
    return all(torch.equal(mine[name], others[name]) for name in mine)


@pytest.mark.slow
def test_every_failed_job_has_its_sentence_and_finished_ones_are_kept(store, cache):
    command = (*SHORT, "trainer=cpu", "optimizer.lr=1e-3,-1,x")
    done = sweep(store, cache, *command)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("rib: 2 of 3 jobs failed")
    assert "Traceback" not in done.stderr
    *_, head, rule, first, second, third, note, cost, why, why_else = done.stdout.splitlines()
    assert set(rule) == {"─"} and head.startswith("job  ") and "95 % intervals" in note
    assert cost.startswith("All runs: ") and "images trained" in cost
    run = RunStore(store).one(method="finetune")
    assert first.startswith("1  ") and first.endswith(f"  {run.folder}")
    assert f"  {points(run.metrics()['robustness_improvement']['value'])} [" in first
    assert second.startswith("2  ") and second.endswith("failed") and third.startswith("3  ")
    assert why.startswith("2  ") and "expected a number of 0 or more, got -1" in why
    assert why_else.startswith("3  ") and "optimizer.lr: expected a number" in why_else
    assert "mini R" in first and "toy data (mini)" in done.stdout
    made = (run.folder / "metrics.json").stat().st_mtime_ns
    again = sweep(store, cache, *SHORT, "trainer=cpu", "optimizer.lr=1e-3")
    assert again.returncode == 0, again.stderr
    assert (run.folder / "metrics.json").stat().st_mtime_ns == made
    assert [job["folder"] for job in jobs(store)] == [str(run.folder)]


def test_a_launcher_for_slurm_takes_its_resources_from_the_trainer():
    setup_globals()
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        overrides = ["hydra/launcher=slurm", "trainer=ddp", "trainer.devices=4", "trainer.num_nodes=2"]
        cfg = compose("train", overrides, return_hydra_config=True)
    node = cfg.hydra.launcher
    assert (node.nodes, node.tasks_per_node, node.gpus_per_node) == (2, 4, 4)
    with_folder = {**node, "submitit_folder": "logs"}
    assert instantiate(with_folder).params["max_num_timeout"] == 20


@pytest.mark.parametrize(
    ("variables", "number"),
    [
        ({}, 0),
        ({"RANK": "3", "LOCAL_RANK": "0"}, 3),  # torchrun, second node
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, 1),  # Lightning's own processes on a second node
        ({"LOCAL_RANK": "1", "NODE_RANK": "0"}, 1),
        ({"LOCAL_RANK": "1", "SLURM_PROCID": "0"}, 1),  # Lightning's own processes in an interactive SLURM shell
        ({"SLURM_PROCID": "2"}, 2),
    ],
)
def test_one_process_alone_writes(monkeypatch, variables, number):
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert rank() == number


SRUN = {"SLURM_JOB_ID": "4321", "SLURM_NODELIST": "127.0.0.1", "SLURM_NNODES": "1", "SLURM_NODEID": "0"}


def srun(monkeypatch: pytest.MonkeyPatch, tasks: int, task: int) -> None:
    of_tasks = {"SLURM_NTASKS": tasks, "SLURM_NTASKS_PER_NODE": tasks, "SLURM_PROCID": task, "SLURM_LOCALID": task}
    for name, value in {**SRUN, **of_tasks}.items():
        monkeypatch.setenv(name, str(value))


def test_processes_that_nobody_asked_for_are_refused_with_both_numbers(monkeypatch, ask_for):
    srun(monkeypatch, tasks=4, task=1)
    with pytest.raises(RibError, match=r"expected 1 processes .*, got 4"):
        launch_processes(ask_for())


def test_a_gpu_that_is_missing_is_answered_with_what_to_do(monkeypatch, ask_for):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    with pytest.raises(RibError, match=r"^trainer: .*no GPU that torch can use: leave trainer= out.*CUDA build"):
        launch_processes(ask_for("trainer=gpu"))


def test_under_slurm_lightning_saves_and_requeues_nothing_within_a_step(monkeypatch):
    assert trainer_plugins() == []
    srun(monkeypatch, tasks=1, task=0)
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, plugins=trainer_plugins())
    assert trainer._accelerator_connector.cluster_environment.auto_requeue is False


def test_fsdp_takes_plain_fine_tuning_alone(ask_for):
    with pytest.raises(RibError, match=r"trainer=fsdp: expected plain fine-tuning, got \+method=ewc"):
        resolve(ask_for("trainer=fsdp", "+method=ewc"))
    # Its sums and its mixed precision round in their own way.
    assert resolve(ask_for("trainer=fsdp")).training_key != resolve(ask_for("trainer=cpu")).training_key


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_jobs_of_two_processes(tmp_path, cache):
    store = tmp_path / "two"
    done = sweep(store, cache, *SHORT, *TWO, "+method=finetune,ewc", "batch_size=64,63")
    assert done.returncode == 1, done.stderr
    records = jobs(store)
    assert [record["method"] for record in records] == ["finetune", "finetune", "ewc", "ewc"]
    shared = "batch_size: expected a batch size that 2 processes can share evenly, got 63"
    assert [record.get("error") for record in records] == [None, shared, None, shared]
    assert len(list((store / "multirun").glob("*/*"))) == 1, "rank 1 began a sweep of its own"
    assert list((store / "claims").iterdir()) == []
    assert sweep(tmp_path / "one", cache, *SHORT, "trainer=cpu", "+method=finetune,ewc").returncode == 0
    before = RunStore(store).one(method="pretrained").weights()
    for method in ("finetune", "ewc"):
        one, two = (RunStore(tmp_path / name).one(method=method) for name in ("one", "two"))
        assert one.key == two.key
        assert distance(one.weights(), two.weights()) < 1e-3 * distance(one.weights(), before)
    again = sweep(store, cache, *SHORT, *TWO, "+method=finetune,ewc")
    assert again.returncode == 0, again.stderr
    assert [record["folder"] for record in jobs(store)] == [records[0]["folder"], records[2]["folder"]]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_rank_ends_its_job_alone(store, cache):
    line = [sys.executable, "-m", "rib.train", "-m", f"paths.runs={store}", f"paths.cache={cache}", "data.root=null"]
    more = [*SHORT, *TWO, "+method=finetune", "epochs=500,1"]
    parent = subprocess.Popen([*line, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(parent, lambda: list(store.glob("*/*/*/finetune/*/last.ckpt")))
    (first,) = children(parent.pid)
    (second,) = children(first)
    os.kill(second, signal.SIGKILL)
    out, err = parent.communicate(timeout=400)
    assert parent.returncode == 1, err
    assert err.splitlines()[-1].startswith("rib: 1 of 2 jobs failed")
    killed, fine = jobs(store)
    assert killed["error"].startswith(("its process was killed", "RuntimeError")), killed
    assert killed["error"] in out
    assert "folder" in fine, fine


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_jobs_elsewhere_fail_with_their_sentence(store, cache):
    done = sweep(store, cache, *SHORT, "trainer=cpu", *LOCAL, "+method=finetune,ewc", "optimizer.lr=1e-3,-1")
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith("rib: 2 of 4 jobs failed")
    assert done.stdout.count("expected a number of 0 or more, got -1") == 2
    assert all(str(run.folder) in done.stdout for run in RunStore(store).finished(source="imagenet_r"))
    assert len(RunStore(store).finished(source="imagenet_r")) == 2


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGUSR2])  # SLURM's warning; SIGTERM ends a run in the same way
def test_a_preempted_job_goes_on_from_its_checkpoint_to_the_same_weights(tmp_path, cache, number):
    command = ("model=mini_small", "+method=ewc", "epochs=6", "batch_size=16", "checkpoint.every_minutes=0.001")
    command = (*command, "trainer=cpu", "suite.targets=[imagenet_a,imagenet_r]")
    assert sweep(tmp_path / "undisturbed", cache, *command).returncode == 0
    store = tmp_path / "preempted"
    line = [sys.executable, "-m", "rib.train", "-m", f"paths.runs={store}", f"paths.cache={cache}", "data.root=null"]
    parent = subprocess.Popen([*line, *LOCAL, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(parent, lambda: list(store.glob("*/*/*/ewc/*/last.ckpt")))
    (controller,) = children(parent.pid)
    (job,) = children(controller)
    os.kill(job, number)
    _, err = parent.communicate(timeout=400)
    assert parent.returncode == 0, err
    logs = "".join(file.read_text() for file in store.glob("multirun/*/*/.submitit/*/*_log.*"))
    assert "resuming at" in logs
    one, other = (RunStore(folder).one(method="ewc") for folder in (tmp_path / "undisturbed", store))
    assert same_weights(one, other)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("launcher", ["torchrun, two nodes", "srun, two tasks"])
def test_processes_started_by_others_train_and_score_as_one_does(tmp_path, cache, launcher):
    arguments = (f"paths.cache={cache}", "data.root=null", *SHORT, "+method=ewc")
    alone = [sys.executable, "-m", "rib.train", *arguments, f"paths.runs={tmp_path}/one", "trainer=cpu"]
    assert subprocess.run(alone, capture_output=True, timeout=200).returncode == 0
    shared = ["rib.train", *arguments, f"paths.runs={tmp_path}/two", "trainer=ddp", "trainer.accelerator=cpu"]
    nodes = "nodes" in launcher
    shared += ["trainer.devices=1", "trainer.num_nodes=2"] if nodes else ["trainer.devices=2"]
    port = str(free_port())
    processes = []
    for number in (0, 1):
        torchrun = ["torch.distributed.run", "--nnodes=2", f"--node-rank={number}", "--master-addr=127.0.0.1"]
        command = ["-m", *torchrun, f"--master-port={port}", "-m", *shared] if nodes else ["-m", *shared]
        tasks = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "MASTER_PORT": port}
        slurm = {**SRUN, **tasks, "SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)}
        environment = os.environ if nodes else {**os.environ, **slurm}
        processes.append(
            subprocess.Popen([sys.executable, *command], env=environment, stderr=subprocess.PIPE, text=True)
        )
    errors = [process.communicate(timeout=400)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    one, two = (RunStore(tmp_path / name) for name in ("one", "two"))
    before, same = one.one(method="pretrained"), two.one(method="pretrained")
    for dataset in ("imagenet_a", "imagenet_r", "imagenet_val"):
        mine, others = before.predictions(dataset), same.predictions(dataset)
        assert np.array_equal(mine.top5[:, 0], others.top5[:, 0])
        assert np.allclose(mine.log_prob, others.log_prob, atol=1e-4)
    trained, also = one.one(method="ewc"), two.one(method="ewc")
    assert trained.key == also.key
    assert distance(trained.weights(), also.weights()) < 1e-3 * distance(trained.weights(), before.weights())


def children(process: int) -> list[int]:
    """Processes that a process started, of those that run Python."""
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(child) for child in found]


def wait_for(parent: subprocess.Popen[str], condition: Callable[[], object]) -> None:
    while not condition():
        assert parent.poll() is None, parent.communicate()[1]
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
