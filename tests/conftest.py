"""Fixtures shared by all tests: one cache of mini's images, the gloo pool, and a run store per test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Before torch is imported: waiting as in rib.config.launch, and a thread a process, since tests run in two processes.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The width of tables in a pipe; a shell may export that of its own terminal.
os.environ.pop("COLUMNS", None)
os.unsetenv("COLUMNS")  # readline, which pytest imports, sets it for child processes behind os.environ's back

import pytest

from rib.config import compose
from rib.config.schema import Config
from tests.support.gloo import gloo_pool
from tests.support.schemas import check_files
from tests.support.toy_store import ToyStore, make_toy_store

__all__ = ["gloo_pool"]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the built-in data, drawn once per machine, since its pixels never change."""
    given = os.environ.get("RIB_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "rib"


@pytest.fixture(scope="module", autouse=True)
def _files_are_as_their_schemas_say(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Validate every metrics.json, and JSON of other known kinds, that a module's tests leave, subprocesses too."""
    base = tmp_path_factory.getbasetemp()
    before = set(base.iterdir())
    yield
    check_files(set(base.iterdir()) - before)


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> ToyStore:
    """A store with small runs for tests that only read it."""
    return make_toy_store(tmp_path_factory.mktemp("toy") / "runs", cache)


@pytest.fixture
def no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """No lines of progress on stderr, which a busy machine would mix with what a test counts."""
    monkeypatch.setenv("RIB_PROGRESS", "off")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def ask_for(store: Path, cache: Path):
    """A config as the command line would give it, on the CPU and in this test's own store."""

    def make(*overrides: str) -> Config:
        here = (f"paths.runs={store}", f"paths.cache={cache}", "trainer=cpu", "data.root=null")
        return compose(*here, "figures.format=png", *overrides)  # a PDF of each would take as long as a small run

    return make
