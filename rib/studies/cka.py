"""Study of representation shift and robustness: CKA of every run with its pretrained model, and RI against CKA."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from rib.analysis.cka import Pair, check
from rib.analysis.subject import Subject
from rib.config.command_schema import CKAConfig, ShownConfig
from rib.config.schema import PathsConfig
from rib.data.worlds import in_distribution_of, title_of
from rib.errors import RibError
from rib.metrics import seed_interval
from rib.metrics.rank import MIN_DISTINCT, MeanCorrelation, rank_correlation, shared_rank_correlation
from rib.runs.method_stack import NO_WEIGHTS
from rib.runs.metrics_file import improvement_of
from rib.runs.spec import PRETRAINED
from rib.runs.store import RunStore
from rib.runtime.progress import progress
from rib.studies.cka_figures import image_count, layers_figure, shift_figure
from rib.studies.rows import Row, format_effect, kind_in, n_of, name_curves, rows
from rib.sweeps.plan import Cell
from rib.sweeps.study import Made, Study


class Shift(Study):
    """Study of the layer-wise CKA of every finished run with its pretrained model, and of RI against mean CKA.

    Args:
        dataset: Name of the dataset whose images both models see; None: the in-distribution one, as ImageNet val, or
            the first target of a suite that has none.
        images: Largest number of images; a seeded sample if there are more.
    """

    def __init__(self, dataset: str | None = None, images: int = 500) -> None:
        self.dataset, self.images = dataset, images

    def check(self, cells: Sequence[Cell]) -> None:
        """Check the study's options, and that some method of the grid has weights to analyse."""
        super().check(cells)
        if not isinstance(self.images, int):
            raise RibError(f"draw.images: expected a whole number, got {self.images!r}")
        check(CKAConfig(run="", images=self.images))
        methods = {cell.spec.method for cell in cells if cell.spec is not None} - {PRETRAINED}
        if all(set(method.split("+")) & NO_WEIGHTS.keys() for method in methods):
            raise RibError(f"methods: none of {', '.join(methods)} has weights of its own to analyse")
        known = next(cell.spec.catalog.specs for cell in cells if cell.spec is not None)
        if self.dataset is None:
            spec = next(cell.spec for cell in cells if cell.spec is not None)
            self.dataset = spec.catalog.in_distribution or spec.config.suite.targets[0]
        if self.dataset not in known:
            raise RibError(f"draw.dataset: there is no {self.dataset!r}; expected any of {', '.join(known)}")

    def table(self, made: Sequence[Made], store: RunStore) -> pd.DataFrame:
        """Return one row per run and layer; a run that cannot be analysed has one row with the reason as its note.

        Columns: ``cka`` with its jackknife interval (``cka_low``, ``cka_high``), ``ri`` of the cell and ``mri`` of its
        curve in percentage points, with their intervals over images.
        """
        grouped = rows([one for one in made if one.metrics["method"] != PRETRAINED], store)
        name_curves(grouped, [])
        cells = [(row, one) for row in grouped for one in row.made]
        table: list[dict[str, Any]] = []
        with progress("CKA of cells with their pretrained models", len(cells), "cells") as advance:
            for row, one in cells:
                table += self._cell(row, one, store)
                advance(1, "")
        return pd.DataFrame(table)

    def paragraph(self, table: pd.DataFrame) -> str:
        """Describe mean CKA and its rank correlation with RI over sources, by curve (model and method) and overall.

        For a curve with fewer than six sources the points are listed instead.
        """
        points = _points(table)
        images = image_count(self._shown(table), points) if len(points) else self._shown(table)
        lines = [
            f"Mean debiased linear CKA of all layers with the pretrained model, on {images}, with 95 % intervals over "
            f"sources (Student's t, from {MIN_DISTINCT} sources); mRI in percentage points with 95 % intervals over "
            f"images only; each interval on its own; {n_of(table, named=True)}."
        ]
        for curve, group in points.groupby("curve", sort=False):
            within = rank_correlation(list(group["cka"]), list(group["ri"]))
            relation = f"rank correlation of RI and CKA over sources {within}" if within else _list_points(group)
            mri = format_effect(table[table["curve"] == curve].iloc[0].to_dict())
            lines.append(f"{curve}: CKA {_mean(list(group['cka']))}, mRI {mri}; {relation}.")
        lines.append(_describe_mean(points))
        for note, group in table[table["layer"] == ""].groupby("note"):
            names = ", ".join(dict.fromkeys(group["curve"]))
            lines.append(f"Left out: {names} ({note}).")
        return "\n".join(lines)

    def figures(self, table: pd.DataFrame) -> dict[str, Figure]:
        """Plot CKA by layer (a panel per curve, a line per source), and RI against mean CKA."""
        points = _points(table)
        if points.empty:
            return {}
        n = f"{n_of(table)}{self.note}"
        return {
            "layers": layers_figure(table[table["layer"] != ""], self._shown(table), self.note, self.width),
            "shift": shift_figure(points, _mean_correlation(points), n, self.width),
        }

    def _cell(self, row: Row, one: Made, store: RunStore) -> list[dict[str, Any]]:
        """Return the table rows of one finished run: one per layer, or a single one that says why it has no CKA."""
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
        columns = {
            **{name: row.columns[name] for name in shared},
            "source": m["source"],
            "seed": m["seed"],
            "ri": improvement["value"],
            "ri_low": improvement["low"],
            "ri_high": improvement["high"],
        }
        none = {"layer": "", "cka": float("nan"), "cka_low": float("nan"), "cka_high": float("nan"), "images": 0}
        reason = next((NO_WEIGHTS[name] for name in m["method"].split("+") if name in NO_WEIGHTS), None)
        if reason is None:
            try:
                analysis = self._pair(one, store).layer_cka()
            except RibError as error:  # for example imported runs, which have no weights
                reason = str(error)
        if reason is not None:
            return [{**columns, **none, "note": reason, "kind": m["data"]["kind"]}]
        return [
            {
                **columns,
                "layer": layer,
                "cka": cka,
                "cka_low": low,
                "cka_high": high,
                "images": analysis.metadata["images"],
                "note": note,
                "kind": m["data"]["kind"],
            }
            for layer, cka, low, high, note in analysis.table.itertuples(index=False)
        ]

    def _shown(self, table: pd.DataFrame) -> str:
        """Return the dataset whose images the models of a table see."""
        return self.dataset or in_distribution_of(kind_in(table)) or ""

    def _pair(self, one: Made, store: RunStore) -> Pair:
        """Return a cell's run and its pretrained run as a `Pair`, whose CKA can be computed.

        Both configs are those of the cell's run spec; reading config.yaml of each run again would take longer.
        """
        spec = one.cell.spec
        assert spec is not None, "a finished cell has a run spec"
        of_pretrained = spec.of_pretrained()
        pretrained = store.run_of(of_pretrained)
        c = spec.config
        config = CKAConfig(
            run=str(one.run.folder),
            datasets=None if self.dataset is None else [self.dataset],
            images=self.images,
            data=ShownConfig(c.data.root, c.data.workers, cache=c.data.cache),
            paths=PathsConfig(c.paths.runs, c.paths.cache),
        )
        metrics = pretrained.metrics()
        assert metrics is not None, "the pretrained run is scored before its fine-tuned runs"
        return Pair(config, Subject(one.run, one.metrics, c), Subject(pretrained, metrics, of_pretrained.config))


