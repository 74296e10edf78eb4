"""State and plan of a grid, for the terminal and as JSON: cells done, running, failed, refused and missing."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live

from rib.errors import RibError
from rib.reporting.formatting import world_of
from rib.reporting.layout import FittedTable, output
from rib.runs.metrics_file import is_older, older_words, read
from rib.runs.store import RunStore
from rib.runtime.console import say
from rib.runtime.counting import plural
from rib.runtime.tasks import clock
from rib.schemas.files import CellReason, PlannedCell, PlanReport, ProgressInfo, RunningCell, Status
from rib.sweeps.cell import PROGRESS
from rib.sweeps.cost import Costs, images_scored, total
from rib.sweeps.executors import Executor
from rib.sweeps.plan import Cell, Plan
from rib.sweeps.scheduler import Outcome, cell_folder, failed_labels, grid_state
from rib.sweeps.work_ahead import busy_words, load

SECONDS_BETWEEN_FRAMES = 2.0

STATES = ("done", "running", "failed", "refused", "missing")


def plan_table(plan: Plan, outcome: Outcome) -> FittedTable:
    """Return a table with one row per model and method: the number of cells in each state."""
    rows: dict[tuple[str, str], Counter[str]] = {}
    for cell in plan.wanted:
        model, _, rest = cell.label.partition(", ")
        method = rest.partition(" on ")[0]
        rows.setdefault((model, method), Counter())[state_of(cell, outcome)] += 1
    states = [state for state in STATES if any(counts[state] for counts in rows.values())]
    table = FittedTable(
        f"{plural(len(plan.wanted), 'cell')} on {_world(plan)}",
        words=("model", "method"),
        numbers=("cells", *states),
    )
    for (model, method), counts in rows.items():
        table.add_row(model, method, str(counts.total()), *(str(counts[s] or "") for s in states))
    return table


def _world(plan: Plan) -> str:
    specs = [cell.spec for cell in plan.wanted if cell.spec is not None]
    return world_of(specs[0].catalog.kind, specs[0].config.data.limit) if specs else "data that could not be read"


def show_plan(plan: Plan, outcome: Outcome, costs: Costs, workers: Executor, console: Console) -> None:
    """Print the plan of a grid, the runs that cells share, and the expected time and disk space.

    Args:
        plan: All cells.
        outcome: Their state.
        costs: Estimates of time and disk space.
        workers: The executor that would run them.
        console: Where to print.
    """
    console.print(plan_table(plan, outcome))
    shared = ", ".join(f"{count} {name}" for name, count in plan.shared().items())
    if shared:
        console.print(f"needed by several cells, made once: {shared}", highlight=False)
    before = sum(cell.id in outcome.done for cell in plan.wanted)
    if before:
        console.print(f"{before} of {plural(len(plan.wanted), 'cell')} finished before", highlight=False)
    if missing := _missing(plan, outcome):
        seconds, at_once = (
            costs.grid_seconds(missing, workers.at_once, workers.kind),
            min(workers.at_once, len(missing)),
        )
        time_needed = (
            "time unknown (no similar run in the store)" if seconds is None else f"about {clock(seconds)} with start-up"
        )
        specs = [cell.spec for cell in missing if cell.spec is not None]
        images = sum(spec.images_trained for spec in specs), sum(map(images_scored, specs))
        console.print(f"to make: {plural(len(missing), 'run')}, {time_needed}, {at_once} in parallel", highlight=False)
        console.print(f"images: {images[0]:,} trained, {images[1]:,} scored", highlight=False)
        size = sum(map(costs.num_bytes, specs))
        console.print(f"disk: {size / 1e9:.2f} GB in {costs.store.root}", highlight=False, soft_wrap=True)
        if busy := busy_words():
            console.print(busy, highlight=False)
    for label, reason in failed_labels(plan, outcome):
        console.print(f"failed: {label}: {reason}", highlight=False, soft_wrap=True)
    for reason in dict.fromkeys(outcome.refused.values()):
        console.print(f"refused: {reason}", highlight=False, soft_wrap=True)
    say_older(costs.store)


def plan_report(plan: Plan, outcome: Outcome, costs: Costs, workers: Executor) -> PlanReport:
    """Return the plan of a grid as JSON, for other programs.

    Args:
        plan: All cells.
        outcome: Their state.
        costs: Estimates of time and disk space.
        workers: The executor that would run them.
    """
    missing = _missing(plan, outcome)
    specs = [cell.spec for cell in missing if cell.spec is not None]
    cells: list[PlannedCell] = [
        {
            "id": id,
            "label": cell.label,
            "state": state_of(cell, outcome),
            "wanted": cell.wanted,
            "needs": list(cell.needs),
            "axes": dict(cell.axes),
            "folder": None if cell.run is None else str(cell.run.folder.resolve()),
        }
        for id, cell in plan.cells.items()
    ]
    return {
        "cells": cells,
        "shared": plan.shared(),
        "failed": failures(plan, outcome),
        "refused": refusals(plan, outcome),
        "seconds": costs.grid_seconds(missing, workers.at_once, workers.kind),
        "in_parallel": workers.at_once,
        "images_trained": sum(spec.images_trained for spec in specs),
        "images_scored": sum(map(images_scored, specs)),
        "num_bytes": sum(map(costs.num_bytes, specs)),
        "load": load(),
        "busy": busy_words() is not None,
    }


def _missing(plan: Plan, outcome: Outcome) -> list[Cell]:
    """Return the cells that are not finished."""
    return [cell for id, cell in plan.cells.items() if outcome.is_open(id) and cell.spec is not None]


def say_older(store: RunStore) -> None:
    """Print how many runs in a store were made by an older version of rib, which grids do not use; nothing if none."""
    older = [metrics for run in store.finished() if (metrics := run.metrics()) is not None and is_older(metrics)]
    if older:
        say(f"ignored in {store.root}: {plural(len(older), 'run')}: each {older_words(older[0])}")


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


def failures(plan: Plan, outcome: Outcome) -> list[CellReason]:
    """Return the failed cells with their reasons."""
    return [{"label": label, "reason": reason} for label, reason in failed_labels(plan, outcome)]


def refusals(plan: Plan, outcome: Outcome) -> list[CellReason]:
    """Return the cells whose source must not be trained on, with the reasons."""
    return [{"label": plan.cells[id].label, "reason": reason} for id, reason in outcome.refused.items()]


def state_of(cell: Cell, outcome: Outcome) -> str:
    """Return the state of a cell, one of `STATES` without ``running``."""
    for state in ("done", "failed", "refused"):
        if cell.id in getattr(outcome, state):
            return state
    return "missing"


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
