"""Run a plan's cells in dependency order, each in a process of its own, until every cell is done or has failed.

A cell that another process on the same store is making is left to that process and checked again later. When a cell
fails, the reason is recorded, the cells that need it fail too, and all others continue.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import rib.config
from rib.errors import RibError
from rib.reporting.formatting import duration, with_interval
from rib.runs.metrics_file import read
from rib.runs.spec import RunSpec
from rib.runs.store import RunStore
from rib.runtime.console import say
from rib.runtime.files import write_atomically
from rib.runtime.progress import Advance, progress
from rib.runtime.tasks import describe, describe_interrupt
from rib.schemas.files import ProgressInfo
from rib.sweeps.cell import CONFIG, FAILED, PROGRESS, explain_exit, failure, record_failure
from rib.sweeps.executors import SECONDS_TO_END, Executor, Worker
from rib.sweeps.plan import Cell, Plan
from rib.sweeps.work_ahead import WorkAhead

SECONDS_BETWEEN_POLLS = 0.1

Seconds = Callable[[RunSpec], float | None]
"""Function that returns the expected seconds of a run, or None if it is unknown."""


@dataclass
class Outcome:
    """State of a grid's cells (its single runs): done, failed or refused; all others are still to be made.

    Attributes:
        done: Ids of cells whose results are in the store.
        failed: Reason of each failed cell by id: its own failure, or that of a cell that it needs.
        refused: Reason of each cell by id whose source must not be trained on.
    """

    done: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def is_open(self, cell: str) -> bool:
        """Return True if a cell is still to be made."""
        return not (cell in self.done or cell in self.failed or cell in self.refused)


def cell_folder(store: RunStore, cell: Cell) -> Path:
    """Return the folder that holds a cell's config, log, progress and record of a failure."""
    return store.root / "cells" / cell.id


def grid_state(plan: Plan, store: RunStore, retry_failed: bool = False) -> Outcome:
    """Find out which cells of a plan are done, have failed or are refused.

    Args:
        plan: All cells.
        store: The store that holds their results.
        retry_failed: Delete the records of earlier failures, so that these cells are tried again.
    """
    outcome = Outcome()
    for cell in plan.cells.values():
        folder = cell_folder(store, cell)
        if cell.refused:
            outcome.refused[cell.id] = str(cell.problem)
        elif cell.problem is not None:
            outcome.failed[cell.id] = cell.problem
        elif cell.is_done:
            outcome.done.add(cell.id)
        elif retry_failed:
            (folder / FAILED).unlink(missing_ok=True)
        elif (known := failure(folder)) is not None:
            outcome.failed[cell.id] = f"{known['error']} (failed before; retry=1 tries again)"
    return outcome


