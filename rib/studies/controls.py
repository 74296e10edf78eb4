"""Study of negative controls: runs whose outcome is known in advance, each checked against it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rib.errors import RibError
from rib.reporting.captions import OVER_IMAGES
from rib.reporting.formatting import before_after
from rib.reporting.sized_figure import TICK, SizedFigure, fold_below, name_rows, tidy
from rib.reporting.style import GAIN, LOSS
from rib.reporting.summary import PLAIN
from rib.reporting.summary_panels import draw_accuracy
from rib.runs.spec import PRETRAINED
from rib.runs.store import RunStore
from rib.studies.plots import accuracies
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
        """Plot mRI of the controls and of plain fine-tuning, with a cross where the outcome is not as expected.

        Accuracy on the source and in distribution stands beside it.
        """
        beside, figure = accuracies(table), SizedFigure(6.4, self.width)
        ratios = [1.7, *(1.0 for _ in beside)]
        axes = figure.subplots(1, len(ratios), squeeze=False, gridspec_kw={"width_ratios": ratios})[0]
        records = table.to_dict("records")
        for y, row in enumerate(records):
            holds = row["holds"] is None or bool(row["holds"])
            colour = GAIN if holds else LOSS
            axes[0].plot([row["low"], row["high"]], [y, y], color=colour, lw=5, alpha=0.4, solid_capstyle="butt")
            axes[0].plot(row["mri"], y, "o" if holds else "X", color=colour, ms=4.5)
            for panel, name in zip(axes[1:], beside, strict=True):
                draw_accuracy(panel, y, row[f"{name}_before"], row[f"{name}_after"])
        row_height = name_rows(axes[0], [f"{r['model']}, {r['control']}" for r in records], 0.27 * figure.inches)
        axes[0].axvline(0, color="black", lw=0.8)
        for panel, label in zip(axes, ["mRI, points", *beside.values()], strict=True):
            tidy(panel, "x")
            panel.set_xlabel(fold_below(label, figure.inches), fontsize=TICK)
        for panel in axes[1:]:
            panel.set_yticks(range(len(table)), [""] * len(table))
            panel.set_ylim(axes[0].get_ylim())
            panel.margins(x=0.1)
        figure.headline(f"Negative controls; {_n(table)}{self.note}")
        figure.legend_below(*_legend())
        figure.caption = (
            "mRI (percentage points) and accuracy of negative controls, whose outcome is known in advance; "
            f"{_n(table, named=True)}{self.note}. Bars: 95 % intervals over images. {OVER_IMAGES}. "
            "A cross: the outcome is not as expected."
        )
        return {"controls": figure.fit(max(0.6, row_height * len(table)))}


def _legend() -> tuple[list[Line2D], list[str]]:
    looks: dict[str, dict[str, Any]] = {
        "95 % over images": {"color": "black", "lw": 5, "alpha": 0.4},
        "as expected": {"color": GAIN, "marker": "o", "ls": "none", "ms": 4.5},
        "not as expected": {"color": LOSS, "marker": "X", "ls": "none", "ms": 4.5},
        "accuracy before": {"color": "black", "marker": "o", "mfc": "white", "lw": 1.2, "ms": 3.5},
        "after": {"color": "black", "marker": "o", "lw": 1.2, "ms": 3.5},
    }
    return [Line2D([], [], **look) for look in looks.values()], list(looks)


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
