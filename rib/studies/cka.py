"""Does the shift of representations predict the loss of robustness? CKA of every cell with its start, beside its RI."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rib.analysis.cka import Pair, check
from rib.analysis.figures import OUTPUT, WIDTH, by_block
from rib.analysis.subject import Subject
from rib.config.command_schema import CKAConfig, ShownConfig
from rib.config.schema import PathsConfig
from rib.data.worlds import title_of
from rib.errors import RibError
from rib.metrics import seed_interval
from rib.metrics.rank import LEAST, Shared, rank_correlation, shared_rank_correlation
from rib.reporting.style import style
from rib.runs.method_stack import NO_WEIGHTS
from rib.runs.metrics_file import improvement_of
from rib.runs.spec import PRETRAINED
from rib.runs.store import RunStore
from rib.runtime.progress import progress
from rib.studies.plots import tidy
from rib.studies.rows import Row, format_effect, n_of, name_curves, rows
from rib.sweeps.plan import Cell
from rib.sweeps.study import Made, Study


class Shift(Study):
    """CKA by layer of every finished cell, and RI against its mean.

    Args:
        dataset: Whose images are shown to the models.
        images: At most, a seeded sample.
    """

    def __init__(self, dataset: str = "imagenet_val", images: int = 500) -> None:
        self.dataset, self.images = dataset, images

    def check(self, cells: Sequence[Cell]) -> None:
        """The dataset and the number of images can be analysed."""
        super().check(cells)
        if not isinstance(self.images, int):
            raise RibError(f"draw.images: expected a whole number, got {self.images!r}")
        check(CKAConfig(run="", images=self.images))
        methods = {cell.spec.method for cell in cells if cell.spec is not None} - {PRETRAINED}
        if all(set(method.split("+")) & NO_WEIGHTS.keys() for method in methods):
            raise RibError(f"methods: none of {', '.join(methods)} has weights of its own to look into")
        known = next(cell.spec.catalog.specs for cell in cells if cell.spec is not None)
        if self.dataset not in known:
            raise RibError(f"draw.dataset: there is no {self.dataset!r}; expected any of {', '.join(known)}")

    def table(self, made: Sequence[Made], store: RunStore) -> pd.DataFrame:
        """One row a cell and layer; a cell that cannot be analysed has one row that says why.

        ``cka`` 0 to 1 with the ends of its jackknife (``cka_low``, ``cka_high``); ``ri`` of the cell and ``mri`` of its
        curve in percentage points, with their intervals over images.
        """
        found = rows([one for one in made if one.metrics["method"] != PRETRAINED], store)
        name_curves(found, [])
        cells = [(row, one) for row in found for one in row.made]
        table: list[dict[str, Any]] = []
        with progress("CKA of cells with their start", len(cells), "cells") as advance:
            for row, one in cells:
                table += self._cell(row, one, store)
                advance(1, "")
        return pd.DataFrame(table)

    def paragraph(self, table: pd.DataFrame) -> str:
        """Each curve's mean CKA, and the rank correlation of RI and mean CKA over sources, within each and their mean.

        A curve on fewer than six sources has its points in the place of intervals over them.
        """
        points = _points(table)
        about = _shown(self.dataset, points) if len(points) else self.dataset
        lines = [
            f"Mean debiased linear CKA of all layers with the start, on {about}, 95 % over sources by Student's t from "
            f"{LEAST} on; mRI in points, 95 % over images only; intervals each for itself; {n_of(table, named=True)}."
        ]
        for curve, group in points.groupby("curve", sort=False):
            within = rank_correlation(list(group["cka"]), list(group["ri"]))
            over = f"rank correlation of RI and CKA over its sources {within}" if within else _each(group)
            mri = format_effect(table[table["curve"] == curve].iloc[0].to_dict())
            lines.append(f"{curve}: CKA {_mean(list(group['cka']))}, mRI {mri}; {over}.")
        lines.append(_over_all(points))
        for note, group in table[table["layer"] == ""].groupby("note"):
            names = ", ".join(dict.fromkeys(group["curve"]))
            lines.append(f"Left out: {names} ({note}).")
        return "\n".join(lines)

    def figures(self, table: pd.DataFrame) -> dict[str, Figure]:
        """CKA by layer, a panel a curve and a line a source; RI against mean CKA."""
        points = _points(table)
        if points.empty:
            return {}
        return {"layers": self._layers(table[table["layer"] != ""]), "shift": _scatter(points, n_of(table))}

    def _layers(self, table: pd.DataFrame) -> Figure:
        curves, kind = list(dict.fromkeys(table["curve"])), table["kind"].iloc[0]
        sources = list(dict.fromkeys(table["source"]))
        columns = min(2, len(curves))
        lines = -(-len(curves) // columns)
        figure = Figure(figsize=(WIDTH, 1.0 + 2.1 * lines), layout="constrained")
        grid = figure.subplots(lines, columns, squeeze=False, sharey=True)
        for axes in grid.flat[len(curves) :]:
            axes.set_visible(False)
        for axes, curve in zip(grid.flat, curves, strict=False):
            here = table[table["curve"] == curve]
            for number, source in enumerate(sources):
                of_source = here[here["source"] == source]
                means = of_source.groupby("layer", sort=False)["cka"].mean()
                line: dict[str, Any] = {**style(number), "ms": 3, "lw": 1, "label": title_of(source, kind)}
                axes.plot(range(len(means)), means, **line)
            _name(axes, list(dict.fromkeys(here["layer"])))
            axes.set_title(curve, fontsize=8, loc="left")
            tidy(axes)
            axes.tick_params(labelsize=7)
        n = f"{_shown(self.dataset, table)}; {n_of(table)}"
        figure.supylabel("debiased linear CKA with the start", fontsize=8)
        inside = "end of block; between: attn.proj, mlp.fc1, mlp.fc2\n"
        in_blocks = all(by_block(list(dict.fromkeys(table[table["curve"] == curve]["layer"]))) for curve in curves)
        figure.supxlabel((inside if in_blocks else "") + n, fontsize=8)
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=3, fontsize=7, frameon=False)
        return figure

    def _cell(self, row: Row, one: Made, store: RunStore) -> list[dict[str, Any]]:
        m, improvement = one.metrics, improvement_of(one.metrics)
        shared = (
            "curve",
            "model",
            "method",
            *one.cell.axes,
            "mri",
            "low",
            "high",
            "num_sources",
            "num_seeds",
            "sources",
        )
        facts = {
            **{name: row.facts[name] for name in shared},
            "source": m["source"],
            "seed": m["seed"],
            "ri": improvement["value"],
            "ri_low": improvement["low"],
            "ri_high": improvement["high"],
        }
        none = {"layer": "", "cka": float("nan"), "cka_low": float("nan"), "cka_high": float("nan"), "images": 0}
        reason = next((NO_WEIGHTS[part] for part in m["method"].split("+") if part in NO_WEIGHTS), None)
        if reason is None:
            try:
                found = self._pair(one, store).layer_cka()
            except RibError as error:  # as where an import left the weights behind
                reason = str(error)
        if reason is not None:
            return [{**facts, **none, "note": reason, "kind": m["data"]["kind"]}]
        return [
            {
                **facts,
                "layer": layer,
                "cka": cka,
                "cka_low": low,
                "cka_high": high,
                "images": found.facts["images"],
                "note": note,
                "kind": m["data"]["kind"],
            }
            for layer, cka, low, high, note in found.table.itertuples(index=False)
        ]

    def _pair(self, one: Made, store: RunStore) -> Pair:
        """The cell and its start, as the question after them has them: no config is read again from the store."""
        spec = one.cell.spec
        assert spec is not None, "a finished cell was asked"
        before = spec.of_pretrained()
        start = store.run_of(before)
        c = spec.config
        config = CKAConfig(
            run=str(one.run.folder),
            datasets=[self.dataset],
            images=self.images,
            data=ShownConfig(c.data.root, c.data.workers),
            paths=PathsConfig(c.paths.runs, c.paths.cache),
        )
        metrics = start.metrics()
        assert metrics is not None, "a finished cell has a start"
        return Pair(config, Subject(one.run, one.metrics, c), Subject(start, metrics, before.config))


def _points(table: pd.DataFrame) -> pd.DataFrame:
    """One row a curve and source: RI and mean CKA of all layers, means over seeds; 1 but for rounding is 1."""
    layers = table[table["cka"].notna()]
    keys = ["curve", "source", "kind"]
    cells = layers.groupby([*keys, "seed"], sort=False)[["cka", "ri", "images"]].mean().reset_index()
    return cells.groupby(keys, sort=False)[["cka", "ri", "images"]].mean().round({"cka": 9}).reset_index()


def _together(points: pd.DataFrame) -> Shared | None:
    """The curves' mean rank correlation of RI and mean CKA: all were fine-tuned on the same sources."""
    curves = points.groupby("curve", sort=False)
    return shared_rank_correlation(
        {str(curve): dict(zip(g["source"], zip(g["cka"], g["ri"], strict=True), strict=True)) for curve, g in curves}
    )


