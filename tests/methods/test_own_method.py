"""A user's own method, exactly as the documentation shows it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rib.runs.run import Run

PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "method.md"


@pytest.mark.slow
def test_the_documented_method_runs(tmp_path, cache):
    text = PAGE.read_text().split("## An example")[1].split("\n## ")[0]
    code, command = re.findall(r"```(?:python|bash)\n(.*?)```", text, re.DOTALL)
    (tmp_path / "mine" / "method").mkdir(parents=True)
    yaml = re.search(r"`(l1sp: \{.*?\})`", text)[1]
    (tmp_path / "mine" / "method" / "l1sp.yaml").write_text(yaml)
    assert code.count("\n") < 30
    (tmp_path / "my_methods.py").write_text(code)
    quick = f"model=mini_tiny epochs=1 data.images_per_class=2 data.limit=40 paths.cache={cache} data.root=null"
    line = [sys.executable, *command.split()[1:], *quick.split(), "trainer=cpu"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    metrics = Run(Path(done.stdout.splitlines()[-1])).metrics()
    assert metrics["method"] == "l1sp"
    assert metrics["options"]["method.l1sp.strength"] == 0.001
    wrong = [*line, "+method.l1sp.strenth=2"]
    done = subprocess.run(wrong, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120)
    assert done.returncode == 1
    assert "method.l1sp.strenth: there is no such option; did you mean method.l1sp.strength?" in done.stderr
    # A yaml of one's own on the search path, stacked with a method that is made from the run.
    own = ["+method=[l1sp,wise_ft]", f"hydra.searchpath=[file://{tmp_path}/mine]"]
    line = [*line[:3], *own, *quick.split(), "trainer=cpu"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    stacked = Run(Path(done.stdout.splitlines()[-1])).metrics()
    assert stacked["method"] == "l1sp+wise_ft"
    assert stacked["ingredients"][0]["fingerprint"] == metrics["fingerprint"]
