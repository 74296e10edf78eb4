"""Curves and ticks shared by the studies' figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import log
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from rib.data.worlds import in_distribution_of, title_of
from rib.reporting.folded_text import fold, text_width
from rib.reporting.sized_figure import LABEL, TICK, SizedFigure, tidy
from rib.reporting.style import style
from rib.studies.rows import kind_in


def draw_curve(axes: Axes, x: str, curve: pd.DataFrame, number: int, label: str) -> None:
    """Plot mRI along a curve: its interval over images as a band, that over seeds as bars if all points have several.

    Args:
        axes: Axes to plot on.
        x: Column of the x values.
        curve: Rows of one curve.
        number: Number of the curve, which selects its `style`.
        label: Label in the legend.
    """
    curve = curve.sort_values(x)
    look = style(number)
    line: dict[str, Any] = {**look, "ms": 4, "lw": 1.4, "label": label}
    if curve[x].duplicated().any():  # several models at one x: a line between them would mean nothing
        ends = [curve["mri"] - curve["low"], curve["high"] - curve["mri"]]
        axes.errorbar(curve[x], curve["mri"], ends, fmt="none", color=look["color"], alpha=0.4, elinewidth=4)
        line |= {"ls": "none"}
    else:
        axes.fill_between(curve[x], curve["low"], curve["high"], color=look["color"], alpha=0.2, lw=0)
    axes.plot(curve[x], curve["mri"], **line)
    if (curve["num_seeds"] > 1).all():
        axes.vlines(curve[x], curve["seeds_low"], curve["seeds_high"], color=look["color"], lw=0.9)


def val_of(table: pd.DataFrame) -> str:
    """Return the title of the in-distribution dataset of a table's data, ``ImageNet val``; empty if there is none."""
    name, kind = in_distribution_of(kind_in(table)), kind_in(table)
    return "" if name is None else title_of(name, kind)


def accuracies(table: pd.DataFrame) -> dict[str, str]:
    """Return the accuracies that a table has, by prefix of their columns, with the labels of their axes."""
    known = {"source": "source,\ntop-1 %", "val": f"{fold(val_of(table), 1.0, LABEL)},\ntop-1 %"}
    return {name: label for name, label in known.items() if table[f"{name}_after"].notna().any()}


def curves_figure(table: pd.DataFrame, x: str, width: float | None) -> tuple[SizedFigure, list[Axes]]:
    """Plot mRI against a column, a line per curve, and below it accuracy on the source and in distribution.

    Args:
        table: Columns ``curve``, those of `rib.studies.rows.numbers`, and ``x``.
        x: Column of the x values, above 0, drawn on a log scale.
        width: Inches; None: 4.6.

    Returns:
        The figure without headline, and its panels from top to bottom.
    """
    figure, beside = SizedFigure(4.6, width), accuracies(table)
    ratios = [3, *(2 for _ in beside)]
    axes = list(figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios, squeeze=False)[:, 0])
    for number, (name, curve) in enumerate(table.groupby("curve")):
        draw_curve(axes[0], x, curve, number, str(name))
        for below, column in zip(axes[1:], beside, strict=True):
            _draw_accuracy(below, x, curve, number, column)
    axes[0].axhline(0, color="black", lw=0.8)
    for panel, label in zip(axes, ["mRI, points", *beside.values()], strict=True):
        panel.set_ylabel(label, fontsize=LABEL)
        tidy(panel)
    log_ticks(axes[-1], table[x], figure.inches)
    handles, names = axes[0].get_legend_handles_labels()
    if beside:
        handles, names = [*handles, Line2D([], [], color="black", lw=0.8, ls=":")], [*names, "before fine-tuning"]
    figure.legend_below(handles, names)
    return figure, axes


def height_of(figure: SizedFigure, axes: Sequence[Axes]) -> float:
    """Return the height in inches of the panels of `curves_figure`, for `SizedFigure.fit`."""
    return (1.8 + 1.2 * (len(axes) - 1)) * max(figure.narrowing, 0.75)


def _draw_accuracy(axes: Axes, x: str, curve: pd.DataFrame, number: int, column: str) -> None:
    """Plot accuracy after fine-tuning along a curve, and before as dotted lines."""
    curve = curve.sort_values(x)
    look = style(number)
    line: dict[str, Any] = {**look, "ms": 3.5, "lw": 1.2}
    if curve[x].duplicated().any():  # several models at one x: a line between them would mean nothing
        line |= {"ls": "none"}
    if f"{column}_low" in curve:  # of the change: around accuracy after fine-tuning
        low, high = (curve[f"{column}_before"] + curve[f"{column}_{end}"] for end in ("low", "high"))
        axes.fill_between(curve[x], low, high, color=look["color"], alpha=0.2, lw=0)
    axes.plot(curve[x], curve[f"{column}_after"], **line)
    axes.plot(curve[x], curve[f"{column}_before"], color=look["color"], lw=0.8, ls=":")


BANDS = (
    "Band: 95 % interval over images; bars: 95 % interval over seeds (Student's t), where all points have several "
    "seeds. Accuracies without a band are point estimates; dotted: before fine-tuning"
)
"""Description of `curves_figure` for captions."""


def log_ticks(axes: Axes, values: Iterable[float], inches: float) -> None:
    """Set a log scale with a tick at each value; labels that would overlap are left out.

    Args:
        axes: Axes whose x axis is set.
        values: Where the ticks are; values of 0 or less have none.
        inches: Width of the figure.
    """
    ticks = sorted({value for value in values if value > 0})
    axes.set_xscale("log")
    labelled: list[float] = []
    for value in ticks:
        # The axis takes about three quarters of the figure.
        share = (text_width(short(value), TICK) + 0.12) / (0.75 * inches)
        if not labelled or log(value / labelled[-1]) > share * log(ticks[-1] / ticks[0]):
            labelled.append(value)
    axes.set_xticks(ticks, [short(value) if value in labelled else "" for value in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


def short(value: float) -> str:
    """Format a number in at most three digits and a unit: ``0.0002``, ``50``, ``30k``, ``12.8M``, ``1.28B``."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}"
