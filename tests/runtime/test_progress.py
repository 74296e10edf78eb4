"""Progress lines: each unit counted once, also after resuming from a checkpoint."""

from __future__ import annotations

import json
from contextlib import contextmanager

import pytest
from rich.text import Text

from rib.runtime import console, progress, tasks
from rib.scoring import one_pass
from rib.training import callbacks
from rib.training.callbacks import TrainingProgress
from rib.training.log import TrainingLog
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
            fit(tree, file, attempt, accumulate, stop_after=stop_after, shown=[TrainingProgress("toy", TrainingLog())])
        assert {bar["total"] for bar in bars} == {total}
        assert all(set(bar["advances"]) <= {1} for bar in bars)
        places = [bar["begun_at"] + len(bar["advances"]) for bar in bars]
        assert max(places) == total, (death, bars)
        assert all(place <= total for place in places)
        if death in ENDS and len(bars) == 2:  # saved at an epoch's end: it goes on with the next
            assert bars[1]["begun_at"] == bars[0]["begun_at"] + len(bars[0]["advances"])


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves when it is told to, and a board whose thread does not look by itself."""
    now = [100.0]
    monkeypatch.setattr(tasks.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    board = progress._Board()
    monkeypatch.setattr(board, "start", lambda: None)
    monkeypatch.setattr(progress, "_BOARD", board)

    def pass_(seconds: float) -> None:
        for _ in range(round(4 * seconds)):
            now[0] += 0.25
            if board.tasks or board.command:
                board._show()

    return pass_


def test_a_log_file_gets_a_line_within_5_s_and_two_a_minute_and_none_a_batch(clock, capsys):
    with progress.progress("toy", 4800, "batches", 4700) as advance:
        clock(2)
        assert capsys.readouterr().err == ""
        clock(2)
        assert capsys.readouterr().err == "toy: 4700/4800 batches\n"
        for _ in range(60):
            clock(1)
            advance(1, "loss 1.000")
        assert capsys.readouterr().err.splitlines() == [
            "toy: 4728/4800 batches, 52/min, 81 s left, loss 1.000",
            "toy: 4758/4800 batches, 56/min, 44 s left, loss 1.000",
        ]
        clock(90)  # one batch that takes long
        assert capsys.readouterr().err.count("\n") == 3
        for _ in range(40):
            clock(1)
            advance(1, "")
    assert capsys.readouterr().err.splitlines()[-1].startswith("toy: 4800/4800 batches, ")


@pytest.mark.usefixtures("no_progress")
def test_progress_can_be_turned_off(clock, capsys):
    with progress.progress("toy", 10) as advance:
        clock(40)
        advance(10, "")
    assert capsys.readouterr().err == ""


def test_short_tasks_after_one_another_leave_no_silence(clock, capsys):
    progress._BOARD.command = "rib.train"
    for number in range(40):
        with progress.progress(f"listing {number}", 10, "folders") as advance:
            clock(2)
            advance(10, "")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    clock(61)  # an import, or something that nobody shows
    assert capsys.readouterr().err.splitlines()[-1].startswith("rib.train is running, ")


def test_a_grid_says_what_each_cell_is_doing_on_one_line(clock, capsys):
    cells = ["one, scoring", "two, starting"]
    grid = progress.progress("grid", 12, "cells", 3, overall=True, details=lambda: cells, left=lambda: 95.0)
    with grid, progress.progress("inner", 10) as advance:
        clock(4)
        advance(5, "")
        clock(30)
    assert capsys.readouterr().err.splitlines() == [
        "grid: 3/12 cells, 2 min left (inner: 0/10 images; one, scoring; two, starting)",
        "grid: 3/12 cells, 2 min left (inner: 5/10 images, 75/min; one, scoring; two, starting)",
    ]


def test_what_waits_says_so_again(clock, capsys):
    with progress.activity("waiting for process 7 on here"):
        clock(64)
    assert capsys.readouterr().err.splitlines() == [
        f"waiting for process 7 on here, {seconds} s so far" for seconds in (3, 33, 63)
    ]


def test_the_rate_is_of_what_was_done_since(clock, tmp_path):
    progress.report_to(tmp_path / "progress.json", lines=False)
    with progress.progress("toy", 480, "batches", 470) as advance:
        for _ in range(5):
            clock(1)
            advance(1, "")
        clock(2)
        facts = json.loads((tmp_path / "progress.json").read_text())
    assert (facts["done"], facts["total"], facts["rate"]) == (475, 480, 1.0)
    assert 3.0 <= facts["seconds_left"] <= 4.0
    with progress.activity("waiting"):
        clock(2)
    facts = json.loads((tmp_path / "progress.json").read_text())
    assert (facts["what"], facts["total"], facts["seconds_left"]) == ("waiting", 0, None)


def test_a_total_that_was_too_low_prints_no_line_for_each_step_beyond(clock, capsys):
    with progress.progress("toy", 3, "batches") as advance:
        clock(4)
        clock(6)
        for _ in range(20):
            advance(1, "")
        assert capsys.readouterr().err.count("\n") == 1
    assert capsys.readouterr().err == "toy: 20/20 batches, 120/min, in 10 s\n"


def test_another_rank_shows_nothing(clock, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with progress.progress("toy", 3) as advance:
        clock(40)
        advance(3, "")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 200])
@pytest.mark.parametrize("count", [0, 7, 120, 480])
def test_a_row_fits_every_terminal_and_cuts_no_number_where_there_is_room(clock, width, count):
    task = tasks.Task("mini_small: ewc+wise_ft on ImageNet-Sketch", 480, "batches")
    clock(10)
    task.advance(count, "epoch 2, loss 3.685")
    title, filled, empty, numbers = tasks.row(task, width)
    assert len(title) + bool(filled + empty) + filled + empty + bool(numbers) + len(numbers) <= width
    assert width < 60 or f"{count}/480 batches" in numbers
    assert (filled + empty > 0) >= (width >= 120)
    assert ("loss 3.685" in numbers) == (width >= 120)
    if filled + empty:
        assert filled == round((filled + empty) * count / 480)


def test_a_terminal_shows_the_rows_and_lines_above_them(clock, monkeypatch, capfd):
    from rib.runtime.screen import Screen

    monkeypatch.setenv("COLUMNS", "70")
    monkeypatch.setenv("TERM", "xterm")
    details = [f"cell {n}" for n in range(20)]
    with progress.progress("grid", 12, "cells", 3, overall=True, details=lambda: details):
        clock(1)
        screen = Screen(progress._BOARD.rows)
        text = Text("\n").join(screen._render().renderables).plain.splitlines()
    assert text[0].startswith("grid ━") and text[0].endswith("3/12 cells")
    assert text[1:] == [*(f"  cell {n}" for n in range(7)), "  and 13 more"]
    screen.start()
    console.say("a path that is longer than a terminal is wide is not broken: /" + "x" * 70)
    screen.stop()
    assert "/" + "x" * 70 in capfd.readouterr().err.replace("\x1b[?25l", "")
    console.say("after")
    assert capfd.readouterr().err.endswith("after\n")


@pytest.mark.parametrize(("images", "world", "share"), [(5, 2, [2, 1]), (5, 4, [2]), (6, 3, [1, 1])])
def test_processes_that_score_together_count_every_image_once(images, world, share):
    told = []
    advance = one_pass._scale_progress(lambda done, note: told.append(done), images, world)
    for done in share:  # rank zero's, which has the image more
        advance(done, "")
    assert sum(told) == images
