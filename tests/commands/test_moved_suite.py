"""Results on a user's suite whose file has moved: what still works, what is said, and how the file is given again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import rib
from rib.errors import RibError
from tests.support.suites import make_photo_suite

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def moved(tmp_path_factory, cache):
    """A run on a suite, made with the file in ``old``, and the folder that holds it now."""
    folder = tmp_path_factory.mktemp("moved")
    file = make_photo_suite(folder / "old", domains=("photo", "sketch"), classes=3, per_class=10)
    more = {"epochs": 1, "head": {"kind": "probe", "l2": [0.01]}, "trainer": "cpu", "figures.format": "png"}
    paths = {"runs": folder / "runs", "paths.cache": cache}
    run = rib.finetune(model="mini_tiny", suite=file, dataset="sketch", **more, **paths)
    (folder / "old").rename(folder / "new")
    return run, folder


def command(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"rib.{name}", *arguments], capture_output=True, text=True, timeout=120
    )


def test_results_explain_themselves_without_the_file(moved):
    run, folder = moved
    assert run.metrics["suite"] == run.metrics["data"]["kind"] == "photos"
    assert rib.load(run.key, runs=folder / "runs").before is not None
    assert len(rib.find_runs(suite=folder / "new" / "photos.yaml", runs=folder / "runs")) == 2
    assert "Sketch" in str(run)


def test_scoring_and_analysing_ask_for_the_file_and_take_it(moved):
    run, folder = moved
    told = f"the file of the suite photos, {folder}/old/photos.yaml, is gone; give suite=FILE, where it is now"
    file = f"suite={folder}/new/photos.yaml"
    for name, *arguments in (("evaluate", f"runs={run.folder}"), ("analyze", f"run={run.folder}", "images=20")):
        refused = command(name, *arguments)
        assert refused.returncode == 1 and told in refused.stderr
        done = command(name, *arguments, file, f"paths.runs={folder}/runs")
        assert done.returncode == 0, done.stderr
        assert Path(done.stdout.splitlines()[-1]).exists()


def test_the_wrong_file_is_refused(moved, toy):
    run, folder = moved
    other = make_photo_suite(folder / "other", domains=("photo", "sketch"), classes=3, per_class=1, name="others")
    refused = command("evaluate", f"runs={run.folder}", f"suite={other}")
    assert "expected the suite of the run, the suite photos, got the suite others" in refused.stderr
    refused = command("analyze", f"run={toy.ewc.folder}", f"suite={other}")
    assert "leave data.root out" in refused.stderr or "expected the suite of the run, toy data" in refused.stderr


def test_any_module_is_scored_on_it(moved):
    run, folder = moved
    score = rib.score(run.model().model, before=run.before, suite=folder / "new" / "photos.yaml", source="sketch")
    assert score.ri == run.ri
    with pytest.raises(RibError, match="there is no folder"):
        rib.score(run.model().model, suite=folder / "old" / "photos.yaml")
