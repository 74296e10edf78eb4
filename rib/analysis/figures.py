"""Figures of the analyses: CKA by layer, between all layers and over epochs, and weight drift.

All are one column wide (5.2 in) with text of 7 to 9 points. Colours are those of `rib.reporting.style`, and viridis
where colour encodes a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from rib.data.worlds import title_of
from rib.reporting.formatting import world_of
from rib.reporting.style import GAIN, NEUTRAL, save, style

WIDTH = 5.2
"""Width of every figure, inches."""

OUTPUT = "block output"
"""Label of a block's own output, beside those of the layers inside it."""

MAX_NAMES = 24
"""Most names of layers that fit beside a heat map."""

Metadata = Mapping[str, Any]
"""Record of an analysis (`rib.analysis.cache.read_record`)."""


def by_block(layers: Sequence[str]) -> list[tuple[int, str]] | None:
    """Split each layer name of a ViT into the number of its block and its name inside the block.

    Args:
        layers: Names such as ``blocks.3.mlp.fc1``.

    Returns:
        Pairs such as ``(3, "mlp.fc1")``; None if the layers are not all in one list of blocks, as in a ConvNet.
    """
    split = [name.split(".") for name in layers]
    depths = [next((i for i, word in enumerate(words) if word.isdecimal()), None) for words in split]
    if not layers or None in depths or len({tuple(words[:i]) for words, i in zip(split, depths, strict=True)}) > 1:
        return None
    pairs = [(int(words[i]), ".".join(words[i + 1 :])) for words, i in zip(split, depths, strict=True) if i is not None]
    if any(name.split(".")[-1].isdecimal() for _, name in pairs if name):
        return None
    return [(block, name or OUTPUT) for block, name in pairs]


