"""What every study is: from finished cells to a table, and from the table to a paragraph and figures.

A paragraph states effects with intervals and n, never an opinion; figures show the table's rows and nothing else, so
that all of it can be made again from table.csv.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from rib.figures import save
from rib.files import write_atomically
from rib.grid import Cell
from rib.store import Run, RunStore
from rib.summary import Summary, summarise
from rib.tables import catalog_of


@dataclass(frozen=True)
class Made:
    """A finished cell of a study.

    Attributes:
        cell: As planned, with what the axes say.
        run: Its run.
        metrics: What metrics.json says to exactly this question.
    """

    cell: Cell
    run: Run
    metrics: Mapping[str, Any]


class Study(Protocol):
    """A question put to a grid."""

    def table(self, made: Sequence[Made], store: RunStore) -> pd.DataFrame:
        """The numbers."""

    def paragraph(self, table: pd.DataFrame) -> str:
        """What they say."""

    def figures(self, table: pd.DataFrame) -> dict[str, Figure]:
        """What they look like, by file name."""


def write_study(study: Study, made: Sequence[Made], store: RunStore, out: Path) -> tuple[str, list[Path]]:
    """Write table.csv, summary.md and the figures.

    Args:
        study: What to draw.
        made: Finished cells.
        store: Where their runs are.
        out: ``<paths.runs>/studies/NAME``.

    Returns:
        The paragraph, and the files.
    """
    table = study.table(made, store)
    text = study.paragraph(table)
    files = [out / "table.csv", out / "summary.md"]
    write_atomically(files[0], table.to_csv(index=False).encode())
    write_atomically(files[1], f"{text}\n".encode())
    return text, files + [save(figure, out / f"{name}.png") for name, figure in study.figures(table).items()]


def rows(made: Sequence[Made], store: RunStore) -> list[dict[str, Any]]:
    """One row a model, method and values of the axes: mRI with both intervals, accuracies, cost.

    RI in percentage points and accuracies in percent, means over the sources and seeds that are there.
    """
    groups: dict[str, list[Made]] = {}
    for one in made:
        key = repr((one.metrics["model"], one.metrics["method"], sorted(one.cell.axes.items())))
        groups.setdefault(key, []).append(one)
    found = []
    for group in groups.values():
        results = [(one.run, one.metrics) for one in group]
        (summary,) = summarise(results, store, catalog_of(group[0].metrics["data"]["kind"]))
        found.append({"model": summary.model, "method": summary.method, **group[0].cell.axes, **numbers(summary)})
    return found


def is_of(one: Made, row: Mapping[str, Any]) -> bool:
    """Whether a cell is one of those behind a row of `rows`."""
    facts = {"model": one.metrics["model"], "method": one.metrics["method"], **one.cell.axes}
    return all(row[key] == value for key, value in facts.items())


def tidy(axes: Axes, along: Literal["both", "x"] = "both") -> None:
    """Small ticks, a light grid, no box."""
    axes.tick_params(axis=along, labelsize=8)
    axes.grid(axis=along, lw=0.4, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)


def log_ticks(axes: Axes, values: Iterable[float]) -> None:
    """A log scale whose ticks are the values that were tried, in plain figures."""
    ticks = sorted(set(values))
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{value:,.6g}" for value in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


def numbers(summary: Summary) -> dict[str, Any]:
    """A row's numbers by column."""
    over_seeds = summary.over_seeds
    return {
        "mri": summary.over_images.value,
        "low": summary.over_images.low,
        "high": summary.over_images.high,
        "seeds_low": over_seeds.low if over_seeds else float("nan"),
        "seeds_high": over_seeds.high if over_seeds else float("nan"),
        "num_sources": len(summary.improvement),
        "num_seeds": max(1, len(summary.seeds)),
        "source_before": 100 * summary.source_before,
        "source_after": 100 * summary.source_after,
        "val_before": 100 * summary.val_before,
        "val_after": 100 * summary.val_after,
        "seconds": summary.seconds,
    }


def said(row: Mapping[Any, Any]) -> str:
    """``-3.21 [-4.00, -2.50]``: mRI in points with its 95 % interval over images."""
    return f"{row['mri']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"


def n_of(table: pd.DataFrame) -> str:
    """``3 sources, 2 seeds``."""
    sources, seeds = int(table["num_sources"].max()), int(table["num_seeds"].max())
    return f"{sources} source{'s' * (sources > 1)}, {seeds} seed{'s' * (seeds > 1)}"
