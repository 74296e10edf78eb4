"""A process alone needs no Lightning to score, and is what Lightning's Fabric would be."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from lightning.fabric import Fabric

from rib.runtime import one_process as module
from rib.runtime.one_process import OneProcess, one_process

ONE = {"devices": 1, "num_nodes": 1, "strategy": "auto"}


@pytest.mark.parametrize("accelerator", ["cpu", "auto"])
def test_one_process_answers_as_fabric_does(accelerator):
    mine, fabric = one_process({"accelerator": accelerator, **ONE}), Fabric(accelerator=accelerator, **ONE)
    fabric.launch()
    assert mine is not None
    for name in ("device", "world_size", "global_rank", "is_global_zero"):
        assert getattr(mine, name) == getattr(fabric, name), name
    given, tensor = {"runs": [1]}, torch.arange(6.0).view(2, 3)
    assert mine.broadcast(given) == fabric.broadcast(given) == given
    assert torch.equal(mine.all_gather(tensor), fabric.all_gather(tensor))


@pytest.mark.parametrize(
    "option",
    [{"devices": 2}, {"devices": -1}, {"devices": [1]}, {"num_nodes": 2}, {"strategy": "ddp"}, {"accelerator": "tpu"}],
    ids=str,
)
def test_all_else_is_left_to_lightning(option):
    assert one_process({"accelerator": "cpu", **ONE, **option}) is None


def test_the_first_gpu_is_taken_if_there_is_one(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert one_process({"accelerator": "gpu", **ONE}) is None  # Lightning says what is missing
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    gpu = torch.device("cuda", 0)
    assert [one_process({"accelerator": name, **ONE}) for name in ("auto", "gpu", "cuda")] == [OneProcess(gpu)] * 3
    assert chosen == [gpu] * 3
    monkeypatch.setattr(module, "find_spec", lambda name: object())  # torch_xla: Lightning prefers a TPU
    assert one_process({"accelerator": "auto", **ONE}) is None


SCORE = """
import sys
from rib.config import compose
from rib.pipeline import finetune

options = ("+method=pretrained", "model=mini_tiny", "suite.targets=[imagenet_a]", "data.limit=10", "data.root=null")
assert finetune(compose(*options, "trainer=cpu", "figures.format=png", *sys.argv[1:])).metrics()["accuracy"]
sys.exit(", ".join({"lightning", "torchmetrics", "transformers"} & sys.modules.keys()) or 0)
"""


@pytest.mark.slow
def test_scoring_a_pretrained_model_imports_no_lightning(tmp_path, cache):
    options = (f"paths.runs={tmp_path}", f"paths.cache={cache}")
    done = subprocess.run([sys.executable, "-c", SCORE, *options], timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
