"""State and plan of a grid: cells done, running, failed, refused and missing; for a person and as JSON."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table

from rib.errors import RibError
from rib.runs.metrics_file import is_older, older_words, read
from rib.runs.spec import RunSpec
from rib.runs.store import RunStore
from rib.runtime.console import say
from rib.schemas.files import CellReason, PlannedCell, PlanReport, ProgressInfo, RunningCell, Status
from rib.sweeps.cell import PROGRESS
from rib.sweeps.cost import Costs, total
from rib.sweeps.plan import Cell, Plan
from rib.sweeps.scheduler import Outcome, cell_folder, failed_labels, grid_state

SECONDS_BETWEEN_FRAMES = 2.0

STATES = ("done", "running", "failed", "refused", "missing")


def plan_table(plan: Plan, outcome: Outcome) -> Table:
    """A line a model and method: how many cells, and how they stand."""
    rows: dict[tuple[str, str], Counter[str]] = {}
    for cell in plan.wanted:
        model, _, rest = cell.label.partition(", ")
        method = rest.partition(" on ")[0]
        rows.setdefault((model, method), Counter())[state_of(cell, outcome)] += 1
    table = Table(title=f"{len(plan.wanted)} cells", title_justify="left")
    for column in ("model", "method"):
        table.add_column(column)
    states = [state for state in STATES if any(counts[state] for counts in rows.values())]
    for column in ("cells", *states):
        table.add_column(column, justify="right")
    for (model, method), counts in rows.items():
        table.add_row(model, method, str(counts.total()), *(str(counts[s] or "") for s in states))
    return table


def show_plan(plan: Plan, outcome: Outcome, costs: Costs, jobs: int, console: Console) -> None:
    """Print the plan, what is shared, and the expected time and disk."""
    console.print(plan_table(plan, outcome))
    shared = ", ".join(f"{count} {name}" for name, count in plan.shared().items())
    if shared:
        console.print(f"needed by them, made once: {shared}", highlight=False)
    if missing := _missing(plan, outcome):
        seconds = total([costs.seconds(spec) for spec in missing], jobs)
        about = "time unknown: nothing like it has been measured here" if seconds is None else f"about {spell(seconds)}"
        size = sum(costs.num_bytes(spec) for spec in missing)
        console.print(
            f"to make: {len(missing)} runs, {about} with {jobs} side by side, starting apart", highlight=False
        )
        console.print(f"disk: {size / 1e9:.2f} GB in {costs.store.root}", highlight=False)
    for label, reason in failed_labels(plan, outcome):
        console.print(f"failed: {label}: {reason}", highlight=False, soft_wrap=True)
    for reason in dict.fromkeys(outcome.refused.values()):
        console.print(f"refused: {reason}", highlight=False, soft_wrap=True)
    say_older(costs.store)


def plan_report(plan: Plan, outcome: Outcome, costs: Costs, jobs: int) -> PlanReport:
    """The plan of a grid for other programs.

    Args:
        plan: All cells.
        outcome: How they stand.
        costs: What such cells take.
        jobs: Cells side by side.
    """
    missing = _missing(plan, outcome)
    cells: list[PlannedCell] = [
        {
            "id": id,
            "label": cell.label,
            "state": state_of(cell, outcome),
            "wanted": cell.wanted,
            "needs": list(cell.needs),
            "axes": dict(cell.axes),
            "folder": None if cell.place is None else str(cell.place.folder.resolve()),
        }
        for id, cell in plan.cells.items()
    ]
    return {
        "cells": cells,
        "shared": plan.shared(),
        "failed": failures(plan, outcome),
        "refused": refusals(plan, outcome),
        "seconds": total([costs.seconds(spec) for spec in missing], jobs),
        "num_bytes": sum(costs.num_bytes(spec) for spec in missing),
    }


def _missing(plan: Plan, outcome: Outcome) -> list[RunSpec]:
    """Questions of the cells that are still to be made."""
    return [cell.spec for id, cell in plan.cells.items() if outcome.is_open(id) and cell.spec is not None]


def say_older(store: RunStore) -> None:
    """Say how many runs of a store an older version of rib has made: they are no cell of any grid."""
    older = [metrics for run in store.finished() if (metrics := run.metrics()) is not None and is_older(metrics)]
    if older:
        say(f"{len(older)} runs in {store.root}: each {older_words(older[0])}, and counts for nothing here")


def show_status(plan: Plan, store: RunStore, costs: Costs, style: str) -> None:
    """Print how a grid stands; in a terminal it is kept up to date until nothing runs any more or Ctrl-C."""
    console = Console(width=None if Console().is_terminal else 140)
    report = look(plan, store, costs)
    say_older(store)
    if style == "json":
        print(json.dumps(report, indent=1))
    elif not console.is_terminal:
        console.print(_table(plan, store, report))
    else:
        with Live(_table(plan, store, report), console=console) as live:
            while report["running"]:
                time.sleep(SECONDS_BETWEEN_FRAMES)
                report = look(plan, store, costs)
                live.update(_table(plan, store, report))


def look(plan: Plan, store: RunStore, costs: Costs) -> Status:
    """How a grid stands right now."""
    outcome, locks = grid_state(plan, store), store.locks
    running = []
    for id, cell in plan.cells.items():
        if id in outcome.done or cell.place is None:
            continue
        owner = locks.holder(cell.place.key)
        if owner is not None:
            outcome.failed.pop(id, None)
            running.append(_progress(cell, store, owner))
    at_work = {entry["label"] for entry in running}
    counts = Counter("running" if c.label in at_work else state_of(c, outcome) for c in plan.wanted)
    settled = outcome.done | outcome.failed.keys() | outcome.refused.keys()
    missing = [c.spec for id, c in plan.cells.items() if id not in settled and c.spec and c.label not in at_work]
    return {
        "counts": {state: counts[state] for state in STATES},
        "running": running,
        "failed": failures(plan, outcome),
        "refused": refusals(plan, outcome),
        "seconds_left": total([costs.seconds(spec) for spec in missing], 1),
    }


def failures(plan: Plan, outcome: Outcome) -> list[CellReason]:
    """Cells without a result, and why."""
    return [{"label": label, "reason": reason} for label, reason in failed_labels(plan, outcome)]


def refusals(plan: Plan, outcome: Outcome) -> list[CellReason]:
    """Cells whose source must not be trained on, and why."""
    return [{"label": plan.cells[id].label, "reason": reason} for id, reason in outcome.refused.items()]


def state_of(cell: Cell, outcome: Outcome) -> str:
    """One of `STATES`, but for ``running``."""
    for state in ("done", "failed", "refused"):
        if cell.id in getattr(outcome, state):
            return state
    return "missing"


def spell(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _progress(cell: Cell, store: RunStore, owner: Mapping[str, Any]) -> RunningCell:
    running: RunningCell = {"label": cell.label, "host": owner["host"], "pid": owner["pid"]}
    try:
        return {**running, **cast("ProgressInfo", read(cell_folder(store, cell) / PROGRESS))}
    except (OSError, RibError):
        return running


def _table(plan: Plan, store: RunStore, report: Status) -> RenderableType:
    running = Table(title="running", title_justify="left")
    for column in ("cell", "where", "what", "note"):
        running.add_column(column)
    for column in ("done", "rate", "left"):
        running.add_column(column, justify="right")
    for entry in report["running"]:
        told = entry if "what" in entry else None
        left = told["seconds_left"] if told else None
        running.add_row(
            entry["label"],
            f"{entry['pid']} on {entry['host']}",
            told["what"] if told else "",
            told["note"] if told else "",
            f"{told['done']}/{told['total']} {told['unit']}" if told else "",
            f"{told['rate']:.0f}/s" if told else "",
            spell(left) if left is not None else "",
        )
    parts: Sequence[RenderableType] = [
        plan_table(plan, grid_state(plan, store)),
        ", ".join(f"{count} {state}" for state, count in report["counts"].items()),
        *([running] if report["running"] else []),
        *(f"failed: {entry['label']}: {entry['reason']}" for entry in report["failed"]),
    ]
    total_left = report["seconds_left"]
    return Group(*parts, *([f"about {spell(total_left)} of work are left"] if total_left else []))