def _points(table: pd.DataFrame) -> pd.DataFrame:
    """Average a table's RI and CKA over layers and seeds: one row per curve and source.

    CKA is rounded to nine digits, so that 1 up to rounding errors is a tie in ranks.
    """
    layers = table[table["cka"].notna()]
    keys = ["curve", "source", "kind"]
    cells = layers.groupby([*keys, "seed"], sort=False)[["cka", "ri", "images"]].mean().reset_index()
    return cells.groupby(keys, sort=False)[["cka", "ri", "images"]].mean().round({"cka": 9}).reset_index()


def _mean_correlation(points: pd.DataFrame) -> MeanCorrelation | None:
    """Return the rank correlation of RI and mean CKA over the sources that all curves share, averaged over curves."""
    curves = points.groupby("curve", sort=False)
    return shared_rank_correlation(
        {str(curve): dict(zip(g["source"], zip(g["cka"], g["ri"], strict=True), strict=True)) for curve, g in curves}
    )


def _describe_mean(points: pd.DataFrame) -> str:
    correlation = _mean_correlation(points)
    if correlation is None:
        return "The curves share too few sources, or their values are too similar, for a mean rank correlation."
    return (
        f"Rank correlation of RI and mean CKA over sources, mean over {correlation.curves} curves: {correlation}; +1 "
        "would mean that the smaller the shift, the smaller the loss. Curves share their sources, so the interval "
        "(Bonett and Wright) counts each source once, and p permutes whole sources."
    )


def _list_points(group: pd.DataFrame) -> str:
    """List the points of a curve: ``CKA and RI on ImageNet-R 0.812, -26.03; ImageNet-A 0.950, -7.30``."""
    points = group[["source", "kind", "cka", "ri"]].itertuples(index=False)
    listed = [f"{title_of(str(source), str(kind))} {cka:.3f}, {ri:+.2f}" for source, kind, cka, ri in points]
    return f"CKA and RI on {'; '.join(listed)}"


def _mean(values: Sequence[float]) -> str:
    """Format the mean of values, one per source, with its Student's t interval (at most 1): ``0.812 [0.701, 0.923]``.

    For fewer than six sources, the mean alone.
    """
    over = seed_interval(values, over="sources") if len(values) >= MIN_DISTINCT else None
    return f"{fmean(values):.3f}" if over is None else f"{over.value:.3f} [{over.low:.3f}, {min(over.high, 1):.3f}]"
