"""Curves, ticks and axes shared by the studies' figures."""

from __future__ import annotations

from collections.abc import Iterable
from math import log
from typing import Any, Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from rib.reporting.style import style


def draw_curve(
    axes: Axes, x: str, curve: pd.DataFrame, number: int, label: str, value: str = "mri", of: str = ""
) -> None:
    """Plot a curve with its interval over images as a band, and over seeds as bars if all points have several seeds.

    Args:
        axes: Axes to plot on.
        x: Column of the x values.
        curve: Rows of one curve.
        number: Number of the curve, which selects its `style`.
        label: Label in the legend.
        value: Column of the estimate.
        of: Prefix of the interval columns ``low``, ``high``, ``seeds_low``, ``seeds_high``.
    """
    curve = curve.sort_values(x)
    look = style(number)
    line: dict[str, Any] = {**look, "ms": 4, "lw": 1.4, "label": label}
    if curve[x].duplicated().any():  # several models at one x: a line between them would mean nothing
        ends = [curve[value] - curve[f"{of}low"], curve[f"{of}high"] - curve[value]]
        axes.errorbar(curve[x], curve[value], ends, fmt="none", color=look["color"], alpha=0.4, elinewidth=4)
        line |= {"ls": "none"}
    else:
        axes.fill_between(curve[x], curve[f"{of}low"], curve[f"{of}high"], color=look["color"], alpha=0.2, lw=0)
    axes.plot(curve[x], curve[value], **line)
    if (curve["num_seeds"] > 1).all():
        axes.vlines(curve[x], curve[f"{of}seeds_low"], curve[f"{of}seeds_high"], color=look["color"], lw=0.9)


def tidy(axes: Axes, along: Literal["both", "x"] = "both") -> None:
    """Apply the look of all studies: small tick labels, a light grid, no box."""
    axes.tick_params(axis=along, labelsize=8)
    axes.grid(axis=along, lw=0.4, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)


def log_ticks(axes: Axes, values: Iterable[float]) -> None:
    """Set a log scale with a tick at each value; labels that would overlap are left out."""
    ticks = sorted({value for value in values if value > 0})
    axes.set_xscale("log")
    labelled: list[float] = []
    for value in ticks:
        # A label of six digits at 8 points is about 7 % of the width of the figure.
        if not labelled or log(value / labelled[-1]) > 0.07 * log(ticks[-1] / ticks[0]):
            labelled.append(value)
    axes.set_xticks(ticks, [short(value) if value in labelled else "" for value in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


def short(value: float) -> str:
    """Format a number in at most three digits and a unit: ``0.0002``, ``50``, ``30k``, ``12.8M``, ``1.28B``."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}"
