from __future__ import annotations

import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from rib.pipeline import finetune
from rib.runtime import memory


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_glibc_takes_the_settings_and_no_number_changes():
    code = """
import torch
from rib.runtime import memory
def passes():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LazyLinear(10))
    loss = net(torch.randn(8, 3, 96, 96)).square().mean()
    loss.backward()
    return [loss, *(p.grad for p in net.parameters())]
before = passes()
memory.available_memory = lambda: 10**12
assert memory.keep_memory()
assert all(map(torch.equal, before, passes()))
with memory.training_memory():
    assert all(map(torch.equal, before, passes()))
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=60).returncode == 0


@pytest.mark.slow
def test_it_has_a_switch_that_is_in_no_key(ask_for, tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr("rib.runtime.processes.keep_memory", lambda processes: called.append(True))
    quick = ("model=mini_tiny", "epochs=1", "data.images_per_class=1", "data.limit=30")
    kept = finetune(ask_for(*quick))
    assert called
    called.clear()
    plain = finetune(ask_for(*quick, "keep_memory=false", f"paths.runs={tmp_path / 'plain'}"))
    assert not called
    assert kept.key == plain.key


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_none_is_kept_where_memory_is_short_and_that_is_said_once(monkeypatch, capsys):
    monkeypatch.setattr(memory, "available_memory", lambda: 12 * 10**9)
    monkeypatch.setattr("ctypes.CDLL", lambda _: pytest.fail("malloc's settings were changed"))
    assert not memory.keep_memory(processes=2)
    assert not memory.keep_memory(processes=2)
    assert capsys.readouterr().err.count("only 6.0 GB of memory free: freed memory is returned at once") == 1


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_kept_memory_goes_back_when_it_is_released():
    code = """
import psutil
import torch
from rib.runtime import memory
memory.available_memory = lambda: 10**12
assert memory.keep_memory()
blocks = [torch.zeros(2**22) for _ in range(16)]  # 256 MiB
in_use = psutil.Process().memory_info().rss
last = torch.zeros(2**22)  # holds the end of the heap
del blocks
kept = psutil.Process().memory_info().rss
memory.release_memory()
released = psutil.Process().memory_info().rss
assert kept > in_use - 2**27, (in_use, kept)
assert released < in_use - 2**27, (in_use, released)
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=60).returncode == 0


@pytest.mark.parametrize("keeping", [True, False])
def test_training_keeps_less_where_memory_is_kept(monkeypatch, keeping):
    settings = []
    library = SimpleNamespace(mallopt=lambda number, value: settings.append((number, value)) or 1)
    monkeypatch.setattr("ctypes.CDLL", lambda _: library)
    monkeypatch.setattr(memory, "_keeping", keeping)
    with memory.training_memory():
        assert settings == ([(memory.M_MMAP_MAX, memory.APART)] if keeping else [])
    assert settings[1:] == ([(memory.M_MMAP_MAX, 0)] if keeping else [])
