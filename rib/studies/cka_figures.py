"""Figures of the study of representation shift: CKA by layer, and RI against mean CKA."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from rib.analysis.figures import WIDTH
from rib.analysis.layer_labels import by_block, number_blocks
from rib.data.worlds import title_of
from rib.metrics.rank import MeanCorrelation
from rib.reporting.folded_text import fold
from rib.reporting.sized_figure import LABEL, SizedFigure, tidy
from rib.reporting.style import NEUTRAL, style
from rib.studies.rows import n_of

MOST_LINES = 12
"""Most sources with a line of their own colour and marker; of more of them the mean stands out."""


BANDS = (
    "line per source",
    "Bands: 95 % intervals by the jackknife over batches of images, averaged over seeds; they cover other images, not "
    "another training run.",
)
BANDS_OF_MANY = ("grey line per source and a black one for their mean", "The table has their intervals.")
"""How the caption describes the lines of sources, and their intervals; of few and of many sources."""


def layers_figure(table: pd.DataFrame, dataset: str, note: str, width: float | None) -> SizedFigure:
    """Plot CKA by layer, a panel per curve and a line per source.

    Args:
        table: The study's table, only rows of layers.
        dataset: Dataset whose images both models see.
        note: End of the headline.
        width: Inches; None: 5.2.
    """
    curves, kind = list(dict.fromkeys(table["curve"])), table["kind"].iloc[0]
    sources = list(dict.fromkeys(table["source"]))
    figure = SizedFigure(WIDTH, width)
    columns = min(2 if figure.inches >= 4.5 else 1, len(curves))
    grid = figure.subplots(-(-len(curves) // columns), columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(curves) :]:
        axes.set_visible(False)
    for axes, curve in zip(grid.flat, curves, strict=False):
        here = table[table["curve"] == curve]
        tidy(axes)
        if len(sources) > MOST_LINES:
            _draw_mean(axes, here)
        else:
            for number, source in enumerate(sources):
                _draw_layers(axes, here[here["source"] == source], number, title_of(source, kind))
        in_blocks = number_blocks(axes, list(dict.fromkeys(here["layer"])), 0.8 * figure.inches / columns)
        axes.set_title(fold(curve, 0.75 * figure.inches / columns, LABEL), fontsize=LABEL, loc="left")
        axes.set_xlabel("block: its output" if in_blocks else "layer", fontsize=LABEL)
    for axes in grid[:, 0]:
        axes.set_ylabel("debiased linear CKA", fontsize=LABEL)
    n = f"{image_count(dataset, table)}; {n_of(table)}{note}"
    figure.headline(f"CKA of each layer with the pretrained model; {n}")
    figure.legend_below(*grid.flat[0].get_legend_handles_labels())
    inside = dict.fromkeys(name for _, name in by_block(list(dict.fromkeys(table["layer"]))) or [])
    points = f"Points of a block: {', '.join(inside)}. " if inside else ""
    per_source, bands = BANDS_OF_MANY if len(sources) > MOST_LINES else BANDS
    figure.caption = (
        "Debiased linear CKA of each layer with the same layer of the pretrained model, in the network's order, a "
        f"{per_source}; {n}. {points}{bands}"
    )
    return figure.fit(1.6 * grid.shape[0])


def _draw_mean(axes: Axes, here: pd.DataFrame) -> None:
    """Plot CKA by layer of many sources, which no colours tell apart, and its mean over them."""
    sources = here.pivot_table("cka", "source", "layer")[list(dict.fromkeys(here["layer"]))]
    for number, values in enumerate(sources.to_numpy()):
        axes.plot(range(len(values)), values, color=NEUTRAL, lw=0.6, label="a source" if number == 0 else None)
    axes.plot(range(sources.shape[1]), sources.mean(), color="black", lw=1.6, label=f"mean of {len(sources)} sources")


def image_count(dataset: str, table: pd.DataFrame) -> str:
    """Format the dataset and its number of images: ``ImageNet val, 240 images``."""
    return f"{title_of(dataset, table['kind'].iloc[0])}, {int(table['images'].max())} images"


def _draw_layers(axes: Axes, of_source: pd.DataFrame, number: int, label: str) -> None:
    """Plot CKA by layer, averaged over seeds, with its interval as a band."""
    means = of_source.groupby("layer", sort=False).mean(numeric_only=True)
    x, look = range(len(means)), style(number)
    if "cka_low" in means:
        axes.fill_between(x, means["cka_low"], means["cka_high"], color=look["color"], alpha=0.2, lw=0)
    line: dict[str, Any] = {**look, "ms": 3, "lw": 1, "label": label}
    axes.plot(x, means["cka"], **line)


def shift_figure(points: pd.DataFrame, correlation: MeanCorrelation | None, n: str, width: float | None) -> SizedFigure:
    """Plot RI against mean CKA, one point per source.

    Args:
        points: One row per curve and source, columns ``curve``, ``cka``, ``ri``.
        correlation: Rank correlation of the two, averaged over curves; None if there is none.
        n: Numbers of sources and seeds, and the data behind the runs.
        width: Inches; None: 4.6.
    """
    figure = SizedFigure(4.6, width)
    axes = figure.add_subplot()
    for number, (curve, group) in enumerate(points.groupby("curve", sort=False)):
        look: dict[str, Any] = {**style(number), "ms": 5, "ls": "none", "label": curve}
        axes.plot(group["cka"], group["ri"], **look)
    axes.axhline(0, color="black", lw=0.8)
    axes.set_xlabel("mean CKA with the pretrained model", fontsize=LABEL)
    axes.set_ylabel("RI, points", fontsize=LABEL)
    tidy(axes)
    heading = f"RI and representation shift, one point per source; {n}"
    within = "" if correlation is None else f"rank correlation, mean over curves: {correlation.within}"
    figure.headline("\n".join(filter(None, (heading, within))))
    figure.legend_below(*axes.get_legend_handles_labels())
    figure.caption = (
        "Robustness improvement (RI, percentage points) of each run against the mean debiased linear CKA of all layers "
        f"with the pretrained model, averaged over seeds; {len(points)} points, one per source; {n}. Point estimates"
        + (f"; {within}, 95 % interval over sources." if within else ".")
    )
    return figure.fit(2.6 * figure.narrowing)
