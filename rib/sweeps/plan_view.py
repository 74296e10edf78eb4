"""Plan of a grid, for the terminal and as JSON: cells done and to make, and what these will cost."""

from __future__ import annotations

from collections import Counter

from rich.console import Console

from rib.reporting.formatting import world_of
from rib.reporting.layout import FittedTable
from rib.runs.metrics_file import is_older, older_words
from rib.runs.store import RunStore
from rib.runtime.console import say
from rib.runtime.counting import plural
from rib.runtime.tasks import clock
from rib.schemas.grids import CellReason, PlannedCell, PlanReport
from rib.sweeps.calibration import images_scored
from rib.sweeps.cost import Costs
from rib.sweeps.executors import Executor
from rib.sweeps.plan import Cell, Plan, controls
from rib.sweeps.scheduler import Outcome, failed_labels
from rib.sweeps.work_ahead import busy_words, load

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
    if missing := _missing(plan, outcome, costs):
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
    missing = _missing(plan, outcome, costs)
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


def _missing(plan: Plan, outcome: Outcome, costs: Costs) -> list[Cell]:
    """Return the cells that are not finished, and the control runs that models with BatchNorm will need."""
    missing = [cell for id, cell in plan.cells.items() if outcome.is_open(id) and cell.spec is not None]
    further = controls(plan, costs.store, costs.has_batch_norm).cells.values() if missing else ()
    return [*missing, *(cell for cell in further if not cell.is_done)]


def say_older(store: RunStore) -> None:
    """Print how many runs in a store were made by an older version of rib, which grids do not use; nothing if none."""
    older = [metrics for _, metrics in store.briefs() if is_older(metrics)]
    if older:
        say(f"ignored in {store.root}: {plural(len(older), 'run')}: each {older_words(older[0])}")


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
