"""Pretraining: mRI by how much a model was pretrained on, and by that and the size of the fine-tuning set."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from rib.figures import SERIES
from rib.metrics.rank import rank_correlation
from rib.store import RunStore
from rib.studies.base import Made, is_of, log_ticks, n_of, rows, said, tidy
from rib.studies.size import drawn

LINE = ["method", "objective"]
"""What is one line: models that differ in how much they saw, not in what they were trained to do."""


class Scale:
    """mRI against the number of pretraining images (``model.pretraining``), a line a method and objective."""

    def table(self, made: Sequence[Made], store: RunStore) -> pd.DataFrame:
        """One row a model and method."""
        return _by_scale(made, store).sort_values([*LINE, "pretrained_on"], ignore_index=True)

    def paragraph(self, table: pd.DataFrame) -> str:
        """Each line's models in order, and Spearman's rank correlation of scale and mRI."""
        lines = [f"mRI by pretraining images, points with 95 % intervals over images; {n_of(table)}."]
        for (method, objective), curve in _known(table).groupby(LINE):
            points = curve.to_dict("records")
            each = ", ".join(f"{row['model']} {row['pretrained_on']:,}: {said(row)}" for row in points)
            rank = rank_correlation(list(curve["pretrained_on"]), list(curve["mri"]))
            trend = f"; rank correlation of scale and mRI {rank}" if rank else ""
            lines.append(f"{method}, {objective}: {each}{trend}.")
        return "\n".join([*lines, *_left_out(table)])

    def figures(self, table: pd.DataFrame) -> dict[str, Figure]:
        """A line a method and objective."""
        known = _known(table)
        if known.empty:
            return {}
        figure = Figure(figsize=(4.6, 3.6), layout="constrained")
        axes = figure.add_subplot()
        for number, ((method, objective), curve) in enumerate(known.groupby(LINE)):
            colour, x = SERIES[number % len(SERIES)], curve["pretrained_on"]
            label = f"{method}, {objective}"
            axes.fill_between(x, curve["low"], curve["high"], color=colour, alpha=0.2, lw=0)
            axes.plot(x, curve["mri"], color=colour, marker="os^Dv<>"[number % 7], ms=4, lw=1.4, label=label)
            if (curve["num_seeds"] > 1).all():
                axes.vlines(x, curve["seeds_low"], curve["seeds_high"], color=colour, lw=0.9)
        axes.axhline(0, color="black", lw=0.8)
        log_ticks(axes, known["pretrained_on"])
        axes.set_xlabel(f"pretraining images; {n_of(table)}", fontsize=8)
        axes.set_ylabel("mRI, percentage points\nband: 95 % over images, bar: over seeds", fontsize=8)
        tidy(axes)
        figure.legend(loc="outside upper left", ncols=2, fontsize=8, frameon=False)
        return {"scale": figure}


class Map:
    """mRI over pretraining images (``model.pretraining``) and fine-tuning images a class."""

    def table(self, made: Sequence[Made], store: RunStore) -> pd.DataFrame:
        """One row a model and size."""
        return _by_scale(made, store).sort_values(["pretrained_on", "a_class"], ignore_index=True)

    def paragraph(self, table: pd.DataFrame) -> str:
        """The corners of the map, and how many of its cells gain."""
        known = _known(table)
        gains = int((known["low"] > 0).sum())
        lines = [
            f"mRI in points with 95 % intervals over images: {gains} of {len(known)} cells gain robustness (interval "
            f"above 0); {n_of(table)}."
        ]
        models = list(dict.fromkeys(known["model"]))
        for model in dict.fromkeys([*models[:1], *models[-1:]]):
            curve = known[known["model"] == model].to_dict("records")
            seen = f"{model}, {curve[0]['pretrained_on']:,} pretraining images"
            each = ", ".join(f"{said(row)} with {row['a_class']:.5g} a class" for row in (curve[0], curve[-1]))
            lines.append(f"{seen}: {each}.")
        return "\n".join([*lines, *_left_out(table)])

    def figures(self, table: pd.DataFrame) -> dict[str, Figure]:
        """A heat map with the contour of no change."""
        known = _known(table)
        if known.empty:
            return {}
        rows_of = known["model"] + "\n" + known["pretrained_on"].map("{:,}".format)
        grid = known.assign(row=rows_of).pivot_table(index="row", columns="a_class", values="mri", sort=False)
        grid = grid[sorted(grid.columns)]
        figure = Figure(figsize=(4.6, 3.4), layout="constrained")
        axes = figure.add_subplot()
        most = float(abs(grid.to_numpy()).max())
        shown = axes.imshow(grid, cmap="RdBu", vmin=-most, vmax=most, origin="lower", aspect="auto")
        for i, row in enumerate(grid.to_numpy()):
            for j, value in enumerate(row):
                colour = "white" if abs(value) > 0.6 * most else "black"
                text = axes.annotate(f"{value:+.1f}", (j, i), ha="center", va="center", fontsize=8, color=colour)
                text.set_path_effects([withStroke(linewidth=2.5, foreground=shown.to_rgba(value))])
        if grid.to_numpy().min() < 0 < grid.to_numpy().max() and min(grid.shape) > 1:
            axes.contour(grid, levels=[0], colors="black", linewidths=1.2)
            axes.set_title("line: mRI = 0", fontsize=8, loc="left")
        axes.set_xticks(range(grid.shape[1]), [f"{size:.5g}" for size in grid.columns], fontsize=8)
        axes.set_yticks(range(grid.shape[0]), list(grid.index), fontsize=8)
        axes.set_xlabel(f"images a class fine-tuned on; {n_of(table)}", fontsize=8)
        axes.set_ylabel("model and its pretraining images", fontsize=8)
        figure.colorbar(shown, ax=axes).set_label("mRI, percentage points", fontsize=8)
        return {"map": figure}


def _by_scale(made: Sequence[Made], store: RunStore) -> pd.DataFrame:
    """A study's rows with what their models had seen; 0 images where ``model.pretraining`` does not say."""
    found = []
    for row in rows(made, store):
        question = next(one.cell.question for one in made if is_of(one, row))
        assert question is not None, "a finished cell was asked"
        seen = question.config.model.pretraining
        told = {"pretrained_on": seen.images or 0, "objective": seen.objective or "objective unknown"}
        found.append({**row, **told, **drawn(row, made)})
    return pd.DataFrame(found)


def _known(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["pretrained_on"] > 0]


def _left_out(table: pd.DataFrame) -> list[str]:
    """Who cannot be placed, and how to mend it; the grid is made, so that saying it takes seconds."""
    lost = list(dict.fromkeys(table[table["pretrained_on"] == 0]["model"]))
    return [f"Left out: {', '.join(lost)}, of which model.pretraining.images is not given."] if lost else []
