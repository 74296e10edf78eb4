"""Multiruns: one table of all jobs, each failed one with its sentence; several processes; the queue of a cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.utils import setup_globals
from hydra.utils import instantiate

from rib.config import conf_dir
from rib.store import Run, RunStore
from rib.weights import distance

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


def test_every_failed_job_has_its_sentence_and_finished_ones_are_kept(store, cache):
    done = sweep(store, cache, *SHORT, "trainer=cpu", "+method=pretrained,finetune", "seed=0,-1,x")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("rib: 4 of 6 jobs failed")
    assert "Traceback" not in done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("│")]
    assert [row.split("│")[1].strip() for row in rows] == list("012345")
    assert [("seed" in row.split("│")[8], "integer" in row.split("│")[8]) for row in rows[1:3]] == [(True, False), (True, True)]


def test_a_launcher_for_slurm_takes_its_resources_from_the_trainer():
    setup_globals()
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        overrides = ["hydra/launcher=slurm", "trainer=ddp", "trainer.devices=4", "trainer.num_nodes=2"]
        cfg = compose("train", overrides, return_hydra_config=True)
    node = cfg.hydra.launcher
    assert (node.nodes, node.tasks_per_node, node.gpus_per_node) == (2, 4, 4)
    with_folder = {**node, "submitit_folder": "logs"}
    assert instantiate(with_folder).params["max_num_timeout"] == 20
