"""Pictures of what happened inside: CKA by layer and between all layers, over epochs, and how far weights moved.

One column wide (5.2 in), 7 to 9 points; colours of `rib.reporting.figures`, and viridis where a number is a colour.
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
from rib.reporting.style import GAIN, NEUTRAL, save, style

WIDTH = 5.2
OUTPUT = "block output"
ROOM = 24
"""Names of layers that fit beside a heat map."""

Facts = Mapping[str, Any]


def by_block(layers: Sequence[str]) -> list[tuple[int, str]] | None:
    """Number of its block and name in it of every layer of a ViT; None if the blocks do not lie in one list."""
    split = [name.split(".") for name in layers]
    places = [next((i for i, part in enumerate(parts) if part.isdecimal()), None) for parts in split]
    if not layers or None in places or len({tuple(parts[:i]) for parts, i in zip(split, places, strict=True)}) > 1:
        return None
    found = [(int(parts[i]), ".".join(parts[i + 1 :])) for parts, i in zip(split, places, strict=True) if i is not None]
    if any(part.split(".")[-1].isdecimal() for _, part in found if part):
        return None
    return [(block, part or OUTPUT) for block, part in found]


def curve_figure(tables: Sequence[tuple[pd.DataFrame, Facts]], file: Path) -> Path:
    """CKA by layer with its intervals; a panel a dataset."""
    figure = Figure(figsize=(WIDTH, 1.0 + 1.9 * len(tables)), layout="constrained")
    panels = figure.subplots(len(tables), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
    for axes, (table, facts) in zip(panels, tables, strict=True):
        _curve(axes, table)
        axes.set_title(f"{_images(facts)}; bars: 95 %, jackknife over batches", fontsize=8, loc="left")
        axes.set_ylabel(_estimator(facts), fontsize=8)
        _tidy(axes)
    lowest = float(
        np.nanmin([0.95, *(value for table, _ in tables for value in table[["cka", "low"]].to_numpy().flat)])
    )
    panels[0].set_ylim(lowest - 0.05 * (1 - lowest), 1 + 0.05 * (1 - lowest))
    if by_block(list(tables[0][0]["layer"])) is not None:
        panels[-1].set_xlabel("block", fontsize=8)
    handles, labels = panels[0].get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.suptitle(_about(tables[0][1]), fontsize=8.5)
    return save(figure, file)


def _curve(axes: Axes, table: pd.DataFrame) -> None:
    if table.empty:
        axes.annotate(
            "no layer of the two has the same name", (0.5, 0.5), xycoords="axes fraction", ha="center", fontsize=8
        )
    blocks = by_block(list(table["layer"]))
    low, high = (table[end].fillna(table["cka"]) for end in ("low", "high"))
    errors = np.stack([table["cka"] - low, high - table["cka"]]).clip(min=0)
    if blocks is None:
        axes.errorbar(range(len(table)), table["cka"], errors, fmt="-o", color=GAIN, ms=3, lw=1, elinewidth=1)
        axes.set_xticks(range(len(table)), list(table["layer"]), rotation=90, fontsize=min(8, 260 / max(1, len(table))))
    else:
        axes.tick_params(axis="x", labelsize=8)
        kinds = list(dict.fromkeys(part for _, part in blocks))
        for number, kind in enumerate(kinds):
            here = [i for i, (_, part) in enumerate(blocks) if part == kind]
            x = np.array([blocks[i][0] for i in here]) + 0.09 * (number - (len(kinds) - 1) / 2)
            line: dict[str, Any] = {**style(number), "ms": 3.5, "lw": 1, "elinewidth": 1, "label": kind}
            axes.errorbar(x, table["cka"].iloc[here], errors[:, here], **line)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for place, (layer, note) in enumerate(zip(table["layer"], table["note"], strict=True)):
        if note:
            at = place if blocks is None else blocks[place][0]
            axes.annotate(f"{layer}: {note}", (at, 0.02), xycoords=("data", "axes fraction"), fontsize=6, rotation=90)
    axes.tick_params(axis="y", labelsize=8)
    axes.axhline(1, color=NEUTRAL, lw=0.6)


def heat_figure(arrays: Mapping[str, NDArray[Any]], facts: Facts, file: Path) -> Path:
    """CKA of every layer of one model with every layer of the other; grey where it is not defined."""
    values = np.where(arrays["defined"], arrays["cka"], np.nan)
    figure = Figure(figsize=(WIDTH, WIDTH * 0.86), layout="constrained")
    axes = figure.add_subplot()
    picture = axes.imshow(
        np.ma.masked_invalid(values),
        origin="lower",
        cmap=_viridis(),
        vmin=min(0.0, _least(values)),
        vmax=1,
        aspect="auto",
    )
    for axis, names in ((axes.yaxis, arrays["one"]), (axes.xaxis, arrays["other"])):
        _name_layers(axis, [str(name) for name in names])
    axes.set_ylabel(facts["run_label"], fontsize=8)
    axes.set_xlabel(facts["against_label"], fontsize=8)
    axes.set_title(f"{_images(facts)}; {_world(facts)}", fontsize=8)
    bar = figure.colorbar(picture, ax=axes, shrink=0.9)
    bar.set_label(_estimator(facts), fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return save(figure, file)


def epochs_figure(table: pd.DataFrame, facts: Facts, file: Path) -> Path:
    """CKA with the start by layer (upwards) and epoch; colours from the least that there is to 1."""
    layers = list(dict.fromkeys(table["layer"]))
    values = table.pivot_table(index="layer", columns="epoch", values="cka", dropna=False).loc[layers]
    figure = Figure(figsize=(WIDTH, 1.2 + 0.16 * max(12, len(layers))), layout="constrained")
    axes = figure.add_subplot()
    numbers = values.to_numpy(dtype=float)
    picture = axes.imshow(
        np.ma.masked_invalid(numbers),
        origin="lower",
        cmap=_viridis(),
        vmin=_least(numbers),
        vmax=1,
        aspect="auto",
    )
    axes.set_xticks(range(len(values.columns)), [str(epoch) for epoch in values.columns], fontsize=8)
    axes.set_yticks(range(len(layers)), layers, fontsize=7)
    axes.set_xlabel("after epoch", fontsize=8)
    axes.set_title(f"{_about(facts)}\n{_images(facts)}", fontsize=8)
    bar = figure.colorbar(picture, ax=axes)
    bar.set_label(_estimator(facts), fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return save(figure, file)


def drift_figure(table: pd.DataFrame, facts: Facts, file: Path) -> Path:
    """How far each layer's weights moved, a bar a layer from input to output."""
    figure = Figure(figsize=(WIDTH, 1.0 + 0.19 * len(table)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(range(len(table)), 100 * table["drift"].fillna(0.0), color=GAIN, height=0.7)
    axes.set_yticks(range(len(table)), list(table["layer"]), fontsize=min(8, 260 / len(table)))
    axes.invert_yaxis()
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel(f"distance of the weights, % of the start's length; {_world(facts)}", fontsize=8)
    axes.set_title(_about(facts), fontsize=8.5, loc="left")
    _tidy(axes)
    return save(figure, file)


def _name_layers(axis: Any, names: list[str]) -> None:
    """Ticks at every layer where there is room, else at the ends of blocks, else at some."""
    blocks = by_block(names)
    ends = [i for i, (_, part) in enumerate(blocks or []) if part == OUTPUT]
    shown = (
        list(range(len(names))) if len(names) <= ROOM else ends or list(range(0, len(names), -(-len(names) // ROOM)))
    )
    labels = [names[i] if blocks is None else f"{blocks[i][0]}: {blocks[i][1]}" for i in shown]
    axis.set_ticks(shown, labels, fontsize=7, rotation=0 if axis.axis_name == "y" else 90)


def _viridis() -> Any:
    return mpl.colormaps["viridis"].with_extremes(bad="lightgrey")


def _least(values: NDArray[np.float64]) -> float:
    return float(np.nanmin(values)) if np.isfinite(values).any() else 0.0


def _estimator(facts: Facts) -> str:
    return "debiased linear CKA" if facts["estimator"] == "minibatch" else "linear CKA (biased)"


def _about(facts: Facts) -> str:
    return f"{facts['run_label']}\nagainst {facts['against_label']}; {_world(facts)}"


def _images(facts: Facts) -> str:
    return f"{title_of(facts['dataset'], facts['kind'])}, n = {facts['images']:,}"


def _world(facts: Facts) -> str:
    return "mini data" if facts["kind"] == "mini" else "user data"


def _tidy(axes: Axes) -> None:
    axes.set_axisbelow(True)
    axes.grid(lw=0.4, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)
