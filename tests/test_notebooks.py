"""Notebooks: each equals its executed script, and can be executed again."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
import pytest

from tests.support.notebooks import HERE, NAMES


def outputs(notebook):
    return [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]


def pictures(notebook) -> int:
    return sum("image/png" in out.get("data", {}) for out in outputs(notebook))


def test_there_are_five():
    assert NAMES == ["first_run", "inside_the_model", "the_paper_on_mini", "your_own_domains", "your_own_trainer"]
    assert sorted(file.stem for file in HERE.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_its_script_executed(name):
    script, notebook = jupytext.read(HERE / f"{name}.py"), nbformat.read(HERE / f"{name}.ipynb", as_version=4)
    cells = [[(cell.cell_type, cell.source) for cell in one.cells] for one in (script, notebook)]
    assert cells[0] == cells[1], f"make notebooks executes {name}.py again"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not any(out.output_type == "error" for out in outputs(notebook))
    assert pictures(notebook) >= 2
    assert notebook.metadata.jupytext.formats == "ipynb,py:percent"


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_small_and_holds_no_path_of_a_machine(name):
    file = HERE / f"{name}.ipynb"
    assert file.stat().st_size < 400_000
    places = (Path.home(), HERE.parent, Path(tempfile.gettempdir()))
    assert not [place for place in places if f"{place}/" in file.read_text()]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_from_nothing_and_shows_as_many_pictures(name, tmp_path, monkeypatch, cache):
    monkeypatch.setenv("RIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("RIB_CACHE", str(cache))
    command = [sys.executable, "-m", "tests.support.notebooks", str(tmp_path), name]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made, committed = (nbformat.read(folder / f"{name}.ipynb", as_version=4) for folder in (tmp_path, HERE))
    assert pictures(made) == pictures(committed)
    assert not any(out.output_type == "error" for out in outputs(made))
