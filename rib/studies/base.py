"""What every study is: from finished cells to a table, and from the table to a paragraph and figures.

A paragraph states effects with intervals and n, never an opinion; figures show the table's rows and nothing else, so
that all of it can be made again from table.csv. Each interval is 95 % for itself; how many of many gain is counted
after Holm. Nothing is called the best by mRI, which is of targets: what is best is so on the source, or on what was
held out of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, log
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from rib.comparable import Result
from rib.errors import RibError
from rib.figures import save, style
from rib.files import write_atomically
from rib.grid import Cell
from rib.metrics import holm
from rib.store import Run, RunStore
from rib.summary import LEVEL, Summary, summary_of
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

    @property
    def result(self) -> Result:
        """As `rib.summary` takes it."""
        return self.run, self.metrics


@dataclass(frozen=True)
class Row:
    """Cells that differ in source and seed alone, and their numbers by column.

    Attributes:
        facts: Model, method, values of the axes, and `numbers`.
        made: The cells.
    """

    facts: dict[str, Any]
    made: list[Made]


class Study(ABC):
    """A question put to a grid."""

    def check(self, cells: Sequence[Cell]) -> None:
        """See, before anything is made, that the study can be drawn from these cells.

        Args:
            cells: Of the grid, those that can be asked.

        Raises:
            RibError: If it cannot, with what is missing.
        """
        if not any(cell.question and cell.question.source is not None for cell in cells):
            raise RibError("methods: a study needs cells that are fine-tuned, got none")

    @abstractmethod
    def table(self, made: Sequence[Made], store: RunStore) -> pd.DataFrame:
        """The numbers, of as many cells as are finished: at least one."""

    @abstractmethod
    def paragraph(self, table: pd.DataFrame) -> str:
        """What they say."""

    @abstractmethod
    def figures(self, table: pd.DataFrame) -> dict[str, Figure]:
        """What they look like, by file name."""


def write_study(study: Study, made: Sequence[Made], store: RunStore, out: Path) -> tuple[str, list[Path]]:
    """Write table.csv, summary.md and the figures.

    Args:
        study: What to draw.
        made: Finished cells, at least one.
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
    for stale in out.glob("*.png"):
        stale.unlink()
    return text, files + [save(figure, out / f"{name}.png") for name, figure in study.figures(table).items()]


def need_axis(cells: Sequence[Cell], option: str, study: str) -> None:
    """Refuse a grid of which some cells have no such axis."""
    if without := next((cell for cell in cells if option not in cell.axes), None):
        raise RibError(f"axes: {study} is drawn over {option}, which {without.label} has no values of")


def rows(made: Sequence[Made], store: RunStore) -> list[Row]:
    """One row a model, start, method and values of the axes: mRI with both intervals, accuracies, cost.

    RI in percentage points and accuracies in percent, means over the sources and seeds that are there.
    """
    groups: dict[str, list[Made]] = {}
    starts: dict[str, set[str]] = {}
    for one in made:
        m = one.metrics
        start = _start(m)
        groups.setdefault(repr((m["model"], start, m["method"], sorted(one.cell.axes.items()))), []).append(one)
        starts.setdefault(m["model"], set()).add(start)
    found = []
    for group in groups.values():
        m, axes = group[0].metrics, group[0].cell.axes
        summary = summary_of([one.result for one in group], store, catalog_of(m["data"]["kind"]))
        model = summary.model if len(starts[summary.model]) == 1 else f"{summary.model} ({_start(m)})"
        found.append(Row({"model": model, "method": summary.method, **axes, **numbers(summary)}, group))
    return found


def _start(metrics: Mapping[str, Any]) -> str:
    """What tells two models of one name apart: their weights, and how images are shown to them."""
    options = [f"{k.rpartition('.')[2]} {v}" for k, v in metrics["options"].items() if k.startswith("model.")]
    return " ".join([metrics["before"][:6], *options])


def name_curves(found: Sequence[Row], along: Sequence[str], parts: Sequence[str] = ("model",)) -> None:
    """Put into each row what tells its curve from others, ``mini_small, ewc, lr 0.01``, as ``curve``.

    Args:
        found: Rows of one table.
        along: Axes that run along a curve.
        parts: Columns that are said even if they are the same everywhere.
    """
    axes = dict.fromkeys(axis for row in found for axis in row.made[0].cell.axes if axis not in along)
    columns = ["method", *axes]
    varying = [c for c in columns if c in parts or len({repr(row.facts.get(c)) for row in found}) > 1]
    for row in found:
        first = [str(row.facts[part]) for part in parts if part not in columns]
        told = [(c, row.facts[c]) for c in varying if row.facts.get(c) is not None]
        rest = [str(value) if c == "method" else f"{c.rpartition('.')[2]} {value}" for c, value in told]
        row.facts["curve"] = ", ".join([*first, *rest])


