from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from rib.pipeline import finetune


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_glibc_takes_the_settings_and_no_number_changes():
    code = """
import torch
from rib.runtime.memory import keep_memory
def passes():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LazyLinear(10))
    loss = net(torch.randn(8, 3, 96, 96)).square().mean()
    loss.backward()
    return [loss, *(p.grad for p in net.parameters())]
before = passes()
assert keep_memory()
assert all(map(torch.equal, before, passes()))
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=60).returncode == 0


@pytest.mark.slow
def test_it_has_a_switch_that_is_in_no_key(ask_for, tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr("rib.runtime.processes.keep_memory", lambda: called.append(True))
    quick = ("model=mini_tiny", "epochs=1", "data.images_per_class=1", "data.limit=30")
    kept = finetune(ask_for(*quick))
    assert called
    called.clear()
    plain = finetune(ask_for(*quick, "keep_memory=false", f"paths.runs={tmp_path / 'plain'}"))
    assert not called
    assert kept.key == plain.key
