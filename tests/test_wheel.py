"""The wheel: built here, installed elsewhere, run from an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from rib.schemas import TYPES

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


def test_it_holds_the_configs_and_the_mini_weights(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {f"rib/{p.relative_to(ROOT).as_posix()}" for p in (ROOT / "conf").rglob("*.yaml")}
    assert configs <= names
    assert "rib/conf/train.yaml" in names
    for model in ("tiny", "small", "medium", "large"):
        assert f"rib/models/mini_weights/mini_{model}.safetensors" in names
    # A .gitignore without a leading slash before runs/ would leave the package rib/runs out.
    assert {p.relative_to(ROOT).as_posix() for p in (ROOT / "rib").rglob("*.py")} <= names
    assert "rib/py.typed" in names
    assert {f"rib/schemas/{kind}.json" for kind in TYPES} <= names


@pytest.mark.slow
def test_it_runs_from_an_empty_folder(wheel, tmp_path, cache):
    site = tmp_path / "site"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
        str(wheel),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(site), "RIB_CACHE": str(cache)}
    code = "import rib; print(rib.__file__)"
    where = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=empty, env=environment)
    assert where.stdout.startswith(str(site))
    arguments = ["model=mini_tiny", "epochs=1", "data.images_per_class=2", "data.limit=40", "trainer=cpu"]
    done = subprocess.run(
        [sys.executable, str(site / "bin" / "rib-train"), *arguments],
        capture_output=True,
        text=True,
        cwd=empty,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.splitlines()[-1])
    assert folder.is_relative_to(empty / "runs")
    assert (folder / "metrics.json").is_file()
    assert {p.name for p in empty.iterdir()} == {"runs"}