def curve_figure(tables: Sequence[tuple[pd.DataFrame, Metadata]], file: Path) -> Path:
    """Plot CKA by layer with its intervals, one panel per dataset.

    Args:
        tables: By dataset, the table of layers (`LayerCKA.table`) and its metadata.
        file: PNG file to write.

    Returns:
        ``file``.
    """
    figure = Figure(figsize=(WIDTH, 1.0 + 1.9 * len(tables)), layout="constrained")
    panels = figure.subplots(len(tables), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
    for axes, (table, metadata) in zip(panels, tables, strict=True):
        _curve(axes, table)
        axes.set_title(f"{_images(metadata)}; bars: 95 %, jackknife over batches", fontsize=8, loc="left")
        axes.set_ylabel(_estimator(metadata), fontsize=8)
        _tidy(axes)
    lowest = float(
        np.nanmin([0.95, *(value for table, _ in tables for value in table[["cka", "low"]].to_numpy().flat)])
    )
    # The axis spans at least 0.95 to 1, so that rounding errors do not fill the panel.
    panels[0].set_ylim(lowest - 0.05 * (1 - lowest), 1 + 0.05 * (1 - lowest))
    if by_block(list(tables[0][0]["layer"])) is not None:
        panels[-1].set_xlabel("block", fontsize=8)
    handles, labels = panels[0].get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.suptitle(_title(tables[0][1]), fontsize=8.5)
    return save(figure, file)


def _curve(axes: Axes, table: pd.DataFrame) -> None:
    if table.empty:
        axes.annotate(
            "the two models share no layer name", (0.5, 0.5), xycoords="axes fraction", ha="center", fontsize=8
        )
    blocks = by_block(list(table["layer"]))
    low, high = (table[end].fillna(table["cka"]) for end in ("low", "high"))
    errors = np.stack([table["cka"] - low, high - table["cka"]]).clip(min=0)
    if blocks is None:
        axes.errorbar(range(len(table)), table["cka"], errors, fmt="-o", color=GAIN, ms=3, lw=1, elinewidth=1)
        axes.set_xticks(range(len(table)), list(table["layer"]), rotation=90, fontsize=min(8, 260 / max(1, len(table))))
    else:
        axes.tick_params(axis="x", labelsize=8)
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
            axes.annotate(f"{layer}: {note}", (at, 0.02), xycoords=("data", "axes fraction"), fontsize=6, rotation=90)
    axes.tick_params(axis="y", labelsize=8)
    axes.axhline(1, color=NEUTRAL, lw=0.6)


def heat_figure(arrays: Mapping[str, NDArray[Any]], metadata: Metadata, file: Path) -> Path:
    """Plot CKA of every layer of one model with every layer of the other; grey where it is not defined.

    Args:
        arrays: `LayerCKA.arrays`.
        metadata: `LayerCKA.metadata`.
        file: PNG file to write.

    Returns:
        ``file``.
    """
    values = np.where(arrays["defined"], arrays["cka"], np.nan)
    figure = Figure(figsize=(WIDTH, WIDTH * 0.86), layout="constrained")
    axes = figure.add_subplot()
    picture = axes.imshow(
        np.ma.masked_invalid(values),
        origin="lower",
        cmap=_viridis(),
        vmin=min(0.0, _smallest(values)),  # debiased CKA may be below 0
        vmax=1,
        aspect="auto",
    )
    for axis, names in ((axes.yaxis, arrays["one"]), (axes.xaxis, arrays["other"])):
        _name_layers(axis, [str(name) for name in names])
    axes.set_ylabel(metadata["run_label"], fontsize=8)
    axes.set_xlabel(metadata["against_label"], fontsize=8)
    axes.set_title(f"{_images(metadata)}; {_world(metadata)}", fontsize=8)
    bar = figure.colorbar(picture, ax=axes, shrink=0.9)
    bar.set_label(_estimator(metadata), fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return save(figure, file)


def epochs_figure(table: pd.DataFrame, metadata: Metadata, file: Path) -> Path:
    """Plot CKA with the pretrained model by layer (upwards) and epoch; colours range from the smallest value to 1.

    Args:
        table: The table in cka_epochs.csv.
        metadata: `LayerCKA.metadata` of the final weights.
        file: PNG file to write.

    Returns:
        ``file``.
    """
    layers = list(dict.fromkeys(table["layer"]))
    values = table.pivot_table(index="layer", columns="epoch", values="cka", dropna=False).loc[layers]
    figure = Figure(figsize=(WIDTH, 1.2 + 0.16 * max(12, len(layers))), layout="constrained")
    axes = figure.add_subplot()
    numbers = values.to_numpy(dtype=float)
    picture = axes.imshow(
        np.ma.masked_invalid(numbers),
        origin="lower",
        cmap=_viridis(),
        vmin=_smallest(numbers),
        vmax=1,
        aspect="auto",
    )
    axes.set_xticks(range(len(values.columns)), [str(epoch) for epoch in values.columns], fontsize=8)
    axes.set_yticks(range(len(layers)), layers, fontsize=7)
    axes.set_xlabel("after epoch", fontsize=8)
    axes.set_title(f"{_title(metadata)}\n{_images(metadata)}", fontsize=8)
    bar = figure.colorbar(picture, ax=axes)
    bar.set_label(_estimator(metadata), fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return save(figure, file)


def drift_figure(table: pd.DataFrame, metadata: Metadata, file: Path) -> Path:
    """Plot the weight drift of each layer as a bar, from input to output.

    Args:
        table: The table in drift.csv.
        metadata: Labels of the two runs.
        file: PNG file to write.

    Returns:
        ``file``.
    """
    figure = Figure(figsize=(WIDTH, 1.0 + 0.19 * len(table)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(range(len(table)), 100 * table["drift"].fillna(0.0), color=GAIN, height=0.7)
    axes.set_yticks(range(len(table)), list(table["layer"]), fontsize=min(8, 260 / len(table)))
    axes.invert_yaxis()
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel(f"distance that weights moved, % of their norm before; {_world(metadata)}", fontsize=8)
    axes.set_title(_title(metadata), fontsize=8.5, loc="left")
    _tidy(axes)
    return save(figure, file)


def _name_layers(axis: Any, names: list[str]) -> None:
    """Label an axis of layers: every layer if there is room, else the ends of blocks or evenly spaced layers."""
    blocks = by_block(names)
    ends = [i for i, (_, name) in enumerate(blocks or []) if name == OUTPUT]
    every = -(-len(names) // MAX_NAMES)
    ticks = list(range(len(names))) if len(names) <= MAX_NAMES else ends or list(range(0, len(names), every))
    labels = [names[i] if blocks is None else f"{blocks[i][0]}: {blocks[i][1]}" for i in ticks]
    axis.set_ticks(ticks, labels, fontsize=7, rotation=0 if axis.axis_name == "y" else 90)


def _viridis() -> Any:
    return mpl.colormaps["viridis"].with_extremes(bad="lightgrey")


def _smallest(values: NDArray[np.float64]) -> float:
    return float(np.nanmin(values)) if np.isfinite(values).any() else 0.0


def _estimator(metadata: Metadata) -> str:
    return "debiased linear CKA" if metadata["estimator"] == "minibatch" else "linear CKA (biased)"


def _title(metadata: Metadata) -> str:
    return f"{metadata['run_label']}\nagainst {metadata['against_label']}; {_world(metadata)}"


def _images(metadata: Metadata) -> str:
    return f"{title_of(metadata['dataset'], metadata['kind'])}, n = {metadata['images']:,}"


def _world(metadata: Metadata) -> str:
    return world_of(metadata["kind"], None)


def _tidy(axes: Axes) -> None:
    axes.set_axisbelow(True)
    axes.grid(lw=0.4, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)
