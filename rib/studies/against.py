"""Study of mRI against the values of one option, such as the learning rate, with a line per model and method."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from math import isnan, nan
from statistics import fmean
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from rib.reporting.captions import OVER_IMAGES
from rib.reporting.formatting import before_after
from rib.reporting.sized_figure import LABEL
from rib.reporting.summary import select_balanced
from rib.runs.store import RunStore
from rib.studies.plots import BANDS, curves_figure, height_of
from rib.studies.rows import Row, count_gains, format_effect, n_of, name_curves, rows, with_holm
from rib.sweeps.plan import Cell
from rib.sweeps.study import Made, Study, need_axis


class Against(Study):
    """Study of mRI as a function of one option's value, such as the learning rate.

    Args:
        option: Name of the option, one of the grid's axes, ``optimizer.lr``.
        title: Label of the option in text and figures, with its unit if it has one, ``peak learning rate``.
    """

    def __init__(self, option: str, title: str) -> None:
        self.option, self.title = option, title

    def check(self, cells: Sequence[Cell]) -> None:
        """Check that every cell (a run of the grid) has a value of the option that the study varies."""
        super().check(cells)
        need_axis(cells, self.option, "this study")

    def table(self, made: Sequence[Made], store: RunStore) -> pd.DataFrame:
        """Return the study's table: one row per curve (model, method, settings) and value of the option."""
        grouped = rows(made, store)
        name_curves(grouped, [self.option])
        table = pd.DataFrame([{**row.columns, "held_out_after": _held_out(row)} for row in grouped])
        return with_holm(table).sort_values(["curve", self.option], ignore_index=True)

    def paragraph(self, table: pd.DataFrame) -> str:
        """Describe each curve: mRI at its ends, the value most accurate on the source, how many have mRI above 0."""
        lines = [
            f"mRI against {self.title}, in percentage points with 95 % intervals over images only, each on its own; "
            f"accuracy on the source. A value gains robustness if mRI is above 0 with p < 0.05 after Holm over "
            f"{len(table)} values; {n_of(table, named=True)}."
        ]
        for curve, group in table.groupby("curve"):
            points = group.to_dict("records")
            ends = " to ".join(dict.fromkeys([self._point(points[0]), self._point(points[-1])]))
            gains = f"{count_gains(group)} of {len(points)} values gain robustness"
            lines.append(f"{curve}: {ends}; {self._best(points)}; {gains}.")
        return "\n".join(lines)

    def figures(self, table: pd.DataFrame) -> dict[str, Figure]:
        """Plot mRI against the option's value, and below it accuracy on the source and in distribution."""
        figure, axes = curves_figure(table, self.option, self.width)
        axes[-1].set_xlabel(self.title, fontsize=LABEL)
        figure.headline(f"mRI against {self.title}; {n_of(table)}{self.note}")
        figure.caption = (
            f"Mean robustness improvement (mRI, percentage points) and top-1 accuracy against {self.title}; "
            f"{n_of(table, named=True)}{self.note}. {BANDS}. {OVER_IMAGES}."
        )
        return {"against": figure.fit(height_of(figure, axes))}

    def _best(self, points: Sequence[Mapping[Hashable, Any]]) -> str:
        """Describe the most accurate point of a curve on images held out of the source, else on the source.

        mRI never chooses, since it is measured on the targets.
        """
        for column, where in (("held_out_after", "images held out of the source"), ("source_after", "the source")):
            if not any(isnan(row[column]) for row in points):
                best = max(points, key=lambda row: row[column])  # among equals the first, which is the smallest value
                # The two ends are already printed in full on this line.
                point = f"at {best[self.option]:g}" if best in (points[0], points[-1]) else self._point(best)
                return f"best on {where}: {point}"
        return "no best value, since accuracy on the source was not scored"

    def _point(self, row: Mapping[Hashable, Any]) -> str:
        source = before_after(row["source_before"], row["source_after"])
        return f"{format_effect(row)} at {row[self.option]:g} (source {source} %)"


def _held_out(row: Row) -> float:
    """Return the mean accuracy of a row's runs on images held out of the source, percent; NaN if a run has none."""
    results = [m for _, m in select_balanced([one.result for one in row.made])]
    held = [m["held_out"]["after"] for m in results if "held_out" in m]
    return 100 * fmean(held) if len(held) == len(results) else nan
