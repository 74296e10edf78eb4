"""The harness of the benchmarks: turns, ratios, verdicts, and what a command took."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import results, side_by_side
from benchmarks.side_by_side import Taken, command, compare


def test_ways_take_turns_and_the_ratio_is_the_median_of_rounds(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("ROUNDS", "3")
    monkeypatch.setenv(side_by_side.ROWS, str(tmp_path / "rows"))
    turns: list[str] = []
    slow, fast = iter((8.0, 3.0, 5.0)), iter((2.0, 1.0, 1.0))

    def way(name, times):
        def run():
            turns.append(name)
            return Taken(next(times), 1.0)

        return run

    made = compare("x", ("a", way("a", slow)), ("b", way("b", fast)), at_least=5, limit=lambda taken: f"{taken.wall}")
    assert turns == ["a", "b", "b", "a", "a", "b"], "the order changes, so that what a way leaves behind meets both"
    assert made.ratio == (4.0, 3.0, 5.0)
    assert made.seconds == (5.0, 1.0)
    assert (made.verdict, made.limit) == ("short: 0.80 of it", "1.0")
    assert "**4.00** (3.00 to 5.00)" in capsys.readouterr().out
    assert "x: 1.0" in results.summary([json.loads((tmp_path / "rows").read_text())])


def test_a_command_says_what_it_took_without_its_imports():
    script = "from benchmarks.side_by_side import clocks, say_taken\nprint('hello')\nsay_taken(clocks(), answer=42)"
    taken = command("-c", script)()
    assert taken.wall < 1 and taken.found == {"answer": 42}
    assert taken.peak is not None and taken.peak > 0.01
    whole = command("-c", "print('hello')")()
    assert whole.found["output"] == "hello\n" and whole.wall > 0


def test_the_time_of_an_orphan_is_counted_and_other_children_are_not_waited_for():
    """A grid's fork server outlives its command; a test's process has children that end when it does."""
    work = "import time; t = time.process_time()\nwhile time.process_time() < t + 0.5: pass"
    leave_behind = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {work!r}])"
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        assert command("-c", leave_behind)().cpu > 0.5
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_command_that_fails_ends_the_benchmark():
    with pytest.raises(SystemExit, match="exit code 3"):
        command("-c", "raise SystemExit(3)")()


def test_every_script_of_make_bench_can_be_imported():
    there = {file.stem for file in Path(results.__file__).parent.glob("*.py")}
    for name in set(results.SCRIPTS) & there:
        assert importlib.import_module(f"benchmarks.{name}").main
