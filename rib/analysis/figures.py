"""Figures of the analyses: CKA by layer, between all layers and over epochs, and weight drift.

All are 5.2 inches wide unless another width is asked for. Colours are those of `rib.reporting.style`, and viridis where
colour encodes a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from rib.analysis.layer_labels import LINE, by_block, name_layers
from rib.data.worlds import title_of
from rib.reporting.folded_text import fold
from rib.reporting.formatting import world_of
from rib.reporting.sized_figure import LABEL, TICK, SizedFigure, tidy
from rib.reporting.style import GAIN, NEUTRAL, style

WIDTH = 5.2
"""Natural width of every figure, inches."""

Metadata = Mapping[str, Any]
"""Record of an analysis (`rib.analysis.cache.read_record`)."""


def curve_figure(tables: Sequence[tuple[pd.DataFrame, Metadata]], width: float | None = None) -> SizedFigure:
    """Plot CKA by layer with its intervals, one panel per dataset.

    Args:
        tables: By dataset, the table of layers (`LayerCKA.table`) and its metadata.
        width: Inches; None: 5.2.
    """
    figure = SizedFigure(WIDTH, width)
    panels = figure.subplots(len(tables), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
    for axes, (table, metadata) in zip(panels, tables, strict=True):
        tidy(axes)
        _curve(axes, table, 0.8 * figure.inches)
        axes.set_title(fold(_images(metadata), 0.75 * figure.inches, LABEL), fontsize=LABEL, loc="left")
        axes.set_ylabel(_estimator(metadata), fontsize=LABEL)
    lowest = float(
        np.nanmin([0.95, *(value for table, _ in tables for value in table[["cka", "low"]].to_numpy().flat)])
    )
    # The axis spans at least 0.95 to 1, so that rounding errors do not fill the panel.
    panels[0].set_ylim(lowest - 0.05 * (1 - lowest), 1 + 0.05 * (1 - lowest))
    if by_block(list(tables[0][0]["layer"])) is not None:
        panels[-1].set_xlabel("block", fontsize=LABEL)
    handles, labels = panels[0].get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend_below(handles, labels)
    figure.headline(_title(tables[0][1]) + "; bars: 95 %, jackknife over batches")
    samples = "; ".join(_images(metadata) for _, metadata in tables)
    figure.caption = (
        f"{_estimator(tables[0][1])} of each layer, {_title(tables[0][1])}. {samples}. Bars: 95 % intervals by the "
        "jackknife over batches of images; they cover other images, not another training run."
    )
    return figure.fit(1.7 * max(figure.narrowing, 0.75) * len(tables))


def _curve(axes: Axes, table: pd.DataFrame, room: float) -> None:
    if table.empty:
        axes.annotate(
            "the two models share no layer name", (0.5, 0.5), xycoords="axes fraction", ha="center", fontsize=TICK
        )
    blocks = by_block(list(table["layer"]))
    low, high = (table[end].fillna(table["cka"]) for end in ("low", "high"))
    errors = np.stack([table["cka"] - low, high - table["cka"]]).clip(min=0)
    if blocks is None:
        axes.errorbar(range(len(table)), table["cka"], errors, fmt="-o", color=GAIN, ms=3, lw=1, elinewidth=1)
        name_layers(axes.xaxis, list(table["layer"]), room)
    else:
        kinds = list(dict.fromkeys(name for _, name in blocks))
        for number, kind in enumerate(kinds):
            here = [i for i, (_, name) in enumerate(blocks) if name == kind]
            # Side by side within a block, so that error bars do not cover one another.
            x = np.array([blocks[i][0] for i in here]) + 0.09 * (number - (len(kinds) - 1) / 2)
            line: dict[str, Any] = {**style(number), "ms": 3.5, "lw": 1, "elinewidth": 1, "label": kind}
            axes.errorbar(x, table["cka"].iloc[here], errors[:, here], **line)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for index, (layer, note) in enumerate(zip(table["layer"], table["note"], strict=True)):
        if note:
            at = index if blocks is None else blocks[index][0]
            text = fold(f"{layer}: {note}", 1.1, TICK)
            axes.annotate(text, (at, 0.03), xycoords=("data", "axes fraction"), fontsize=TICK, rotation=90)
    axes.axhline(1, color=NEUTRAL, lw=0.6)


def heat_figure(arrays: Mapping[str, NDArray[Any]], metadata: Metadata, width: float | None = None) -> SizedFigure:
    """Plot CKA of every layer of one model with every layer of the other; grey where it is not defined.

    Args:
        arrays: `LayerCKA.arrays`.
        metadata: `LayerCKA.metadata`.
        width: Inches; None: 5.2.
    """
    values = np.where(arrays["defined"], arrays["cka"], np.nan)
    figure = SizedFigure(WIDTH, width)
    axes = figure.add_subplot()
    height = 0.62 * figure.inches
    # Debiased CKA may be below 0.
    picture = _heat_map(axes, values, min(0.0, _smallest(values)))
    for axis, names, room in ((axes.yaxis, arrays["one"], height), (axes.xaxis, arrays["other"], 0.45 * figure.inches)):
        name_layers(axis, [str(name) for name in names], room)
    axes.set_ylabel(fold(metadata["run_label"], height, LABEL), fontsize=LABEL)
    axes.set_xlabel(fold(metadata["against_label"], height, LABEL), fontsize=LABEL)
    figure.headline(f"{_images(metadata)}; {world_of(metadata['kind'], None)}")
    _colour_bar(figure, picture, metadata)
    figure.caption = (
        f"{_estimator(metadata)} of every layer of {metadata['run_label']} with every layer of "
        f"{metadata['against_label']}; {_images(metadata)}; {world_of(metadata['kind'], None)}. Grey: not defined (a "
        "constant or unused layer). Point estimates; cka.csv has intervals of equal layers."
    )
    return figure.fit(height)


def epochs_figure(table: pd.DataFrame, metadata: Metadata, width: float | None = None) -> SizedFigure:
    """Plot CKA with the pretrained model by layer (upwards) and epoch; colours range from the smallest value to 1.

    Args:
        table: The table in cka_epochs.csv.
        metadata: `LayerCKA.metadata` of the final weights.
        width: Inches; None: 5.2.
    """
    layers = list(dict.fromkeys(table["layer"]))
    values = table.pivot_table(index="layer", columns="epoch", values="cka", dropna=False).loc[layers]
    figure = SizedFigure(WIDTH, width)
    axes = figure.add_subplot()
    numbers = values.to_numpy(dtype=float)
    picture = _heat_map(axes, numbers, _smallest(numbers))
    every = -(-len(values.columns) // max(1, int(0.5 * figure.inches / 0.25)))
    epochs = range(0, len(values.columns), every)
    axes.set_xticks(epochs, [str(values.columns[i]) for i in epochs], fontsize=TICK)
    height = min(LINE * 1.1 * max(10, len(layers)), 6.0)
    name_layers(axes.yaxis, layers, height)
    axes.set_xlabel("after epoch", fontsize=LABEL)
    figure.headline(f"{_title(metadata)}\n{_images(metadata)}")
    _colour_bar(figure, picture, metadata)
    figure.caption = (
        f"{_estimator(metadata)} by layer, after each of {len(values.columns)} epochs; {_title(metadata)}; "
        f"{_images(metadata)}. Point estimates; cka_epochs.csv has intervals."
    )
    return figure.fit(height)


def drift_figure(table: pd.DataFrame, metadata: Metadata, width: float | None = None) -> SizedFigure:
    """Plot the weight drift of each layer as a bar, from input to output.

    Args:
        table: The table in drift.csv.
        metadata: Labels of the two runs.
        width: Inches; None: 5.2.
    """
    figure = SizedFigure(WIDTH, width)
    axes = figure.add_subplot()
    axes.barh(range(len(table)), 100 * table["drift"].fillna(0.0), color=GAIN, height=0.7)
    axes.set_ylim(len(table) - 0.4, -0.6)
    height = min(max(0.6, 1.2 * LINE * len(table)), 8.0)
    name_layers(axes.yaxis, list(table["layer"]), height)
    tidy(axes, "x")
    axes.set_xlabel(fold("distance that weights moved, % of their norm before", 0.6 * figure.inches, LABEL), fontsize=8)
    figure.headline(_title(metadata))
    figure.caption = (
        f"Distance that the weights of each of {len(table)} layers moved, relative to their norm before; "
        f"{_title(metadata)}. One run, exact: no interval."
    )
    return figure.fit(height)


def _heat_map(axes: Axes, values: NDArray[Any], smallest: float) -> Any:
    colours = mpl.colormaps["viridis"].with_extremes(bad="lightgrey")
    masked = np.ma.masked_invalid(values)
    return axes.imshow(masked, origin="lower", cmap=colours, vmin=smallest, vmax=1, aspect="auto")


def _colour_bar(figure: SizedFigure, picture: Any, metadata: Metadata) -> None:
    bar = figure.colorbar(picture, ax=figure.axes[0])
    bar.set_label(_estimator(metadata), fontsize=LABEL)
    bar.ax.tick_params(labelsize=TICK)


def _smallest(values: NDArray[np.float64]) -> float:
    return float(np.nanmin(values)) if np.isfinite(values).any() else 0.0


def _estimator(metadata: Metadata) -> str:
    return "debiased linear CKA" if metadata["estimator"] == "minibatch" else "linear CKA (biased)"


def _title(metadata: Metadata) -> str:
    return f"{metadata['run_label']}\nagainst {metadata['against_label']}; {world_of(metadata['kind'], None)}"


def _images(metadata: Metadata) -> str:
    return f"{title_of(metadata['dataset'], metadata['kind'])}, n = {metadata['images']:,}"
