"""Studies of mRI against the number of pretraining images, alone and together with the size of the fine-tuning set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from rib.metrics.rank import rank_correlation
from rib.reporting.captions import OVER_IMAGES
from rib.reporting.folded_text import fold
from rib.reporting.sized_figure import LABEL, TICK, SizedFigure
from rib.runs.spec import PRETRAINED
from rib.runs.store import RunStore
from rib.studies.plots import BANDS, curves_figure, height_of, short
from rib.studies.rows import (
    Row,
    count_gains,
    describe_subset,
    format_effect,
    n_of,
    name_curves,
    per_class,
    rows,
    with_holm,
)
from rib.studies.size import SIZE
from rib.sweeps.plan import Cell
from rib.sweeps.study import Made, Study, need_axis


class Scale(Study):
    """Study of mRI against the number of pretraining images, with a line per pretraining objective and method."""

    def table(self, made: Sequence[Made], store: RunStore) -> pd.DataFrame:
        """Return one row per model and method, with mRI and the number of pretraining images."""
        grouped = _rows(made, store)
        name_curves(grouped, [], ("method", "objective"))
        table = pd.DataFrame([row.columns for row in grouped])
        return table.sort_values(["curve", "pretrained_on"], ignore_index=True)

    def paragraph(self, table: pd.DataFrame) -> str:
        """Describe each line of the figure: mRI of its models, and the rank correlation of mRI with pretraining images.

        The correlation needs six scales or more.

        An effect of a source on all models alike does not change their order, so models are the independent points of
        this correlation.
        """
        lines = [
            "mRI against the number of pretraining images, in percentage points with 95 % intervals over images only; "
            f"{n_of(table, named=True)}."
        ]
        for label, curve in _known(table).groupby("curve"):
            points = curve.to_dict("records")
            each = ", ".join(f"{row['model']} ({short(row['pretrained_on'])}) {format_effect(row)}" for row in points)
            rank = rank_correlation(list(curve["pretrained_on"]), list(curve["mri"]))
            few = f"; {curve['pretrained_on'].nunique()} scales are too few for a rank correlation"
            trend = f"; rank correlation of scale and mRI {rank}" if rank else few if len(points) > 1 else ""
            lines.append(f"{label}: {each}{trend}.")
        return "\n".join([*lines, *_left_out(table)])

    def figures(self, table: pd.DataFrame) -> dict[str, Figure]:
        """Plot mRI against the number of pretraining images, with a line per objective and method."""
        known = _known(table)
        if known.empty:
            return {}
        figure, axes = curves_figure(known, "pretrained_on", self.width)
        axes[-1].set_xlabel("pretraining images", fontsize=LABEL)
        figure.headline(f"mRI against pretraining scale; {n_of(table)}{self.note}")
        figure.caption = (
            "Mean robustness improvement (mRI, percentage points) and top-1 accuracy against the number of pretraining "
            f"images; {n_of(table, named=True)}{self.note}. {BANDS}. {OVER_IMAGES}."
        )
        return {"scale": figure.fit(height_of(figure, axes))}


class Map(Study):
    """Study of mRI against both pretraining images (``model.pretraining``) and fine-tuning images per class."""

    def check(self, cells: Sequence[Cell]) -> None:
        """Check that every cell (a run of the grid) sets the number of fine-tuning images per class."""
        super().check(cells)
        need_axis(cells, SIZE, "this study")

    def table(self, made: Sequence[Made], store: RunStore) -> pd.DataFrame:
        """Return one row per curve (a model, and whatever else differs) and number of fine-tuning images per class."""
        grouped = _rows(made, store)
        name_curves(grouped, [SIZE])
        table = pd.DataFrame([{**row.columns, **describe_subset(row)} for row in grouped])
        return with_holm(table).sort_values(["pretrained_on", "curve", "a_class"], ignore_index=True)

    def paragraph(self, table: pd.DataFrame) -> str:
        """Describe how many squares of the heat map gain robustness, and mRI at both ends of its first and last row."""
        known = _known(table)
        lines = [
            "mRI in percentage points with 95 % intervals over images only, each on its own: "
            f"{count_gains(known)} of {len(known)} cells gain robustness (p < 0.05 after Holm over {len(table)}); "
            f"{n_of(table, named=True)}."
        ]
        curves = list(dict.fromkeys(known["curve"]))
        for label in dict.fromkeys([*curves[:1], *curves[-1:]]):
            curve = known[known["curve"] == label].to_dict("records")
            ends = dict.fromkeys((0, len(curve) - 1))
            each = ", ".join(f"{format_effect(curve[i])} with {per_class(curve[i]['a_class'])}" for i in ends)
            lines.append(f"{label}, {short(curve[0]['pretrained_on'])} pretraining images: {each}.")
        return "\n".join([*lines, *_left_out(table)])

    def figures(self, table: pd.DataFrame) -> dict[str, Figure]:
        """Plot a heat map of mRI with the contour of mRI = 0; squares without a finished run are white."""
        known = _known(table)
        if known.empty:
            return {}
        label = known["curve"] + "\n" + known["pretrained_on"].map(short)
        grid = known.assign(label=label).pivot_table(index="label", columns="a_class", values="mri", sort=False)
        grid = grid[sorted(grid.columns)]
        values = grid.to_numpy()
        figure = SizedFigure(4.6, self.width)
        axes = figure.add_subplot()
        limit = max(float(np.nanmax(abs(values))), 1e-9)
        image = axes.imshow(values, cmap="RdBu", vmin=-limit, vmax=limit, origin="lower", aspect="auto")
        for i, j in zip(*np.nonzero(~np.isnan(values)), strict=True):
            value = values[i, j]
            colour = "white" if abs(value) > 0.6 * limit else "black"
            text = axes.annotate(f"{value:+.1f}", (j, i), ha="center", va="center", fontsize=TICK, color=colour)
            # The contour runs through the numbers: an outline in the cell's own colour keeps them readable.
            text.set_path_effects([withStroke(linewidth=2.5, foreground=image.to_rgba(value))])
        # matplotlib warns about a contour that no value crosses, and refuses a single row.
        if np.nanmin(values) < 0 < np.nanmax(values) and min(grid.shape) > 1:
            axes.contour(np.ma.masked_invalid(values), levels=[0], colors="black", linewidths=1.2)
        every = -(-grid.shape[1] // max(1, int(0.5 * figure.inches / 0.35)))
        sizes = range(0, grid.shape[1], every)
        axes.set_xticks(sizes, [f"{grid.columns[i]:.4g}" for i in sizes], fontsize=TICK)
        labels = [fold(label, 0.27 * figure.inches, TICK) for label in grid.index]
        axes.set_yticks(range(grid.shape[0]), labels, fontsize=TICK)
        axes.set_xlabel("fine-tuning images per class", fontsize=LABEL)
        axes.set_ylabel("model, its pretraining images", fontsize=LABEL)
        bar = figure.colorbar(image, ax=axes)
        bar.set_label("mRI, points", fontsize=LABEL)
        bar.ax.tick_params(labelsize=TICK)
        figure.headline(f"mRI by pretraining and fine-tuning set; line: mRI = 0; {n_of(table)}{self.note}")
        figure.caption = (
            "Mean robustness improvement (mRI, percentage points) by the pretraining images of the model and the "
            f"fine-tuning images per class; {n_of(table, named=True)}{self.note}. Point estimates; the line is the "
            "contour of mRI = 0, and table.csv has the intervals. White: no finished run."
        )
        lines = max(label.count("\n") + 1 for label in labels)
        return {"map": figure.fit(max(0.35, 0.1 + 1.2 * TICK / 72 * lines) * len(grid))}


def _rows(made: Sequence[Made], store: RunStore) -> list[Row]:
    """Return table rows of the fine-tuned runs, with number of pretraining images (0 if unknown) and objective."""
    grouped = rows([one for one in made if one.metrics["method"] != PRETRAINED], store)
    for row in grouped:
        spec = row.made[0].cell.spec
        assert spec is not None, "a finished cell has a run spec"
        pretraining = spec.config.model.pretraining
        row.columns.update(
            pretrained_on=pretraining.images or 0, objective=pretraining.objective or "objective unknown"
        )
    return grouped


def _known(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["pretrained_on"] > 0]


def _left_out(table: pd.DataFrame) -> list[str]:
    """Name the models whose number of pretraining images is unknown, and the option that gives it.

    The option changes no run, so that repeating the command with it takes seconds.
    """
    models = list(dict.fromkeys(table[table["pretrained_on"] == 0]["model"]))
    return [f"Left out: {', '.join(models)}, of which model.pretraining.images is not given."] if models else []