def _over_all(points: pd.DataFrame) -> str:
    found = _together(points)
    if found is None:
        return "The sources that all have are too few, or too much alike, for a rank correlation over all."
    return (
        f"Within a curve, mean over {found.lines}: rank correlation of RI and mean CKA over sources {found}; 1 would "
        "be: the less it shifts, the less is lost. Curves share their sources: the interval (Bonett and Wright) counts "
        "a source once, p permutes whole sources."
    )


def _each(group: pd.DataFrame) -> str:
    """``CKA and RI on ImageNet-R 0.812, -26.03; ImageNet-A 0.950, -7.30``."""
    points = group[["source", "kind", "cka", "ri"]].itertuples(index=False)
    told = [f"{title_of(str(source), str(kind))} {cka:.3f}, {ri:+.2f}" for source, kind, cka, ri in points]
    return f"CKA and RI on {'; '.join(told)}"


def _mean(values: Sequence[float]) -> str:
    """``0.812 [0.701, 0.923]``: over sources, Student's t, at most 1; of few the mean alone."""
    over = seed_interval(values, over="sources") if len(values) >= LEAST else None
    return f"{fmean(values):.3f}" if over is None else f"{over.value:.3f} [{over.low:.3f}, {min(over.high, 1):.3f}]"


def _shown(dataset: str, table: pd.DataFrame) -> str:
    """``ImageNet val, 240 images``."""
    return f"{title_of(dataset, table['kind'].iloc[0])}, {int(table['images'].max())} images"


