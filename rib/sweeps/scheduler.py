"""Run a plan's cells in dependency order, each in a process of its own, until every cell is done or has failed.

A cell that another process on the same store is making is left to that process and checked again later. When a cell
fails, the reason is recorded, the cells that need it fail too, and all others continue.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import rib.config
from rib.runs.store import RunStore
from rib.runtime.console import say
from rib.runtime.files import write_atomically
from rib.runtime.progress import Advance, progress
from rib.sweeps.cell import CONFIG, FAILED, failure, record_failure
from rib.sweeps.executors import SECONDS_TO_END, Executor, Worker
from rib.sweeps.plan import Cell, Plan

SECONDS_BETWEEN_POLLS = 0.1


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
    """

    def __init__(self, plan: Plan, store: RunStore, workers: Executor, outcome: Outcome) -> None:
        self.plan, self.store, self.workers, self.outcome = plan, store, workers, outcome
        self._locks = store.locks
        self._waiting = {id: cell for id, cell in plan.cells.items() if outcome.is_open(id)}
        self._running: dict[str, Worker] = {}

    def run(self) -> Outcome:
        """Make cells until none is left that can be made, and return the updated outcome.

        Ctrl-C or SIGTERM first ends the running cells; run the same command to resume them.
        """
        # SIGTERM would end this process without the finally below, and leave the cells running.
        old_handler = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            with progress("grid", len(self._waiting), "cells") as advance:
                while self._waiting or self._running:
                    self._collect_finished(advance)
                    self._fail_dependents(advance)
                    self._start_ready(advance)
                    time.sleep(SECONDS_BETWEEN_POLLS)
        finally:
            signal.signal(signal.SIGTERM, old_handler)
            self._end_running()
        return self.outcome

    def _collect_finished(self, advance: Advance) -> None:
        """Record the results of running cells whose processes have ended."""
        for id, worker in list(self._running.items()):
            code = worker.exit_code()
            if code is None:
                continue
            del self._running[id]
            cell, folder = self.plan.cells[id], cell_folder(self.store, self.plan.cells[id])
            # The store decides, not the exit code: a process may die after its run was finished.
            if cell.is_done:
                self._mark_done(cell, advance)
                continue
            if failure(folder) is None:
                record_failure(folder, _explain_exit(code))
            error = (failure(folder) or {"error": "its reason could not be recorded: is the disk full?"})["error"]
            self.outcome.failed[id] = error
            say(f"failed: {cell.label}: {error} ({folder / 'log.txt'})")
            advance(1, "")

    def _mark_done(self, cell: Cell, advance: Advance) -> None:
        self.outcome.done.add(cell.id)
        self._waiting.pop(cell.id, None)
        advance(1, cell.label)

    def _fail_dependents(self, advance: Advance) -> None:
        """Mark waiting cells as failed if a cell that they need has failed."""
        for id, cell in list(self._waiting.items()):
            cause = next((need for need in cell.needs if need in self.outcome.failed), None)
            if cause is not None:
                del self._waiting[id]
                self.outcome.failed[id] = f"it needs {self.plan.cells[cause].label}, which failed"
                advance(1, "")

    def _start_ready(self, advance: Advance) -> None:
        """Start cells whose needs are done and that no other process is making, up to the executor's limit."""
        for id, cell in list(self._waiting.items()):
            if len(self._running) >= self.workers.at_once:
                return
            if not self.outcome.done.issuperset(cell.needs):
                continue
            assert cell.run is not None and cell.spec is not None, "a waiting cell is resolved"
            if self._locks.holder(cell.run.key) is not None:
                continue  # another process is making it
            # After the look at the lock: another process may have finished the cell and let go in between.
            if cell.is_done:
                self._mark_done(cell, advance)
                continue
            del self._waiting[id]
            folder = cell_folder(self.store, cell)
            write_atomically(folder / CONFIG, rib.config.to_yaml(cell.spec.config).encode())
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


def _explain_exit(code: int) -> str:
    """Return a phrase that explains the exit code of a cell's process that recorded no reason for its failure."""
    if code == -signal.SIGKILL:
        return "its process was killed (SIGKILL), by the system because memory ran out, or by hand"
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended with exit code {code} and no result"


def failed_labels(plan: Plan, outcome: Outcome) -> Sequence[tuple[str, str]]:
    """Return the label and reason of every failed cell: first those that others need, then the grid's own cells."""
    cells = sorted(outcome.failed, key=lambda id: plan.cells[id].wanted)
    return [(plan.cells[id].label, outcome.failed[id]) for id in cells]
