"""Tables with one row per fine-tuned run, for the terminal and runs.csv."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from rib.config.schema import BatchNorm
from rib.data.worlds import in_distribution_of, title_of
from rib.reporting.formatting import (
    before_after,
    cost_of,
    in_distribution_heading,
    percent,
    with_interval,
    world_and_suite,
)
from rib.reporting.heads import note_on_heads
from rib.reporting.layout import FittedTable
from rib.reporting.shared_options import describe_shared, shared_options
from rib.reporting.sorting import Order
from rib.reporting.summary import EXTERNAL_NAME
from rib.reporting.table_notes import SCORING_ONLY
from rib.runs.metrics_file import improvement_of
from rib.schemas.metrics import Metrics

if TYPE_CHECKING:
    from rib.runs.run import Run


VALUES: Mapping[str, Callable[[dict[str, Any]], float | str]] = {
    "mRI": lambda row: float(row["ri"]),
    "source": lambda row: float(row["source_after"]),
    "val": lambda row: float(row["val_after"]),
    "seconds": lambda row: float(row["seconds"]),
    "model": lambda row: str(row["model"]),
    "method": lambda row: _method_with_options(row),
}
"""Value of each column that rows can be sorted by."""


def comparison_rows(runs: Sequence[Metrics], order: Order | None = None) -> list[dict[str, Any]]:
    """Return one row per fine-tuned run: its settings, RI, accuracy and time.

    Args:
        runs: Metrics; pretrained runs and those without an RI are left out.
        order: Order of the rows; None: the best RI of each model and source first.

    Returns:
        The rows; ``name`` is that of external weights. RI with its interval in percentage points, accuracy on the
        source and in distribution (ImageNet val) in percent, images trained (an image once per epoch) and scored,
        seconds for both, and the device.
    """
    rows = []
    for m in _with_improvement(runs):
        improvement = improvement_of(m)
        in_distribution, cost = m["accuracy"].get(in_distribution_of(m["data"]["kind"]) or ""), cost_of(m)
        rows.append(
            {
                "model": m["model"],
                "source": m["source"],
                "method": m["method"],
                "name": m["options"].get(EXTERNAL_NAME, ""),
                "options": ", ".join(f"{k}={v}" for k, v in m["options"].items() if k != EXTERNAL_NAME),
                "seed": m["seed"],
                "ri": improvement["value"],
                "ri_low": improvement["low"],
                "ri_high": improvement["high"],
                "num_targets": len(improvement["targets"]),
                "source_before": percent(m["accuracy"].get(m["source"]), "before"),
                "source_after": percent(m["accuracy"].get(m["source"]), "after"),
                "val_before": percent(in_distribution, "before"),
                "val_after": percent(in_distribution, "after"),
                "images_trained": cost["images_trained"],
                "images_scored": cost["images_scored"],
                "seconds": m["seconds"]["fit"] + m["seconds"]["evaluate"],
                "device": cost.get("device", ""),
            }
        )
    names = ("method", "name", "options", "seed")
    rows.sort(key=lambda row: (row["model"], row["source"], -row["ri"], [str(row[name]) for name in names]))
    return rows if order is None else order.sort(rows, VALUES)


def _with_improvement(runs: Sequence[Metrics]) -> list[Metrics]:
    return [m for m in runs if m["source"] != "none" and m["robustness_improvement"] is not None]


def comparison_table(runs: Sequence[Metrics], order: Order | None = None) -> FittedTable:
    """Return the rows of `comparison_rows` as a table for the terminal; options that all share are said below it."""
    kind = runs[0]["data"]["kind"]
    options = [(m["options"], EXTERNAL_NAME in m["options"]) for m in _with_improvement(runs)]
    shared = dict(sorted(shared_options(options).items()))
    said = describe_shared(shared, options)
    external = SCORING_ONLY if any(m["options"].get(EXTERNAL_NAME) for m in runs) else ""
    units = "RI in percentage points, with 95 % intervals over images only; accuracies before > after."
    heading = in_distribution_heading(kind)
    val = () if heading is None else (heading,)
    table = FittedTable(
        f"Fine-tuned runs ({world_and_suite(runs[0])})",
        words=("model", "source", "method"),
        numbers=("seed", "RI, points", "source %", *val, "seconds"),
        notes=tuple(filter(None, (units, note_on_heads(runs), said and f"{said}.", external))),
        optional=(("seconds",), val, ("source %",)),
        file="runs.csv",
    )
    own = [{**m, "options": {k: v for k, v in m["options"].items() if k not in shared or shared[k] != v}} for m in runs]
    for row in comparison_rows(cast("list[Metrics]", own), order):
        table.add_row(
            row["model"],
            title_of(row["source"], kind),
            _method_with_options(row),
            "" if row["seed"] is None else str(row["seed"]),
            with_interval({"value": row["ri"], "low": row["ri_low"], "high": row["ri_high"]}),
            before_after(row["source_before"], row["source_after"]),
            *(before_after(row["val_before"], row["val_after"]) for _ in val),
            f"{row['seconds']:.1f}",
        )
    return table


def _method_with_options(row: Mapping[str, Any]) -> str:
    """Return the method of a row with its options in parentheses; external weights go by their own name."""
    method = f"{row['name']} ({row['method']})" if row["name"] else row["method"]
    return method + (f" ({row['options']})" if row["options"] else "")


def missing_controls(results: Sequence[tuple[Run, Metrics]]) -> list[str]:
    """Return a command for each model with BatchNorm that lacks its control: fine-tuning with frozen statistics.

    The control is plain fine-tuning with frozen BatchNorm statistics. Updating the statistics alone can cost more
    accuracy than fine-tuning does, so that a method which freezes them would look better for that reason only.

    Args:
        results: Runs with their metrics.

    Returns:
        One line per model and source without a control, with the command that makes it.
    """
    from rib.runs.command import command_of

    trained = [(run, m) for run, m in results if m["source"] != "none"]
    with_control = {
        (m["model"], m["source"])
        for _, m in trained
        if m["method"] == "finetune" and m["protocol"]["batch_norm"] == "frozen"
    }
    needed: dict[tuple[str, str], tuple[Run, Metrics]] = {}
    # One control serves all methods and seeds of a model on a source, so the first run of each gives the command.
    for run, m in trained:
        if m["notes"].get("batch_norm.layers"):
            needed.setdefault((m["model"], m["source"]), (run, m))
    return [
        f"{pair[0]} has BatchNorm, and updating its statistics can cost more accuracy than fine-tuning does; add the "
        f"control: {command_of(run, m, method={}, batch_norm=BatchNorm.frozen)}"
        for pair, (run, m) in needed.items()
        if pair not in with_control
    ]