class Schedule:
    """Scheduler that runs the cells of a plan whose results are not in the store.

    Args:
        plan: All cells.
        store: The store that their results go to.
        workers: The executor that runs them.
        outcome: From `grid_state`; it is updated in place.
        seconds: Returns the expected seconds of a run, or None, for the time that is left.

    Attributes:
        overheads: For each cell that was made, its seconds besides training and scoring.
    """

    def __init__(
        self, plan: Plan, store: RunStore, workers: Executor, outcome: Outcome, seconds: Seconds = lambda spec: None
    ) -> None:
        self.plan, self.store, self.workers, self.outcome = plan, store, workers, outcome
        self._locks = store.locks
        self._waiting = {id: cell for id, cell in plan.cells.items() if outcome.is_open(id)}
        self._running: dict[str, Worker] = {}
        self._elsewhere: list[str] = []
        self._started: dict[str, float] = {}
        self.overheads: list[float] = []
        expected = {id: seconds(cell.spec) for id, cell in self._waiting.items() if cell.spec is not None}
        self._ahead = WorkAhead(expected, workers.at_once)

    def run(self) -> Outcome:
        """Make cells until none is left that can be made, and return the updated outcome.

        Ctrl-C or SIGTERM first ends the running cells; run the same command to resume them.

        Raises:
            KeyboardInterrupt: After Ctrl-C, with the numbers of cells that are done, begun and not started.
        """
        # SIGTERM would end this process without the finally below, and leave the cells running.
        old_handler = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            # The cells that were asked for are counted; those that they need are named below them.
            before = sum(not self.outcome.is_open(cell.id) for cell in self.plan.wanted)
            left, details = self._ahead.seconds_left, self._describe_running
            with progress(
                "grid", len(self.plan.wanted), "cells", before, overall=True, details=details, left=left
            ) as advance:
                while self._waiting or self._running:
                    self._collect_finished(advance)
                    self._fail_dependents(advance)
                    self._start_ready(advance)
                    time.sleep(SECONDS_BETWEEN_POLLS)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(self._describe_interrupt()) from None
        finally:
            signal.signal(signal.SIGTERM, old_handler)
            self._end_running()
        return self.outcome

    def _describe_interrupt(self) -> str:
        ids = {cell.id for cell in self.plan.wanted}
        done, failed, begun = (
            len(ids & some) for some in (self.outcome.done, {*self.outcome.failed}, {*self._running})
        )
        return describe_interrupt("cells", len(ids - {*self.outcome.refused}), done, failed, begun)

    def _collect_finished(self, advance: Advance) -> None:
        """Record the results of running cells whose processes have ended."""
        for id, worker in list(self._running.items()):
            code = worker.exit_code()
            if code is None:
                continue
            del self._running[id]
            cell, folder = self.plan.cells[id], cell_folder(self.store, self.plan.cells[id])
            # The store decides, not the exit code: a process may die after its run was finished.
            if (metrics := cell.metrics) is not None:
                spent = time.monotonic() - self._started[id]
                self.overheads.append(max(0.0, spent - metrics["seconds"]["fit"] - metrics["seconds"]["evaluate"]))
                self._mark_done(cell, advance)
                continue
            if failure(folder) is None:
                record_failure(folder, explain_exit(code))
            error = (failure(folder) or {"error": "its reason could not be recorded: is the disk full?"})["error"]
            self.outcome.failed[id] = error
            self._count(cell, f"failed: {cell.label}: {error} ({folder / 'log.txt'})", advance)

    def _mark_done(self, cell: Cell, advance: Advance) -> None:
        self.outcome.done.add(cell.id)
        self._waiting.pop(cell.id, None)
        self._count(cell, f"{cell.label}: {_result(cell)}", advance)

    def _count(self, cell: Cell, line: str, advance: Advance) -> None:
        """Print the line of a cell that has ended, and count it if the grid asks for it."""
        self._ahead.end(cell.id)
        if cell.wanted:
            advance(1, "")
        ended = sum(not self.outcome.is_open(other.id) for other in self.plan.wanted)
        say(f"[{ended}/{len(self.plan.wanted)}] {'' if cell.wanted else 'needed: '}{line}")

    def _describe_running(self) -> list[str]:
        """Describe what each running cell is doing, and which ready cells other processes are making."""
        lines = []
        for cell in [self.plan.cells[id] for id in list(self._running)]:
            try:
                doing = describe(cast("ProgressInfo", read(cell_folder(self.store, cell) / PROGRESS)))
            except (OSError, RibError):  # not written yet
                doing = "starting"
            lines.append(f"{cell.label}: {doing}")
        return [*lines, *(f"{self.plan.cells[id].label}: made by another process" for id in list(self._elsewhere))]

    def _fail_dependents(self, advance: Advance) -> None:
        """Mark waiting cells as failed if a cell that they need has failed."""
        for id, cell in list(self._waiting.items()):
            cause = next((need for need in cell.needs if need in self.outcome.failed), None)
            if cause is not None:
                del self._waiting[id]
                self.outcome.failed[id] = reason = f"it needs {self.plan.cells[cause].label}, which failed"
                self._count(cell, f"failed: {cell.label}: {reason}", advance)

    def _start_ready(self, advance: Advance) -> None:
        """Start cells whose needs are done and that no other process is making, up to the executor's limit."""
        self._elsewhere = []
        for id, cell in list(self._waiting.items()):
            if len(self._running) >= self.workers.at_once:
                return
            if not self.outcome.done.issuperset(cell.needs):
                continue
            assert cell.run is not None and cell.spec is not None, "a waiting cell is resolved"
            if self._locks.holder(cell.run.key) is not None:
                self._elsewhere.append(id)  # another process is making it
                continue
            # After the look at the lock: another process may have finished the cell and let go in between.
            if cell.is_done:
                self._mark_done(cell, advance)
                continue
            del self._waiting[id]
            folder = cell_folder(self.store, cell)
            write_atomically(folder / CONFIG, rib.config.to_yaml(cell.spec.config).encode())
            (folder / PROGRESS).unlink(missing_ok=True)  # of an attempt that was killed
            self._started[id] = time.monotonic()
            self._running[id] = self.workers.start(folder)

    def _end_running(self) -> None:
        """Ask the running cells to end, and kill those that have not after `SECONDS_TO_END`."""
        for worker in self._running.values():
            worker.end()
        deadline = time.monotonic() + SECONDS_TO_END
        while self._running and time.monotonic() < deadline:
            self._running = {id: w for id, w in self._running.items() if w.exit_code() is None}
            time.sleep(SECONDS_BETWEEN_POLLS)
        for worker in self._running.values():
            worker.kill()


def _result(cell: Cell) -> str:
    """Describe the result of a finished cell: its RI, and the seconds that it took."""
    metrics = cell.metrics
    assert metrics is not None, "a cell that is done has metrics"
    seconds = duration(metrics["seconds"]["fit"] + metrics["seconds"]["evaluate"])
    improvement = metrics["robustness_improvement"] if metrics["source"] != "none" else None
    return f"RI {with_interval(improvement)}, {seconds}" if improvement else f"scored, {seconds}"


def failed_labels(plan: Plan, outcome: Outcome) -> Sequence[tuple[str, str]]:
    """Return the label and reason of every failed cell: first those that others need, then the grid's own cells."""
    cells = sorted(outcome.failed, key=lambda id: plan.cells[id].wanted)
    return [(plan.cells[id].label, outcome.failed[id]) for id in cells]