def drawn(row: Row) -> dict[str, Any]:
    """The subsets behind a row: ``images`` in all, ``a_class`` of them, and a digest for each draw.

    Over several sources, means.
    """
    trees = [one.cell.question.source for one in row.made if one.cell.question and one.cell.question.source is not None]
    sizes = [len(tree) for tree in trees]
    each = [len(tree) / len(set(tree.labels.tolist())) for tree in trees]
    return {
        "images": sum(sizes) / len(sizes),
        "a_class": sum(each) / len(each),
        "digests": " ".join(dict.fromkeys(tree.digest for tree in trees)),
    }


def draw_curve(
    axes: Axes, x: str, curve: pd.DataFrame, number: int, label: str, value: str = "mri", of: str = ""
) -> None:
    """A line with its band over images, and bars over seeds where every point has several.

    Args:
        axes: To draw on.
        x: Column along the axis.
        curve: Rows of one curve.
        number: Of the curve, for its `style`.
        label: For the legend.
        value: Column of the estimate.
        of: Begins the names of the intervals' columns, ``low``, ``high``, ``seeds_low``, ``seeds_high``.
    """
    curve = curve.sort_values(x)
    look = style(number)
    line: dict[str, Any] = {**look, "ms": 4, "lw": 1.4, "label": label}
    if curve[x].duplicated().any():  # several at one place are points, not a line
        ends = [curve[value] - curve[f"{of}low"], curve[f"{of}high"] - curve[value]]
        axes.errorbar(curve[x], curve[value], ends, fmt="none", color=look["color"], alpha=0.4, elinewidth=4)
        line |= {"ls": "none"}
    else:
        axes.fill_between(curve[x], curve[f"{of}low"], curve[f"{of}high"], color=look["color"], alpha=0.2, lw=0)
    axes.plot(curve[x], curve[value], **line)
    if (curve["num_seeds"] > 1).all():
        axes.vlines(curve[x], curve[f"{of}seeds_low"], curve[f"{of}seeds_high"], color=look["color"], lw=0.9)


def tidy(axes: Axes, along: Literal["both", "x"] = "both") -> None:
    """Small ticks, a light grid, no box."""
    axes.tick_params(axis=along, labelsize=8)
    axes.grid(axis=along, lw=0.4, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)


def log_ticks(axes: Axes, values: Iterable[float]) -> None:
    """A log scale whose ticks are the values that were tried; where they stand too close not all are named."""
    ticks = sorted({value for value in values if value > 0})
    axes.set_xscale("log")
    named: list[float] = []
    for value in ticks:
        if not named or log(value / named[-1]) > 0.07 * log(ticks[-1] / ticks[0]):
            named.append(value)
    axes.set_xticks(ticks, [short(value) if value in named else "" for value in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


def short(value: float) -> str:
    """``0.0002``, ``50``, ``30k``, ``12.8M``, ``1.28B``."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}"


def numbers(summary: Summary) -> dict[str, Any]:
    """A row's numbers by column."""
    over_seeds = summary.over_seeds
    return {
        "mri": summary.over_images.value,
        "low": summary.over_images.low,
        "high": summary.over_images.high,
        "p": summary.over_images.p,
        "seeds_low": over_seeds.low if over_seeds else float("nan"),
        "seeds_high": over_seeds.high if over_seeds else float("nan"),
        "num_sources": len(summary.improvement),
        "num_seeds": max(1, len(summary.seeds)),
        "sources": " ".join(summary.improvement),
        "source_before": 100 * summary.source_before,
        "source_after": 100 * summary.source_after,
        "val_before": 100 * summary.val_before,
        "val_after": 100 * summary.val_after,
        "seconds": summary.seconds,
    }


def said(row: Mapping[Any, Any], of: str = "mri") -> str:
    """``-3.21 [-4.00, -2.50]``: mRI in points with its 95 % interval over images only."""
    return f"{row[of]:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"


def with_holm(table: pd.DataFrame) -> pd.DataFrame:
    """A table with ``p_holm`` beside ``p`` of "mRI is 0, over images": for all its rows together."""
    return table.assign(p_holm=holm(list(table["p"])))


def gaining(table: pd.DataFrame) -> int:
    """How many rows of a table `with_holm` gain robustness."""
    return int(((table["mri"] > 0) & (table["p_holm"] < LEVEL)).sum())


def n_of(table: pd.DataFrame, named: bool = False) -> str:
    """``3 sources, 2 seeds``; ``1 to 3 seeds`` where rows differ.

    Args:
        table: With the columns of `numbers`.
        named: Say which sources, where there are not many.
    """
    told = []
    sources = sorted({name for row in table["sources"] for name in str(row).split()})
    for column, name in (("num_sources", "source"), ("num_seeds", "seed")):
        least, most = int(table[column].min()), int(table[column].max())
        told.append(f"{least if least == most else f'{least} to {most}'} {name}{'s' * (most > 1)}")
    if named and len(sources) <= 3:
        told[0] += f" ({', '.join(sources)})"
    return ", ".join(told)


def unknown(value: object) -> bool:
    """Whether a cell of a table holds no number."""
    return isinstance(value, float) and isnan(value)
