"""mRI against one option, a line a model and method: a learning rate, a strength, a subset's size."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rib.figures import SERIES
from rib.store import RunStore
from rib.studies.base import Made, log_ticks, n_of, rows, said, tidy


class Against:
    """A curve of mRI over the values of one option.

    Args:
        option: Of the axes, ``optimizer.lr``.
        title: What it is for people, with its unit, ``peak learning rate``.
    """

    def __init__(self, option: str, title: str) -> None:
        self.option, self.title = option, title

    def table(self, made: Sequence[Made], store: RunStore) -> pd.DataFrame:
        """One row a model, method and value."""
        return pd.DataFrame(rows(made, store)).sort_values(["model", "method", self.option], ignore_index=True)

    def paragraph(self, table: pd.DataFrame) -> str:
        """For each curve: its ends, its best value, and whether any value gains robustness."""
        lines = [f"mRI against {self.title}, points, 95 % over images, and accuracy on the source; {n_of(table)}."]
        for (model, method), group in table.groupby(["model", "method"]):
            curve = group.to_dict("records")
            best, gains = max(curve, key=lambda row: row["mri"]), sum(row["low"] > 0 for row in curve)
            told = f"best at {best[self.option]:g}" if best in (curve[0], curve[-1]) else f"best {self._point(best)}"
            lines.append(
                f"{model}, {method}: {self._point(curve[0])} to {self._point(curve[-1])}; {told}; "
                f"{gains} of {len(curve)} values gain robustness (interval above 0)."
            )
        return "\n".join(lines)

    def figures(self, table: pd.DataFrame) -> dict[str, Figure]:
        """MRI over the option, and under it the accuracy on the source, which is what fine-tuning is for."""
        figure = Figure(figsize=(4.6, 5.2), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        curves = list(table.groupby(["model", "method"]))
        for number, ((model, method), curve) in enumerate(curves):
            colour, marker = SERIES[number % len(SERIES)], "os^Dv<>"[number % 7]
            label = f"{model}, {method}" if len(set(table["method"])) > 1 else str(model)
            self._line(above, curve, colour, marker, label)
            below.plot(curve[self.option], curve["source_after"], color=colour, marker=marker, ms=4, lw=1.2)
            below.axhline(curve["source_before"].iloc[0], color=colour, lw=0.8, ls=":")
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
        source = f"{row['source_before']:.1f} > {row['source_after']:.1f} %"
        return f"{said(row)} at {row[self.option]:g} (source {source})"

    def _line(self, axes: Axes, curve: pd.DataFrame, colour: str, marker: str, label: str) -> None:
        x = curve[self.option]
        axes.fill_between(x, curve["low"], curve["high"], color=colour, alpha=0.2, lw=0)
        axes.plot(x, curve["mri"], color=colour, marker=marker, ms=4, lw=1.4, label=label)
        if (curve["num_seeds"] > 1).all():
            axes.vlines(x, curve["seeds_low"], curve["seeds_high"], color=colour, lw=0.9)
