"""From finished cells to the rows of a study's table, and the words that describe them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import pandas as pd

from rib.data.worlds import catalog_of
from rib.metrics import holm
from rib.reporting.summary import LEVEL, Summary, summary_of
from rib.runs.store import RunStore
from rib.schemas.metrics import Metrics
from rib.sweeps.study import Made


@dataclass(frozen=True)
class Row:
    """Cells that differ in source and seed alone, and their numbers by column.

    Attributes:
        facts: Model, method, values of the axes, and `numbers`.
        made: The cells.
    """

    facts: dict[str, Any]
    made: list[Made]


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


def _start(metrics: Metrics) -> str:
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


def describe_subset(row: Row) -> dict[str, Any]:
    """The subsets behind a row: ``images`` in all, ``a_class`` of them, and a digest for each draw.

    Over several sources, means.
    """
    trees = [one.cell.spec.source for one in row.made if one.cell.spec and one.cell.spec.source is not None]
    sizes = [len(tree) for tree in trees]
    each = [len(tree) / len(set(tree.labels.tolist())) for tree in trees]
    return {
        "images": sum(sizes) / len(sizes),
        "a_class": sum(each) / len(each),
        "digests": " ".join(dict.fromkeys(tree.digest for tree in trees)),
    }


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


def format_effect(row: Mapping[Any, Any], of: str = "mri") -> str:
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
