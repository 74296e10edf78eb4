"""State of a grid, for the terminal and as JSON: cells done, running, failed, refused and missing."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

from rich.console import Group, RenderableType
from rich.live import Live

from rib.errors import RibError
from rib.reporting.layout import FittedTable, output
from rib.runs.metrics_file import read
from rib.runs.store import RunStore
from rib.runtime.tasks import clock
from rib.schemas.files import ProgressInfo
from rib.schemas.grids import RunningCell, Status
from rib.sweeps.cell import PROGRESS
from rib.sweeps.cost import Costs, total
from rib.sweeps.plan import Cell, Plan
from rib.sweeps.plan_view import STATES, failures, plan_table, refusals, say_older, state_of
from rib.sweeps.scheduler import cell_folder, grid_state

SECONDS_BETWEEN_FRAMES = 2.0


def show_status(plan: Plan, store: RunStore, costs: Costs, style: str) -> None:
    """Print the status of a grid; in a terminal it is updated until no cell runs any more, or Ctrl-C.

    Args:
        plan: All cells.
        store: The store that holds their results.
        costs: Estimates of time.
        style: ``json`` for other programs, else a table.
    """
    console = output()
    report = read_status(plan, store, costs)
    say_older(store)
    if style == "json":
        print(json.dumps(report, indent=1))
    elif not console.is_terminal:
        console.print(_table(plan, store, report))
    else:
        with Live(_table(plan, store, report), console=console) as live:
            while report["running"]:
                time.sleep(SECONDS_BETWEEN_FRAMES)
                report = read_status(plan, store, costs)
                live.update(_table(plan, store, report))


def read_status(plan: Plan, store: RunStore, costs: Costs) -> Status:
    """Return the present status of a grid.

    Args:
        plan: All cells.
        store: The store that holds their results and locks.
        costs: Estimates of the time that is left.
    """
    outcome, locks = grid_state(plan, store), store.locks
    running = []
    for id, cell in plan.cells.items():
        if id in outcome.done or cell.run is None:
            continue
        holder = locks.holder(cell.run.key)
        if holder is not None:
            outcome.failed.pop(id, None)  # it is being tried again
            running.append(_progress(cell, store, holder))
    labels = {entry["label"] for entry in running}
    counts = Counter("running" if c.label in labels else state_of(c, outcome) for c in plan.wanted)
    closed = outcome.done | outcome.failed.keys() | outcome.refused.keys()
    missing = [c.spec for id, c in plan.cells.items() if id not in closed and c.spec and c.label not in labels]
    return {
        "counts": {state: counts[state] for state in STATES},
        "running": running,
        "failed": failures(plan, outcome),
        "refused": refusals(plan, outcome),
        "seconds_left": total([costs.seconds(spec) for spec in missing]),
    }


def _progress(cell: Cell, store: RunStore, holder: Mapping[str, Any]) -> RunningCell:
    """Return the host and process that make a cell, with their progress if it can be read."""
    running: RunningCell = {"label": cell.label, "host": holder["host"], "pid": holder["pid"]}
    try:
        return {**running, **cast("ProgressInfo", read(cell_folder(store, cell) / PROGRESS))}
    except (OSError, RibError):  # not written yet, or by a run that was not started by a grid
        return running


def _table(plan: Plan, store: RunStore, report: Status) -> RenderableType:
    """Return the status for the terminal: the plan, the counts, the running cells, and the failures."""
    parts: Sequence[RenderableType] = [
        plan_table(plan, grid_state(plan, store)),
        ", ".join(f"{count} {state}" for state, count in report["counts"].items()),
        *([running_table(report["running"])] if report["running"] else []),
        *(f"failed: {entry['label']}: {entry['reason']}" for entry in report["failed"]),
    ]
    total_left = report["seconds_left"]
    return Group(*parts, *([f"about {clock(total_left)} of computing time left"] if total_left else []))


def running_table(cells: Sequence[RunningCell]) -> FittedTable:
    """Return a table with one row per running cell: its process and its progress."""
    running = FittedTable("running", words=("cell", "process", "task", "note"), numbers=("done", "rate", "left"))
    for entry in cells:
        progress = entry if "what" in entry else None
        left = progress["seconds_left"] if progress else None
        running.add_row(
            entry["label"],
            f"{entry['pid']} on {entry['host']}",
            progress["what"] if progress else "",
            progress["note"] if progress else "",
            f"{progress['done']}/{progress['total']} {progress['unit']}" if progress else "",
            f"{progress['rate']:.0f}/s" if progress else "",
            clock(left) if left is not None else "",
        )
    return running
