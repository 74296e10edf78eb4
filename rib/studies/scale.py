"""Pretraining: mRI by how much a model was pretrained on, and by that and the size of the fine-tuning set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from rib.figures import SERIES
from rib.metrics.rank import rank_correlation
from rib.store import RunStore
from rib.studies.base import Made, log_ticks, n_of, rows, said, tidy
from rib.studies.size import drawn


class Scale:
    """mRI of one method against the number of pretraining images.

    Args:
        pretrained_on: Images by model.
    """

    def __init__(self, pretrained_on: Mapping[str, int]) -> None:
        self.pretrained_on = pretrained_on

    def table(self, made: Sequence[Made], store: RunStore) -> pd.DataFrame:
        """One row a model and method."""
        return _by_scale(self.pretrained_on, made, store).sort_values(["method", "pretrained_on"], ignore_index=True)

    def paragraph(self, table: pd.DataFrame) -> str:
        """Each method's models in order, and Spearman's rank correlation of scale and mRI."""
        lines = [f"mRI by pretraining images, points with 95 % intervals over images; {n_of(table)}."]
        for method, curve in table.groupby("method"):
            each = ", ".join(f"{row['pretrained_on']:,}: {said(row)}" for row in curve.to_dict("records"))
            rank = rank_correlation(list(curve["pretrained_on"]), list(curve["mri"]))
            trend = f"; rank correlation of scale and mRI {rank}" if rank else ""
            lines.append(f"{method}: {each}{trend}.")
        return "\n".join(lines)

    def figures(self, table: pd.DataFrame) -> dict[str, Figure]:
        """A line a method."""
        figure = Figure(figsize=(4.6, 3.6), layout="constrained")
        axes = figure.add_subplot()
        for number, (method, curve) in enumerate(table.groupby("method")):
            colour, x = SERIES[number % len(SERIES)], curve["pretrained_on"]
            axes.fill_between(x, curve["low"], curve["high"], color=colour, alpha=0.2, lw=0)
            axes.plot(x, curve["mri"], color=colour, marker="os^Dv<>"[number % 7], ms=4, lw=1.4, label=method)
            if (curve["num_seeds"] > 1).all():
                axes.vlines(x, curve["seeds_low"], curve["seeds_high"], color=colour, lw=0.9)
        axes.axhline(0, color="black", lw=0.8)
        log_ticks(axes, table["pretrained_on"])
        axes.set_xlabel(f"pretraining images; {n_of(table)}", fontsize=8)
        axes.set_ylabel("mRI, percentage points\nband: 95 % over images, bar: over seeds", fontsize=8)
        tidy(axes)
        figure.legend(loc="outside upper left", ncols=3, fontsize=8, frameon=False)
        return {"scale": figure}


class Map:
    """mRI over pretraining images and fine-tuning images a class.

    Args:
        pretrained_on: Images by model.
    """

    def __init__(self, pretrained_on: Mapping[str, int]) -> None:
        self.pretrained_on = pretrained_on

    def table(self, made: Sequence[Made], store: RunStore) -> pd.DataFrame:
        """One row a model and size."""
        return _by_scale(self.pretrained_on, made, store).sort_values(["pretrained_on", "a_class"], ignore_index=True)

    def paragraph(self, table: pd.DataFrame) -> str:
        """The corners of the map, and how many of its cells gain."""
        models, sizes = sorted(set(table["pretrained_on"])), sorted(set(table["a_class"]))
        at = {(row["pretrained_on"], row["a_class"]): row for row in table.to_dict("records")}
        corners = [(m, s) for m in (models[0], models[-1]) for s in (sizes[0], sizes[-1])]
        each = "; ".join(f"{m:,} pretraining images, {s:g} a class: {said(at[m, s])}" for m, s in corners)
        gains = int((table["low"] > 0).sum())
        return f"{each}. {gains} of {len(table)} cells gain robustness (interval above 0); {n_of(table)}."

    def figures(self, table: pd.DataFrame) -> dict[str, Figure]:
        """A heat map with the contour of no change."""
        grid = table.pivot_table(index="pretrained_on", columns="a_class", values="mri")
        figure = Figure(figsize=(4.6, 3.4), layout="constrained")
        axes = figure.add_subplot()
        most = float(abs(grid.to_numpy()).max())
        shown = axes.imshow(grid, cmap="RdBu", vmin=-most, vmax=most, origin="lower", aspect="auto")
        for i, row in enumerate(grid.to_numpy()):
            for j, value in enumerate(row):
                colour = "white" if abs(value) > 0.6 * most else "black"
                text = axes.annotate(f"{value:+.1f}", (j, i), ha="center", va="center", fontsize=8, color=colour)
                text.set_path_effects([withStroke(linewidth=2.5, foreground=shown.to_rgba(value))])
        if grid.to_numpy().min() < 0 < grid.to_numpy().max():
            axes.contour(grid, levels=[0], colors="black", linewidths=1.2)
            axes.set_title("line: mRI = 0", fontsize=8, loc="left")
        axes.set_xticks(range(grid.shape[1]), [f"{size:.5g}" for size in grid.columns], fontsize=8)
        axes.set_yticks(range(grid.shape[0]), [f"{count:,}" for count in grid.index], fontsize=8)
        axes.set_xlabel(f"images a class fine-tuned on; {n_of(table)}", fontsize=8)
        axes.set_ylabel("pretraining images", fontsize=8)
        figure.colorbar(shown, ax=axes).set_label("mRI, percentage points", fontsize=8)
        return {"map": figure}


def _by_scale(pretrained_on: Mapping[str, int], made: Sequence[Made], store: RunStore) -> pd.DataFrame:
    """A study's rows with the pretraining images of their model."""
    return pd.DataFrame(
        [{"pretrained_on": pretrained_on[row["model"]], **row, **drawn(row, made)} for row in rows(made, store)]
    )
