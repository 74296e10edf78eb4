"""Figure of the trials of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rib.reporting.captions import counted
from rib.reporting.sized_figure import LABEL, TICK, SizedFigure, tidy
from rib.reporting.style import GAIN, LOSS, NEUTRAL


def search_figure(
    rows: Sequence[Mapping[str, Any]], options: Sequence[str], about: str, width: float | None = None
) -> SizedFigure:
    """Plot held-out accuracy of a hyperparameter search's trials against its first option; colours show a second.

    Args:
        rows: One per trial, best first (`rib.sweeps.search.trial_rows`); diverged trials are crosses at the bottom.
        options: Names of the searched options, one or two.
        about: Title: model, method, source and data.
        width: Inches; None: 5.6.
    """
    figure = SizedFigure(5.6, width)
    axes = figure.add_subplot()
    done = [row for row in rows if "held_out" in row]
    x, y = [row[options[0]] for row in done], [100 * row["held_out"] for row in done]
    if len(options) > 1:
        dots = axes.scatter(x, y, s=28, c=[row[options[1]] for row in done], norm="log", cmap="viridis", zorder=2)
        bar = figure.colorbar(dots, ax=axes)
        bar.set_label(options[1], fontsize=LABEL)
        bar.ax.tick_params(labelsize=TICK)
        bar.ax.tick_params(which="minor", labelsize=TICK)
    else:
        axes.scatter(x, y, s=28, color=GAIN, zorder=2)
    axes.plot(x[0], y[0], "o", mfc="none", mec=LOSS, ms=12, ls="none", label="best")
    if diverged := [row[options[0]] for row in rows if "held_out" not in row]:
        # They have no accuracy: the y value is a fraction of the axis, not a percentage.
        heights = [0.03] * len(diverged)
        axes.plot(diverged, heights, "x", color=LOSS, transform=axes.get_xaxis_transform(), label="diverged")
    axes.axhline(100 * done[0]["before"], color=NEUTRAL, lw=0.8, ls="--", label="before training")
    axes.set_xscale("log")
    axes.set_xlabel(options[0], fontsize=LABEL)
    axes.set_ylabel("top-1 on held-out images, %", fontsize=LABEL)
    tidy(axes)
    figure.legend_below(*axes.get_legend_handles_labels())
    figure.headline(about)
    figure.caption = (
        f"Accuracy of {counted([len(rows)], 'trial')} on {done[0]['num_images']} images held out of the source, by "
        f"{' and '.join(options)}; {about}. Point estimates of one run each, without intervals; no target was used."
    )
    return figure.fit(2.6 * figure.narrowing)
