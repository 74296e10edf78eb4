"""Running from a checkout: works if dependencies are installed, else one sentence names the missing ones."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import rib
from rib.runtime import environment, requirements

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def test_every_dependency_is_looked_for():
    assert set(requirements.REQUIRED) == {re.split(r"[<>=]", line)[0] for line in PROJECT["dependencies"]}
    assert PROJECT["requires-python"] == ">=" + ".".join(map(str, requirements.PYTHON))
    assert PROJECT["version"] == rib.__version__
    requirements.check()


def test_only_what_is_absent_is_named(monkeypatch):
    monkeypatch.setattr(requirements, "find_spec", lambda name: None if name in ("hydra", "PIL") else name)
    with pytest.raises(SystemExit, match=r"has no hydra-core, pillow, which rib needs; run `make .venv/.installed`"):
        requirements.check()
    monkeypatch.setattr(requirements, "PYTHON", (99, 0))
    with pytest.raises(SystemExit, match=r"expected Python 99.0 or later, this is "):
        requirements.check()


@pytest.mark.parametrize("module", ["rib.train", "rib.report", "rib.data"])
def test_without_its_dependencies_a_command_is_one_sentence(module):
    line = [sys.executable, "-S", "-m", module]  # no site-packages
    done = subprocess.run(
        line, capture_output=True, text=True, env={"PYTHONPATH": str(REPOSITORY)}, cwd=REPOSITORY, timeout=60
    )
    assert done.returncode == 1
    assert re.fullmatch(r"rib: .* has no torch, .*scipy, which rib needs; run .*\n", done.stderr)


def test_a_checkout_that_is_not_installed_says_what_it_is(monkeypatch, tmp_path):
    def not_installed(name: str) -> str:
        if name in ("rib", "timm"):
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.2.3"

    monkeypatch.setattr(environment, "version", not_installed)
    versions = environment.environment()["versions"]
    assert versions["rib"] == f"{rib.__version__} (checkout)"
    assert (versions["timm"], versions["lightning"]) == ("unknown", "1.2.3")
    (tmp_path / "conf").mkdir()
    monkeypatch.setattr(environment, "PACKAGE", tmp_path)
    assert environment.environment()["versions"]["rib"] == rib.__version__
