"""Expected time of a grid: start-up of each cell, cells in parallel and in order of dependencies, other load."""

from __future__ import annotations

import heapq
import io
import os
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from time import monotonic, process_time

from rib.errors import RibError
from rib.runs.metrics_file import read, write
from rib.runtime.memory import cores


@dataclass(frozen=True)
class StartUp:
    """Time that a grid takes besides training and scoring, in seconds.

    Attributes:
        once: Until the first cell begins: the imports of the command, and of the process that cells are forked from.
        cell: For each cell: to start, to look its data up, to compute RI and to draw.
        report: For the tables and figures at the end.
    """

    once: float
    cell: float
    report: float


USUAL = StartUp(once=9.0, cell=1.0, report=1.6)
"""As measured on two cores on which Python takes `USUAL_WORK` seconds for `_python_work`."""

USUAL_WORK = 0.023


def usual_start_up() -> StartUp:
    """Return the start-up times to expect of the first grid on this machine: Python's own work, by its speed here."""
    slowness = _python_work() / USUAL_WORK
    return StartUp(USUAL.once * slowness, USUAL.cell * slowness, USUAL.report * slowness)


@cache
def _python_work() -> float:
    """Return the CPU seconds in which Python splits 2,000 lines of source into tokens, which it does in Python."""
    source = "name = call(argument, 1)\n" * 2000

    def once() -> float:
        begun = process_time()
        for _ in tokenize.generate_tokens(io.StringIO(source).readline):
            pass
        return process_time() - begun

    return min(once() for _ in range(3))


def read_start_up(file: Path) -> StartUp:
    """Return the start-up times that the last grid on a store measured; usual ones where there are none.

    Args:
        file: From `start_up_file`.
    """
    usual = usual_start_up()
    try:
        measured = read(file)
        return StartUp(usual.once, float(measured["cell"]), float(measured["report"]))
    except (OSError, RibError, KeyError, TypeError, ValueError):
        return usual


def write_start_up(file: Path, overheads: Sequence[float], report: float) -> None:
    """Record the start-up times of a grid for the next plan; nothing for fewer than two cells.

    Args:
        file: From `start_up_file`.
        overheads: For each cell, in the order of their ends, its time besides training and scoring, in seconds. The
            first may have waited for the imports of the process that it was forked from.
        report: Seconds for the tables and figures.
    """
    if len(overheads) > 1:
        write(file, {"cell": median(overheads[1:]), "report": report})


def start_up_file(store: Path, kind: str) -> Path:
    """Return the file of a store's start-up times.

    Args:
        store: Folder of the store.
        kind: Kind of the executor: cells that are commands or jobs of a cluster import torch each.
    """
    return store / "calibration" / f"start_up.{kind}.json"


def makespan(cells: Mapping[str, tuple[float, Sequence[str]]], jobs: int) -> float:
    """Return the seconds that cells take together, each after those that it needs, in the order given.

    Args:
        cells: Seconds of each cell and the ids of those that it needs, by id; ids without an entry are done.
        jobs: Number of cells that run at the same time.
    """
    waiting, ended = dict(cells), dict.fromkeys(cells, False)
    running: list[tuple[float, str]] = []
    now = 0.0
    while waiting or running:
        ready = [id for id, (_, needs) in waiting.items() if all(ended.get(need, True) for need in needs)]
        for id in ready[: jobs - len(running)]:
            heapq.heappush(running, (now + waiting.pop(id)[0], id))
        if not running:
            break  # a cell that needs one that cannot be made
        now, id = heapq.heappop(running)
        ended[id] = True
    return now


def load() -> float | None:
    """Return the load average of the last minute; None where the system has none."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def busy_words() -> str | None:
    """Return a sentence if more processes want to compute now than there are cores; else None."""
    now = load()
    if now is None or now <= cores():
        return None
    times = f"{now / cores():.1f} times as long"
    return f"this machine is busy now (load average {now:.1f} on {cores()} cores): it may take {times}"


class WorkAhead:
    """Expected time that is left of a grid, corrected by how long its finished cells took.

    Args:
        seconds: Expected seconds of each cell, or None, by id.
        jobs: Number of cells that run at the same time.
    """

    def __init__(self, seconds: Mapping[str, float | None], jobs: int) -> None:
        known = [s for s in seconds.values() if s is not None]
        self._is_known = len(known) == len(seconds)
        usual = sum(known) / len(known) if known else 1.0
        self._ahead = {id: usual if s is None else s for id, s in seconds.items()}
        self._jobs, self._done = jobs, 0.0
        self._begun = self._last = monotonic()

    def end(self, id: str) -> None:
        """Count a cell as done."""
        self._done += self._ahead.pop(id, 0.0)
        self._last = monotonic()

    def seconds_left(self) -> float | None:
        """Return the expected seconds that are left; None if they are unknown, or over already."""
        now, ahead = monotonic(), sum(self._ahead.values())
        if self._done:
            left = ahead * (self._last - self._begun) / self._done - (now - self._last)
        elif self._is_known:
            left = ahead / min(self._jobs, max(1, len(self._ahead))) - (now - self._begun)
        else:
            return None
        return left if left > 0 else None
