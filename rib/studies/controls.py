"""Study of negative controls: runs whose outcome is known in advance, each checked against it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from rib.errors import RibError
from rib.reporting.formatting import before_after
from rib.reporting.style import GAIN, LOSS
from rib.reporting.summary import PLAIN
from rib.runs.spec import PRETRAINED
from rib.runs.store import RunStore
from rib.studies.plots import tidy
from rib.studies.rows import format_effect, is_missing, n_of, rows
from rib.sweeps.plan import Cell
from rib.sweeps.study import Made, Study

Row = Mapping[Any, Any]

CONTROLS: Mapping[str, tuple[str, Callable[[Row, Row], bool]]] = {
    "pretrained": ("mRI exactly 0: no training", lambda row, plain: row["mri"] == 0 == row["low"] == row["high"]),
    "lr 0": ("mRI exactly 0: no weight moves", lambda row, plain: row["mri"] == 0 == row["low"] == row["high"]),
    "shuffled labels": (
        "worse than plain fine-tuning, and nothing learnt on the source",
        lambda row, plain: row["high"] < plain["low"] and row["source_after"] < row["source_before"],
    ),
    "shuffled head": ("mRI below 0: outputs stand for the wrong classes", lambda row, plain: row["high"] < 0),
    "random start": ("far worse than plain fine-tuning", lambda row, plain: row["high"] < plain["low"]),
}
"""By control: the expected outcome, in words and as a check of its row against that of plain fine-tuning."""


class Controls(Study):
    """Study of negative controls: the mRI of each control with each model, and whether it is as expected."""

    def check(self, cells: Sequence[Cell]) -> None:
        """Check that the grid has plain fine-tuning to compare with, and at least one control."""
        super().check(cells)
        if not any(cell.spec is not None and cell.spec.method == PLAIN for cell in cells):
            raise RibError(f"methods: this study compares with {PLAIN}, which is not among the grid's methods")
        if all(cell.spec is None or _control(_columns(cell)) == PLAIN for cell in cells):
            raise RibError(f"grids: expected a control beside {PLAIN}, one of {', '.join(CONTROLS)}; got none")

    def table(self, made: Sequence[Made], store: RunStore) -> pd.DataFrame:
        """Return one row per model and control; column ``holds`` is True if the outcome is as expected.

        It is None if this cannot be checked, as plain fine-tuning or accuracy on the source is missing.
        """
        records = [{"control": _control(row.columns), **row.columns} for row in rows(made, store)]
        plain = {row["model"]: row for row in records if row["control"] == PLAIN}
        for row in records:
            row["must"], holds = CONTROLS.get(row["control"], ("", lambda row, plain: True))
            lacks_source = row["control"] == "shuffled labels" and is_missing(row["source_after"])
            can_check = row["model"] in plain and not lacks_source
            row["holds"] = holds(row, plain[row["model"]]) if can_check else None
        return pd.DataFrame(records).sort_values(["model", "mri"], ignore_index=True)

    def paragraph(self, table: pd.DataFrame) -> str:
        """Describe each control on a line: mRI, accuracy on the source, the expected outcome and the verdict."""
        units = "mRI in percentage points with 95 % intervals over images only, each on its own"
        lines = [f"Negative controls: {units}; {_n(table, named=True)}."]
        for row in table.to_dict("records"):
            verdict = "" if row["control"] == PLAIN else f"; expected: {row['must']}: {_verdict(row['holds'])}"
            source = f", accuracy on the source {before_after(row['source_before'], row['source_after'])} %"
            training = source if row["control"] != "pretrained" else ""
            lines.append(f"{row['model']}, {row['control']}: {format_effect(row)}{training}{verdict}.")
        checked = table[(table["control"] != PLAIN) & table["holds"].notna()]["holds"]
        lines.append(f"{sum(map(bool, checked))} of {len(checked)} controls hold.")
        return "\n".join(lines)

    def figures(self, table: pd.DataFrame) -> dict[str, Figure]:
        """Plot mRI of the controls and of plain fine-tuning, with a cross where the outcome is not as expected."""
        figure = Figure(figsize=(5.2, 1.0 + 0.26 * len(table)), layout="constrained")
        axes = figure.add_subplot()
        for y, row in enumerate(table.to_dict("records")):
            holds = row["holds"] is None or bool(row["holds"])
            colour = GAIN if holds else LOSS
            axes.plot([row["low"], row["high"]], [y, y], color=colour, lw=4, alpha=0.4)
            axes.plot(row["mri"], y, "o" if holds else "X", color=colour, ms=5)
        axes.set_yticks(
            range(len(table)), [f"{r['model']}, {r['control']}" for r in table.to_dict("records")], fontsize=8
        )
        axes.axvline(0, color="black", lw=0.8)
        tidy(axes, "x")
        units = f"mRI, percentage points, 95 % over images; {_n(table)}"
        axes.set_xlabel(f"{units}\ncross: a control that does not hold", fontsize=8)
        return {"controls": figure}


def _columns(cell: Cell) -> dict[str, Any]:
    assert cell.spec is not None, "cells without a run spec were left out before"
    return {"method": cell.spec.method, **cell.axes}


def _control(row: Mapping[str, Any]) -> str:
    if row.get("optimizer.lr") == 0:
        return "lr 0"
    if row.get("data.shuffled_labels") is True:
        return "shuffled labels"
    if row["method"] == "other_start":
        return "shuffled head" if row.get("method.other_start.shuffled") == "head" else "random start"
    return str(row["method"])


def _n(table: pd.DataFrame, named: bool = False) -> str:
    """Format the number of sources and seeds of all rows but those of `pretrained`, which has no source."""
    return n_of(table[table["control"] != PRETRAINED], named)


def _verdict(holds: bool | None) -> str:
    return "not checked" if holds is None else "holds" if holds else "DOES NOT HOLD"
