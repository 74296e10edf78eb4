"""Negative controls: what each must show, checked and printed."""

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
from rib.studies.rows import format_effect, n_of, rows, unknown
from rib.sweeps.plan import Cell
from rib.sweeps.study import Made, Study

Row = Mapping[Any, Any]

CONTROLS: Mapping[str, tuple[str, Callable[[Row, Row], bool]]] = {
    "pretrained": ("mRI exactly 0: nothing was done", lambda row, plain: row["mri"] == 0 == row["low"] == row["high"]),
    "lr 0": ("mRI exactly 0: no weight moves", lambda row, plain: row["mri"] == 0 == row["low"] == row["high"]),
    "shuffled labels": (
        "worse than plain fine-tuning, and nothing learnt on the source",
        lambda row, plain: row["high"] < plain["low"] and row["source_after"] < row["source_before"],
    ),
    "shuffled head": ("mRI below 0: classes have other names", lambda row, plain: row["high"] < 0),
    "random start": ("far worse than plain fine-tuning", lambda row, plain: row["high"] < plain["low"]),
}
"""What each control must show, in words and as a check against plain fine-tuning."""


class Controls(Study):
    """A row a model and control: mRI, and whether it is as it must be."""

    def check(self, cells: Sequence[Cell]) -> None:
        """Plain fine-tuning is there to compare with."""
        super().check(cells)
        if not any(cell.spec is not None and cell.spec.method == PLAIN for cell in cells):
            raise RibError(f"methods: this study compares with {PLAIN}, which is not among its cells")
        if all(cell.spec is None or _control(_facts(cell)) == PLAIN for cell in cells):
            raise RibError(f"grids: expected a control beside {PLAIN}, one of {', '.join(CONTROLS)}; got none")

    def table(self, made: Sequence[Made], store: RunStore) -> pd.DataFrame:
        """One row a model and control, plain fine-tuning among them; ``holds`` is empty where it cannot be checked."""
        found = [{"control": _control(row.facts), **row.facts} for row in rows(made, store)]
        plain = {row["model"]: row for row in found if row["control"] == PLAIN}
        for row in found:
            row["must"], holds = CONTROLS.get(row["control"], ("", lambda row, plain: True))
            reads_source = row["control"] == "shuffled labels" and unknown(row["source_after"])
            checked = row["model"] in plain and not reads_source
            row["holds"] = holds(row, plain[row["model"]]) if checked else None
        return pd.DataFrame(found).sort_values(["model", "mri"], ignore_index=True)

    def paragraph(self, table: pd.DataFrame) -> str:
        """A line a control."""
        about = "mRI in points with 95 % intervals over images only, each for itself"
        lines = [f"Negative controls, {about}; {_n(table, named=True)}."]
        for row in table.to_dict("records"):
            verdict = "" if row["control"] == PLAIN else f"; must be: {row['must']}: {_yes(row['holds'])}"
            source = f", accuracy on the source {before_after(row['source_before'], row['source_after'])} %"
            trained = source if row["control"] != "pretrained" else ""
            lines.append(f"{row['model']}, {row['control']}: {format_effect(row)}{trained}{verdict}.")
        checked = table[(table["control"] != PLAIN) & table["holds"].notna()]["holds"]
        lines.append(f"{sum(map(bool, checked))} of {len(checked)} controls hold.")
        return "\n".join(lines)

    def figures(self, table: pd.DataFrame) -> dict[str, Figure]:
        """The controls' mRI beside plain fine-tuning's."""
        figure = Figure(figsize=(5.2, 1.0 + 0.26 * len(table)), layout="constrained")
        axes = figure.add_subplot()
        for place, row in enumerate(table.to_dict("records")):
            holds = row["holds"] is None or bool(row["holds"])
            colour = GAIN if holds else LOSS
            axes.plot([row["low"], row["high"]], [place, place], color=colour, lw=4, alpha=0.4)
            axes.plot(row["mri"], place, "o" if holds else "X", color=colour, ms=5)
        axes.set_yticks(
            range(len(table)), [f"{r['model']}, {r['control']}" for r in table.to_dict("records")], fontsize=8
        )
        axes.axvline(0, color="black", lw=0.8)
        tidy(axes, "x")
        about = f"mRI, percentage points, 95 % over images; {_n(table)}"
        axes.set_xlabel(f"{about}\na cross would be a control that does not hold", fontsize=8)
        return {"controls": figure}


def _facts(cell: Cell) -> dict[str, Any]:
    assert cell.spec is not None, "only what can be asked is looked at"
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
    """Of what was trained: `pretrained` has no source."""
    return n_of(table[table["control"] != PRETRAINED], named)


def _yes(holds: bool | None) -> str:
    return "not checked" if holds is None else "it is" if holds else "IT IS NOT"
