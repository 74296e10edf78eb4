"""Pretraining: mRI by how much a model was pretrained on, and by that and the size of the fine-tuning set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from rib.metrics.rank import rank_correlation
from rib.runs.spec import PRETRAINED
from rib.runs.store import RunStore
from rib.studies.plots import draw_curve, log_ticks, short, tidy
from rib.studies.rows import Row, describe_subset, format_effect, gaining, n_of, name_curves, rows, with_holm
from rib.studies.size import SIZE
from rib.sweeps.plan import Cell
from rib.sweeps.study import Made, Study, need_axis


class Scale(Study):
    """mRI against the number of pretraining images (``model.pretraining``), a line an objective and method."""

    def table(self, made: Sequence[Made], store: RunStore) -> pd.DataFrame:
        """One row a model and method."""
        found = _rows(made, store)
        name_curves(found, [], ("method", "objective"))
        table = pd.DataFrame([row.facts for row in found])
        return table.sort_values(["curve", "pretrained_on"], ignore_index=True)

    def paragraph(self, table: pd.DataFrame) -> str:
        """Each line's models in order, and Spearman's rank correlation of scale and mRI over six scales or more.

        What a source does to all models alike is no reason for their order, so that models are its independent points.
        """
        lines = [f"mRI by pretraining images, points with 95 % intervals over images only; {n_of(table, named=True)}."]
        for label, curve in _known(table).groupby("curve"):
            points = curve.to_dict("records")
            each = ", ".join(f"{row['model']} ({short(row['pretrained_on'])}) {format_effect(row)}" for row in points)
            rank = rank_correlation(list(curve["pretrained_on"]), list(curve["mri"]))
            few = f"; {curve['pretrained_on'].nunique()} scales are too few for a rank correlation"
            trend = f"; rank correlation of scale and mRI {rank}" if rank else few if len(points) > 1 else ""
            lines.append(f"{label}: {each}{trend}.")
        return "\n".join([*lines, *_left_out(table)])

    def figures(self, table: pd.DataFrame) -> dict[str, Figure]:
        """A line an objective and method."""
        known = _known(table)
        if known.empty:
            return {}
        figure = Figure(figsize=(4.6, 3.6), layout="constrained")
        axes = figure.add_subplot()
        for number, (label, curve) in enumerate(known.groupby("curve")):
            draw_curve(axes, "pretrained_on", curve, number, str(label))
        axes.axhline(0, color="black", lw=0.8)
        log_ticks(axes, known["pretrained_on"])
        axes.set_xlabel(f"pretraining images; {n_of(table)}", fontsize=8)
        axes.set_ylabel("mRI, percentage points\nband: 95 % over images, bar: over seeds", fontsize=8)
        tidy(axes)
        figure.legend(loc="outside upper left", ncols=2, fontsize=8, frameon=False)
        return {"scale": figure}


class Map(Study):
    """mRI over pretraining images (``model.pretraining``) and fine-tuning images a class."""

    def check(self, cells: Sequence[Cell]) -> None:
        """Every cell has a size."""
        super().check(cells)
        need_axis(cells, SIZE, "this study")

    def table(self, made: Sequence[Made], store: RunStore) -> pd.DataFrame:
        """One row a curve (a model, and what else differs) and size."""
        found = _rows(made, store)
        name_curves(found, [SIZE])
        table = pd.DataFrame([{**row.facts, **describe_subset(row)} for row in found])
        return with_holm(table).sort_values(["pretrained_on", "curve", "a_class"], ignore_index=True)

    def paragraph(self, table: pd.DataFrame) -> str:
        """How many cells of the map gain, and the ends of its outer rows."""
        known = _known(table)
        lines = [
            f"mRI in points with 95 % intervals over images only, each for itself: {gaining(known)} of {len(known)} "
            f"cells gain robustness (p < 0.05 after Holm over {len(table)}); {n_of(table, named=True)}."
        ]
        curves = list(dict.fromkeys(known["curve"]))
        for label in dict.fromkeys([*curves[:1], *curves[-1:]]):
            curve = known[known["curve"] == label].to_dict("records")
            ends = dict.fromkeys((0, len(curve) - 1))
            each = ", ".join(f"{format_effect(curve[i])} with {curve[i]['a_class']:.5g} a class" for i in ends)
            lines.append(f"{label}, {short(curve[0]['pretrained_on'])} pretraining images: {each}.")
        return "\n".join([*lines, *_left_out(table)])

    def figures(self, table: pd.DataFrame) -> dict[str, Figure]:
        """A heat map with the contour of no change; what is not there yet is white."""
        known = _known(table)
        if known.empty:
            return {}
        label = known["curve"] + "\n" + known["pretrained_on"].map(short)
        grid = known.assign(label=label).pivot_table(index="label", columns="a_class", values="mri", sort=False)
        grid = grid[sorted(grid.columns)]
        values = grid.to_numpy()
        figure = Figure(figsize=(4.6, 1.6 + 0.45 * len(grid)), layout="constrained")
        axes = figure.add_subplot()
        most = max(float(np.nanmax(abs(values))), 1e-9)
        shown = axes.imshow(values, cmap="RdBu", vmin=-most, vmax=most, origin="lower", aspect="auto")
        for i, j in zip(*np.nonzero(~np.isnan(values)), strict=True):
            value = values[i, j]
            colour = "white" if abs(value) > 0.6 * most else "black"
            text = axes.annotate(f"{value:+.1f}", (j, i), ha="center", va="center", fontsize=8, color=colour)
            text.set_path_effects([withStroke(linewidth=2.5, foreground=shown.to_rgba(value))])
        if np.nanmin(values) < 0 < np.nanmax(values) and min(grid.shape) > 1:
            axes.contour(np.ma.masked_invalid(values), levels=[0], colors="black", linewidths=1.2)
            axes.set_title("line: mRI = 0", fontsize=8, loc="left")
        axes.set_xticks(range(grid.shape[1]), [f"{size:.4g}" for size in grid.columns], fontsize=8)
        axes.set_yticks(range(grid.shape[0]), list(grid.index), fontsize=8)
        axes.set_xlabel(f"images a class fine-tuned on; {n_of(table)}", fontsize=8)
        axes.set_ylabel("model and its pretraining images", fontsize=8)
        figure.colorbar(shown, ax=axes).set_label("mRI, percentage points", fontsize=8)
        return {"map": figure}


def _rows(made: Sequence[Made], store: RunStore) -> list[Row]:
    """Rows of what was trained, with what their models had seen; 0 images where ``model.pretraining`` does not say."""
    found = rows([one for one in made if one.metrics["method"] != PRETRAINED], store)
    for row in found:
        spec = row.made[0].cell.spec
        assert spec is not None, "a finished cell was asked"
        seen = spec.config.model.pretraining
        row.facts.update(pretrained_on=seen.images or 0, objective=seen.objective or "objective unknown")
    return found


def _known(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["pretrained_on"] > 0]


def _left_out(table: pd.DataFrame) -> list[str]:
    """Who cannot be placed, and how to mend it; the grid is made, so that saying it takes seconds."""
    lost = list(dict.fromkeys(table[table["pretrained_on"] == 0]["model"]))
    return [f"Left out: {', '.join(lost)}, of which model.pretraining.images is not given."] if lost else []
