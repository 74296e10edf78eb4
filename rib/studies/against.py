"""mRI against one option, a line a model and method: a learning rate, a strength, a subset's size."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from rib.figures import style
from rib.grid import Cell
from rib.store import RunStore
from rib.studies.base import Made, Study, draw_curve, log_ticks, n_of, name_curves, need_axis, rows, said, tidy
from rib.tables import before_after


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
        return pd.DataFrame([row.facts for row in found]).sort_values(["curve", self.option], ignore_index=True)

    def paragraph(self, table: pd.DataFrame) -> str:
        """For each curve: its ends, its best value, and whether any value gains robustness."""
        lines = [
            f"mRI against {self.title}, points, 95 % over images; accuracy on the source; {n_of(table, named=True)}."
        ]
        for curve, group in table.groupby("curve"):
            points = group.to_dict("records")
            first, last, best = points[0], points[-1], max(points, key=lambda row: row["mri"])
            told = f"best at {best[self.option]:g}" if best in (first, last) else f"best {self._point(best)}"
            gains = sum(row["low"] > 0 for row in points)
            ends = " to ".join(dict.fromkeys([self._point(first), self._point(last)]))
            lines.append(
                f"{curve}: {ends}; {told}; {gains} of {len(points)} values gain robustness (interval above 0)."
            )
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

    def _point(self, row: Mapping[Hashable, Any]) -> str:
        source = before_after(row["source_before"], row["source_after"])
        return f"{said(row)} at {row[self.option]:g} (source {source} %)"
