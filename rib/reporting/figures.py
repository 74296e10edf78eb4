"""Figures that compare runs: accuracy changes by method, mRI by method, and the trials of a search."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rib.data.worlds import title_of
from rib.reporting.formatting import world
from rib.reporting.style import CHARACTERS, GAIN, LOSS, NEUTRAL, SERIES
from rib.reporting.summary import PLAIN, Summary, method_label
from rib.runs.metrics_file import improvement_of
from rib.schemas.metrics import Metrics

if TYPE_CHECKING:
    from rib.reporting.paper_table import PaperTable


def comparison_figure(runs: Sequence[Metrics]) -> Figure:
    """Plot the accuracy change on each target, and RI, by method; one panel per model and source, one line per seed.

    Args:
        runs: Metrics of fine-tuned runs, of at most as many methods as there are colours (`SERIES`).

    Returns:
        The figure; changes in percentage points, RI as the top row of each panel.
    """
    trained = [m for m in runs if m["source"] != "none" and improvement_of(m)]
    panels = sorted({(m["source"], m["model"]) for m in trained})
    methods = list(dict.fromkeys(method_label(m) for m in trained))
    colours = dict(zip(methods, SERIES, strict=False))  # SERIES may be longer
    kind = trained[0]["data"]["kind"]
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(1.6 + 3.0 * columns, 0.9 + 3.2 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (source, model) in zip(grid.flat, panels, strict=False):
        members = [m for m in trained if (m["source"], m["model"]) == (source, model)]
        _draw_panel(axes, members, colours, methods)
        axes.set_title(f"{model} on {title_of(source, kind)}", fontsize=9, loc="left")
    # A source is no target of its own run: only panels of one source have the same rows, and can share their labels.
    for axes in grid[:, 1:].flat:
        if {m["source"] for m in trained} == {trained[0]["source"]}:
            axes.tick_params(labelleft=False)
    handles = [Line2D([], [], color=colours[m], marker="o", lw=1.5, label=m) for m in methods]
    # A legend line takes about 8 characters of width for its handle and spacing.
    columns_that_fit = int(CHARACTERS * figure.get_figwidth() / (8 + max(map(len, methods))))
    ncols = max(1, min(2 * columns, columns_that_fit))
    figure.legend(handles=handles, loc="outside upper left", ncols=ncols, fontsize=8, frameon=False)
    seeds = len({m["seed"] for m in trained})
    per_seed = f", one line per seed ({seeds})" if seeds > 1 else ""
    caption = f"change in percentage points, 95 % over images only{per_seed}; {world(trained[0])}"
    figure.supxlabel(textwrap.fill(caption, int(CHARACTERS * figure.get_figwidth())), fontsize=8)
    return figure


def summary_figure(table: PaperTable) -> Figure:
    """Plot mRI by method with intervals over images and over seeds; one panel per model, best method first.

    The thick bar is the interval over images, the thin one the interval over seeds. A filled marker differs from plain
    fine-tuning after Holm's correction, an open one does not; plain fine-tuning is a square.

    Args:
        table: Its rows are drawn; its data and shared settings go into the caption.
    """
    models = list(dict.fromkeys(row.model for row in table.rows))
    most = max(sum(row.model == model for row in table.rows) for model in models)
    columns = min(len(models), 3)
    lines = -(-len(models) // columns)
    figure = Figure(figsize=(1.0 + 4.4 * columns, 1.0 + (0.5 + 0.2 * most) * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True)
    for axes in grid.flat[len(models) :]:
        axes.set_visible(False)
    for axes, model in zip(grid.flat, models, strict=False):
        # The y axis points up and the rows come best first: reversed, the best one is on top.
        rows = [row for row in reversed(table.rows) if row.model == model]
        for height, row in enumerate(rows):
            _draw_mri(axes, height, row)
        sources = _span([len(row.improvement) for row in rows])
        seeds = _span([len(row.seeds) for row in rows])
        n = f"{sources} of {len(table.asked)} sources, {seeds} seed{'s' * (seeds != '1')}"
        axes.axvline(0, color="black", lw=0.8)
        axes.set_yticks(range(len(rows)), [table.label(row) for row in rows], fontsize=8)
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.tick_params(axis="x", labelsize=8, labelbottom=True)
        axes.grid(axis="x", lw=0.4, alpha=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(f"{model}: {n}", fontsize=9, loc="left")
    captions = [
        "mRI, percentage points; thick: 95 % over images, thin: over seeds; filled: differs from plain fine-tuning "
        "(square) after Holm",
        "; ".join(filter(None, (table.about, table.shared))),
    ]
    width = int(CHARACTERS * figure.get_figwidth())
    figure.supxlabel("\n".join(textwrap.fill(line, width) for line in captions), fontsize=8)
    return figure


def _draw_mri(axes: Axes, height: int, row: Summary) -> None:
    """Draw the mRI of one table row with its intervals over images (thick) and over seeds (thin)."""
    plain = row.method == PLAIN
    colour = NEUTRAL if plain else GAIN if row.over_images.value > 0 else LOSS
    if row.over_seeds is not None:
        axes.plot([row.over_seeds.low, row.over_seeds.high], [height, height], color=colour, lw=0.9)
    axes.plot(
        [row.over_images.low, row.over_images.high],
        [height, height],
        color=colour,
        lw=5,
        alpha=0.35,
        solid_capstyle="butt",
    )
    face = colour if plain or row.is_significant else "white"
    axes.plot(row.over_images.value, height, "s" if plain else "o", mec=colour, mfc=face, ms=4)


def search_figure(rows: Sequence[Mapping[str, Any]], options: Sequence[str], about: str) -> Figure:
    """Plot held-out accuracy of a hyperparameter search's trials against its first option; colours show a second.

    Args:
        rows: One per trial, best first (`rib.sweeps.search.trial_rows`); diverged trials are crosses at the bottom.
        options: Names of the searched options, one or two.
        about: Title: model, method, source and data.
    """
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    done = [row for row in rows if "held_out" in row]
    x, y = [row[options[0]] for row in done], [100 * row["held_out"] for row in done]
    if len(options) > 1:
        dots = axes.scatter(x, y, s=28, c=[row[options[1]] for row in done], norm="log", cmap="viridis", zorder=2)
        figure.colorbar(dots, ax=axes).set_label(options[1], fontsize=8)
    else:
        axes.scatter(x, y, s=28, color=GAIN, zorder=2)
    axes.plot(x[0], y[0], "o", mfc="none", mec=LOSS, ms=12, label="best")
    if diverged := [row[options[0]] for row in rows if "held_out" not in row]:
        # They have no accuracy: the y value is a fraction of the axis, not a percentage.
        heights = [0.03] * len(diverged)
        axes.plot(diverged, heights, "x", color=LOSS, transform=axes.get_xaxis_transform(), label="diverged")
    axes.axhline(100 * done[0]["before"], color=NEUTRAL, lw=0.8, ls="--", label="before training")
    axes.set_xscale("log")
    axes.set_xlabel(options[0], fontsize=8)
    axes.set_ylabel(f"top-1 on {done[0]['num_images']} held-out images, %", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(lw=0.4, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    axes.set_title(about, fontsize=9, loc="left")
    return figure


def _span(numbers: Collection[int]) -> str:
    """Format the range of some numbers: ``3`` if all are equal, else ``1 to 3``."""
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _draw_panel(axes: Axes, runs: Sequence[Metrics], colours: Mapping[str, str], methods: Sequence[str]) -> None:
    """Draw a panel of `comparison_figure`: accuracy changes on targets, and RI, of the runs of one model and source."""
    kind = runs[0]["data"]["kind"]
    targets = [n for n in runs[0]["accuracy"] if n in improvement_of(runs[0])["targets"]]
    for m in runs:
        seeds = sorted({other["seed"] for other in runs}, key=str)  # external weights have None, which does not sort
        # A row is 1 high; its lines share the middle 0.7, by method and then by seed, so that none covers another.
        slot = methods.index(method_label(m)) + (seeds.index(m["seed"]) + 0.5) / len(seeds)
        shift = 0.7 * (slot / len(methods) - 0.5)
        values = [m["accuracy"][n]["change"] for n in reversed(targets)] + [improvement_of(m)]
        for row, value in enumerate(values):
            colour = colours[method_label(m)]
            axes.plot([value["low"], value["high"]], [row - shift] * 2, color=colour, lw=1.2)
            axes.plot(value["value"], row - shift, "D" if row == len(targets) else "o", color=colour, ms=3)
    axes.axvline(0, color="black", lw=0.8)
    axes.axhline(len(targets) - 0.5, color=NEUTRAL, lw=0.6)
    axes.set_yticks(range(len(targets) + 1), [title_of(n, kind) for n in reversed(targets)] + ["RI"], fontsize=8)
    axes.tick_params(axis="x", labelsize=8, labelbottom=True)
    axes.grid(axis="x", lw=0.4, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)
