"""Progress lines: each unit counted once, also after resuming from a checkpoint."""

from __future__ import annotations

import itertools
import json
from contextlib import contextmanager

import pytest

from rib.runtime import progress
from rib.scoring import one_pass
from rib.training import callbacks
from rib.training.callbacks import TrainingProgress
from tests.training.test_resume import BATCHES, ENDS, EPOCHS, LASTS, STARTS, fit, tree

__all__ = ["tree"]


@pytest.fixture
def bars(monkeypatch):
    """Each bar that is shown: where it begins, its total, and its steps."""
    shown = []

    @contextmanager
    def bar(what, total, unit="images", begun_at=0):
        shown.append({"begun_at": begun_at, "total": total, "advances": []})
        yield lambda done, note: shown[-1]["advances"].append(done)

    monkeypatch.setattr(callbacks, "progress", bar)
    return shown


@pytest.mark.parametrize(
    ("accumulate", "stop_after", "total"), [(1, None, 9), (2, None, 9), (2, 3, 5), (2, 4, 6), (1, 4, 4)]
)
def test_a_resumed_fit_counts_every_batch_once(tree, tmp_path, bars, accumulate, stop_after, total):
    assert (BATCHES, EPOCHS) == (3, 3)
    for number, death in enumerate([None, *STARTS, *LASTS, *ENDS]):
        bars.clear()
        file = tmp_path / f"{number}.ckpt"
        for attempt in (death, None) if death else (None,):
            fit(tree, file, attempt, accumulate, stop_after=stop_after, shown=[TrainingProgress("toy")])
        assert {bar["total"] for bar in bars} == {total}
        assert all(set(bar["advances"]) <= {1} for bar in bars)
        places = [bar["begun_at"] + len(bar["advances"]) for bar in bars]
        assert max(places) == total, (death, bars)
        assert all(place <= total for place in places)
        if death in ENDS and len(bars) == 2:  # saved at an epoch's end: it goes on with the next
            assert bars[1]["begun_at"] == bars[0]["begun_at"] + len(bars[0]["advances"])


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when they are told to."""
    ticks = itertools.count()
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(ticks)))
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 1000.0)


def test_the_rate_is_of_what_was_done_since(clock, capsys, tmp_path):
    advance = progress._line_printer("toy", 480, "batches", 470)
    for _ in range(10):
        advance(1, "")
    assert capsys.readouterr().err == "toy: 480/480 batches, 60/min\n"
    advance = progress._json_reporter(tmp_path / "progress.json", "toy", 480, "batches", 470)
    for _ in range(5):
        advance(1, "")
    facts = json.loads((tmp_path / "progress.json").read_text())
    assert (facts["done"], facts["total"], facts["rate"], facts["seconds_left"]) == (475, 480, 1.0, 5.0)


def test_a_total_that_was_too_low_prints_no_line_for_each_step_beyond(clock, capsys):
    advance = progress._line_printer("toy", 3, "batches")
    for _ in range(20):
        advance(1, "")
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(("images", "world", "share"), [(5, 2, [2, 1]), (5, 4, [2]), (6, 3, [1, 1])])
def test_processes_that_score_together_count_every_image_once(images, world, share):
    told = []
    advance = one_pass._scale_progress(lambda done, note: told.append(done), images, world)
    for done in share:  # rank zero's, which has the image more
        advance(done, "")
    assert sum(told) == images
