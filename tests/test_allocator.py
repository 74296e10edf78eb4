from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from rib.pipeline import finetune


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_glibc_takes_the_settings():
    code = "import sys; from rib.allocator import keep_memory; sys.exit(not keep_memory())"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_it_changes_no_number_and_has_a_switch(ask_for, tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr("rib.machine.keep_memory", lambda: called.append(True))
    quick = ("model=mini_tiny", "epochs=1", "data.images_per_class=1", "data.limit=30")
    kept = finetune(ask_for(*quick))
    assert called
    called.clear()
    plain = finetune(ask_for(*quick, "keep_memory=false", f"paths.runs={tmp_path / 'plain'}"))
    assert not called
    assert kept.key == plain.key
