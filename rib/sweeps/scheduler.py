"""Run a plan: cells in dependency order, each in a process of its own, until all that can be made are.

What another process on the same store is making is left to it and looked at again. A cell that fails is recorded; what
needs it is named, and everything else goes on.
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
from rib.sweeps.executors import SECONDS_TO_END, Worker, Workers
from rib.sweeps.plan import Cell, Plan

SECONDS_BETWEEN_LOOKS = 0.1


@dataclass
class Outcome:
    """How a grid stands.

    Attributes:
        done: Cells whose answers are in the store.
        failed: Why others have none, by cell id: their own failure, or that of one they need.
        refused: Cells whose source must not be trained on, with the reason.
    """

    done: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def is_open(self, cell: str) -> bool:
        """Whether a cell is still to be made."""
        return not (cell in self.done or cell in self.failed or cell in self.refused)


def cell_folder(store: RunStore, cell: Cell) -> Path:
    """Where a cell's log and failure are."""
    return store.root / "cells" / cell.id


def grid_state(plan: Plan, store: RunStore, retry_failed: bool = False) -> Outcome:
    """What is there of a plan, and what failed before.

    Args:
        plan: All cells.
        store: Where their answers are.
        retry_failed: Forget earlier failures, so that these cells are tried again.
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
            outcome.failed[cell.id] = f"{known['error']} (it failed before; retry=1 tries again)"
    return outcome


class Schedule:
    """Makes what is missing of a plan.

    Args:
        plan: All cells.
        store: Where their answers go.
        workers: Who makes them.
        outcome: From `stand`; brought up to date.
    """

    def __init__(self, plan: Plan, store: RunStore, workers: Workers, outcome: Outcome) -> None:
        self.plan, self.store, self.workers, self.outcome = plan, store, workers, outcome
        self._locks = store.locks
        self._waiting = {id: cell for id, cell in plan.cells.items() if outcome.is_open(id)}
        self._running: dict[str, Worker] = {}

    def run(self) -> Outcome:
        """Until nothing is left that can be made. Ctrl-C ends the cells under way first; they go on another time."""
        terminated = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            with progress("grid", len(self._waiting), "cells") as advance:
                while self._waiting or self._running:
                    self._settle(advance)
                    self._fail_what_needs_failed(advance)
                    self._start(advance)
                    time.sleep(SECONDS_BETWEEN_LOOKS)
        finally:
            signal.signal(signal.SIGTERM, terminated)
            self._end()
        return self.outcome

    def _settle(self, advance: Advance) -> None:
        """Look at the cells under way."""
        for id, worker in list(self._running.items()):
            code = worker.exit_code()
            if code is None:
                continue
            del self._running[id]
            cell, folder = self.plan.cells[id], cell_folder(self.store, self.plan.cells[id])
            if cell.is_done:
                self._done(cell, advance)
                continue
            if failure(folder) is None:
                record_failure(folder, _how_it_ended(code))
            error = (failure(folder) or {"error": "no reason was kept: is the disk full?"})["error"]
            self.outcome.failed[id] = error
            say(f"failed: {cell.label}: {error} ({folder / 'log.txt'})")
            advance(1, "")

    def _done(self, cell: Cell, advance: Advance) -> None:
        self.outcome.done.add(cell.id)
        self._waiting.pop(cell.id, None)
        advance(1, cell.label)

    def _fail_what_needs_failed(self, advance: Advance) -> None:
        for id, cell in list(self._waiting.items()):
            lost = next((need for need in cell.needs if need in self.outcome.failed), None)
            if lost is not None:
                del self._waiting[id]
                self.outcome.failed[id] = f"it needs {self.plan.cells[lost].label}, which failed"
                advance(1, "")

    def _start(self, advance: Advance) -> None:
        """Begin cells whose needs are met and that nobody else is at, as many as there is room for."""
        for id, cell in list(self._waiting.items()):
            if len(self._running) >= self.workers.at_once:
                return
            if not self.outcome.done.issuperset(cell.needs):
                continue
            assert cell.place is not None and cell.spec is not None, "a waiting cell can be asked"
            if self._locks.holder(cell.place.key) is not None:
                continue  # somebody else's, and done when they are
            if cell.is_done:
                self._done(cell, advance)
                continue
            del self._waiting[id]
            folder = cell_folder(self.store, cell)
            write_atomically(folder / CONFIG, rib.config.to_yaml(cell.spec.config).encode())
            self._running[id] = self.workers.start(folder)

    def _end(self) -> None:
        """End what is under way."""
        for worker in self._running.values():
            worker.end()
        patience = time.monotonic() + SECONDS_TO_END
        while self._running and time.monotonic() < patience:
            self._running = {id: w for id, w in self._running.items() if w.exit_code() is None}
            time.sleep(SECONDS_BETWEEN_LOOKS)
        for worker in self._running.values():
            worker.kill()


def _how_it_ended(code: int) -> str:
    """What an exit code of a process that left no word says."""
    if code == -signal.SIGKILL:
        return "its process was killed (SIGKILL): by the system for want of memory, or by hand"
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended with exit code {code} and no result"


def failed_labels(plan: Plan, outcome: Outcome) -> Sequence[tuple[str, str]]:
    """Label and reason of every cell without an answer, those that the grid asks for last."""
    cells = sorted(outcome.failed, key=lambda id: plan.cells[id].wanted)
    return [(plan.cells[id].label, outcome.failed[id]) for id in cells]
