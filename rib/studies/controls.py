"""Negative controls: what each must show, checked and printed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from rib.figures import GAIN, LOSS
from rib.store import RunStore
from rib.studies.base import Made, n_of, rows, said, tidy

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


class Controls:
    """A row a model and control: mRI, and whether it is as it must be."""

    def table(self, made: Sequence[Made], store: RunStore) -> pd.DataFrame:
        """One row a model and control, plain fine-tuning among them."""
        found = [{"control": _control(row), **row} for row in rows(made, store)]
        plain = {row["model"]: row for row in found if row["control"] == "finetune"}
        for row in found:
            must, holds = CONTROLS.get(row["control"], ("", lambda row, plain: True))
            row["must"], row["holds"] = must, holds(row, plain[row["model"]])
        return pd.DataFrame(found).sort_values(["model", "mri"], ignore_index=True)

    def paragraph(self, table: pd.DataFrame) -> str:
        """A line a control."""
        lines = [f"Negative controls, mRI in points with 95 % intervals over images; {n_of(table)}."]
        for row in table.to_dict("records"):
            verdict = "" if row["control"] == "finetune" else f"; must be: {row['must']}: {_yes(row['holds'])}"
            source = f", accuracy on the source {row['source_before']:.1f} > {row['source_after']:.1f} %"
            trained = source if row["control"] != "pretrained" else ""
            lines.append(f"{row['model']}, {row['control']}: {said(row)}{trained}{verdict}.")
        checked = table[table["control"] != "finetune"]
        lines.append(f"{int(checked['holds'].sum())} of {len(checked)} controls hold.")
        return "\n".join(lines)

    def figures(self, table: pd.DataFrame) -> dict[str, Figure]:
        """The controls' mRI beside plain fine-tuning's."""
        figure = Figure(figsize=(5.2, 1.0 + 0.26 * len(table)), layout="constrained")
        axes = figure.add_subplot()
        for place, row in enumerate(table.to_dict("records")):
            colour = GAIN if row["holds"] else LOSS
            axes.plot([row["low"], row["high"]], [place, place], color=colour, lw=4, alpha=0.4)
            axes.plot(row["mri"], place, "o" if row["holds"] else "X", color=colour, ms=5)
        axes.set_yticks(
            range(len(table)), [f"{r['model']}, {r['control']}" for r in table.to_dict("records")], fontsize=8
        )
        axes.axvline(0, color="black", lw=0.8)
        tidy(axes, "x")
        about = f"mRI, percentage points, 95 % over images; {n_of(table)}"
        axes.set_xlabel(f"{about}\na cross would be a control that does not hold", fontsize=8)
        return {"controls": figure}


def _control(row: Mapping[str, Any]) -> str:
    if row.get("optimizer.lr") == 0:
        return "lr 0"
    if row.get("data.shuffled_labels") is True:
        return "shuffled labels"
    if row["method"] == "other_start":
        return "shuffled head" if row.get("method.other_start.shuffled") == "head" else "random start"
    return str(row["method"])


def _yes(holds: bool) -> str:
    return "it is" if holds else "IT IS NOT"
