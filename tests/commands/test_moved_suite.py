"""Results on a user's suite whose file has moved: what still works, what is said, and how the file is given again."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

import rib
from rib.analysis import analyze
from rib.config.command_schema import CKAConfig, EvaluateConfig
from rib.config.composition import compose_command
from rib.config.slips import tidy
from rib.errors import RibError
from rib.runs.run import Run
from rib.sweeps.rescore import evaluate as score_again
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


def evaluate(*arguments: str) -> list[Run]:
    """Score as the command does, in this process."""
    words = tidy("evaluate", arguments)
    config = compose_command("evaluate", EvaluateConfig, words)
    return score_again(replace(config, given=[word.partition("=")[0] for word in words]))


def test_results_explain_themselves_without_the_file(moved):
    run, folder = moved
    assert run.metrics["suite"] == run.metrics["data"]["kind"] == "photos"
    assert rib.load(run.key, runs=folder / "runs").before is not None
    assert len(rib.find_runs(suite=folder / "new" / "photos.yaml", runs=folder / "runs")) == 2
    assert "Sketch" in str(run)


def test_scoring_and_analysing_ask_for_the_file_and_take_it(moved):
    run, folder = moved
    told = f"the file of the suite photos, {folder}/old/photos.yaml, is gone; give suite=FILE, where it is now"
    runs, file = f"runs={run.folder}", f"suite={folder}/new/photos.yaml"
    with pytest.raises(RibError, match=re.escape(told)):
        evaluate(runs)
    (again,) = evaluate(runs, file, "suite.targets=[photo]", "trainer=cpu", f"paths.runs={folder}/runs")
    assert again.metrics("photos*")["protocol"]["targets"] == ["photo"]
    with pytest.raises(RibError, match=re.escape(told)):
        analyze(compose_command("analyze", CKAConfig, [f"run={run.folder}"]))
    about = compose_command("analyze", CKAConfig, [f"run={run.folder}", file, "images=20", "device=cpu"])
    assert analyze(about).is_file()


def test_the_wrong_file_is_refused(moved, toy):
    run, folder = moved
    other = make_photo_suite(folder / "other", domains=("photo", "sketch"), classes=3, per_class=1, name="others")
    with pytest.raises(RibError, match="expected the suite of the run, the suite photos, got the suite others"):
        evaluate(f"runs={run.folder}", f"suite={other}")
    with pytest.raises(RibError, match=r"expected the suite of the run, toy data \(mini\), got the suite others"):
        evaluate(f"runs={toy.ewc.folder}", f"suite={other}")


def test_any_module_is_scored_on_it(moved):
    run, folder = moved
    score = rib.score(run.model().model, before=run.before, suite=folder / "new" / "photos.yaml", source="sketch")
    assert score.ri == run.ri
    with pytest.raises(RibError, match="there is no folder"):
        rib.score(run.model().model, suite=folder / "old" / "photos.yaml")
