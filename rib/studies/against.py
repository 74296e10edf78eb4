"""mRI against one option, a line a model and method: a learning rate, a strength, a subset's size."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from math import isnan, nan
from statistics import fmean
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from rib.reporting.formatting import before_after
from rib.reporting.style import style
from rib.reporting.summary import select_balanced
from rib.runs.store import RunStore
from rib.studies.plots import draw_curve, log_ticks, tidy
from rib.studies.rows import Row, format_effect, gaining, n_of, name_curves, rows, with_holm
from rib.sweeps.plan import Cell
from rib.sweeps.study import Made, Study, need_axis


class Against(Study):
    """A curve of mRI over the values of one option.

    Args:
        option: Of the axes, ``optimizer.lr``.
        title: What it is for people, with its unit, ``peak learning rate``.
    """

    def __init__(self, option: str, title: str) -> None:
        self.option, self.title = option, title

    def check(self, cells: Sequence[Cell]) -> None:
        """Every cell has a value of the option."""
        super().check(cells)
        need_axis(cells, self.option, "this study")

    def table(self, made: Sequence[Made], store: RunStore) -> pd.DataFrame:
        """One row a curve and value."""
        found = rows(made, store)
        name_curves(found, [self.option])
        table = pd.DataFrame([{**row.facts, "held_out_after": _held_out(row)} for row in found])
        return with_holm(table).sort_values(["curve", self.option], ignore_index=True)

    def paragraph(self, table: pd.DataFrame) -> str:
        """For each curve: its ends, the value that is best on the source, and how many values gain robustness."""
        lines = [
            f"mRI against {self.title}, points, 95 % over images only, each for itself; accuracy on the source; a "
            f"value gains robustness by p < 0.05 after Holm over {len(table)} of them; {n_of(table, named=True)}."
        ]
        for curve, group in table.groupby("curve"):
            points = group.to_dict("records")
            ends = " to ".join(dict.fromkeys([self._point(points[0]), self._point(points[-1])]))
            gains = f"{gaining(group)} of {len(points)} values gain robustness"
            lines.append(f"{curve}: {ends}; {self._best(points)}; {gains}.")
        return "\n".join(lines)

    def figures(self, table: pd.DataFrame) -> dict[str, Figure]:
        """MRI over the option, and under it the accuracy on the source, which is what fine-tuning is for."""
        figure = Figure(figsize=(4.6, 5.2), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        for number, (label, curve) in enumerate(table.groupby("curve")):
            look = style(number)
            draw_curve(above, self.option, curve, number, str(label))
            line: dict[str, Any] = {**look, "ms": 4, "lw": 1.2}
            below.plot(curve[self.option], curve["source_after"], **line)
            below.axhline(curve["source_before"].iloc[0], color=look["color"], lw=0.8, ls=":")
        above.axhline(0, color="black", lw=0.8)
        above.set_ylabel("mRI, percentage points\nband: 95 % over images", fontsize=8)
        below.set_ylabel("accuracy on the source, %\ndotted: before", fontsize=8)
        log_ticks(below, table[self.option])
        below.set_xlabel(f"{self.title}; {n_of(table)}", fontsize=8)
        for axes in (above, below):
            tidy(axes)
        figure.legend(loc="outside upper left", ncols=2, fontsize=8, frameon=False)
        return {"against": figure}

    def _best(self, points: Sequence[Mapping[Hashable, Any]]) -> str:
        """The value that images held out of the source choose, else the source; never mRI, which is of targets."""
        for column, where in (("held_out_after", "images held out of the source"), ("source_after", "the source")):
            if not any(isnan(row[column]) for row in points):
                best = max(points, key=lambda row: row[column])  # of equals the first, which moves least
                told = f"at {best[self.option]:g}" if best in (points[0], points[-1]) else self._point(best)
                return f"best on {where}: {told}"
        return "none is best, as accuracy on the source is not scored"

    def _point(self, row: Mapping[Hashable, Any]) -> str:
        source = before_after(row["source_before"], row["source_after"])
        return f"{format_effect(row)} at {row[self.option]:g} (source {source} %)"


def _held_out(row: Row) -> float:
    """Accuracy on what was held out of the source, percent, the mean; NaN where nothing was."""
    results = [m for _, m in select_balanced([one.result for one in row.made])]
    held = [m["held_out"]["after"] for m in results if "held_out" in m]
    return 100 * fmean(held) if len(held) == len(results) else nan
