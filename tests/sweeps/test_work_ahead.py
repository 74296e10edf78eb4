"""Expected time of a grid: start-up, dependencies, cells in parallel; and what is left while it runs."""

from __future__ import annotations

import pytest

from rib.sweeps import work_ahead
from rib.sweeps.work_ahead import (
    USUAL,
    USUAL_WORK,
    StartUp,
    WorkAhead,
    busy_words,
    makespan,
    read_start_up,
    start_up_file,
    usual_start_up,
    write_start_up,
)


@pytest.mark.parametrize(("jobs", "seconds"), [(1, 40.0), (2, 25.0), (3, 20.0), (9, 20.0)])
def test_cells_wait_for_what_they_need(jobs, seconds):
    cells = {"start": (10.0, ()), **dict.fromkeys("ab", (10.0, ("start", "made before"))), "c": (10.0, ("start",))}
    if jobs == 2:
        cells["c"] = (5.0, ("a",))
    assert makespan(cells, jobs) == seconds


def test_a_cell_whose_need_cannot_be_made_takes_no_time():
    assert makespan({"a": (3.0, ("b",)), "b": (2.0, ("a",))}, 2) == 0.0
    assert makespan({}, 2) == 0.0


def test_start_up_is_what_the_last_grid_measured(tmp_path):
    file, usual = start_up_file(tmp_path, "fork"), usual_start_up()
    assert read_start_up(file) == usual
    write_start_up(file, [9.0], 4.0)
    assert not file.exists(), "one cell does not tell its own start-up from the import"
    write_start_up(file, [12.0, 2.0, 3.0, 90.0], 4.0)
    assert read_start_up(file) == StartUp(usual.once, cell=3.0, report=4.0)
    assert read_start_up(start_up_file(tmp_path, "cluster")) == usual
    file.write_text("{")
    assert read_start_up(file) == usual


def test_a_slow_machine_is_expected_to_start_slowly(monkeypatch):
    monkeypatch.setattr(work_ahead, "_python_work", lambda: 3 * USUAL_WORK)
    assert usual_start_up() == StartUp(*(pytest.approx(3 * x) for x in (USUAL.once, USUAL.cell, USUAL.report)))


def test_what_is_left_follows_how_long_cells_take(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(work_ahead, "monotonic", lambda: now[0])
    ahead = WorkAhead({"a": 10.0, "b": 10.0, "c": 20.0}, jobs=2)
    assert ahead.seconds_left() == 20.0
    now[0] = 5.0
    assert ahead.seconds_left() == 15.0
    now[0] = 20.0  # twice as long as expected of two at once
    ahead.end("a")
    ahead.end("b")
    assert ahead.seconds_left() == 20.0
    now[0] = 50.0
    assert ahead.seconds_left() is None, "over already: nothing is known"
    unknown = WorkAhead({"a": None, "b": None}, jobs=1)
    assert unknown.seconds_left() is None
    now[0] = 60.0
    unknown.end("a")
    assert unknown.seconds_left() == 10.0


@pytest.mark.parametrize(("now", "says"), [(None, False), (1.9, False), (2.0, False), (5.0, True)])
def test_a_busy_machine_says_so(monkeypatch, now, says):
    monkeypatch.setattr(work_ahead, "load", lambda: now)
    monkeypatch.setattr(work_ahead, "cores", lambda: 2)
    words = busy_words()
    assert (words is not None) == says
    assert words is None or "load average 5.0 on 2 cores): it may take 2.5 times as long" in words