def _name(axes: Axes, layers: Sequence[str]) -> None:
    """Ticks at the ends of blocks where there are blocks, else at some layers."""
    blocks = by_block(layers)
    ends = [i for i, (_, part) in enumerate(blocks or []) if part == OUTPUT]
    if blocks and ends:
        axes.set_xticks(ends, [str(blocks[i][0]) for i in ends])
    else:
        shown = np.unique(np.linspace(0, len(layers) - 1, min(8, len(layers))).astype(int))
        axes.set_xticks(shown, [layers[i] for i in shown], rotation=90)


def _scatter(points: pd.DataFrame, n: str) -> Figure:
    figure = Figure(figsize=(4.6, 3.9), layout="constrained")
    axes = figure.add_subplot()
    for number, (curve, group) in enumerate(points.groupby("curve", sort=False)):
        points_of: dict[str, Any] = {**style(number), "ms": 5, "ls": "none", "label": curve}
        axes.plot(group["cka"], group["ri"], **points_of)
    axes.axhline(0, color="black", lw=0.8)
    axes.set_xlabel(f"mean CKA of all layers with the start; a point a source; {n}", fontsize=8)
    axes.set_ylabel("RI, percentage points", fontsize=8)
    if (found := _together(points)) is not None:
        axes.set_title(f"rank correlation within a curve, mean: {found.within}", fontsize=8, loc="left")
    tidy(axes)
    figure.legend(loc="outside upper left", ncols=2, fontsize=8, frameon=False)
    return figure
