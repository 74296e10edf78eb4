"""Rows of a study's table, made from a grid's finished runs, and functions that describe them in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import pandas as pd

from rib.data.worlds import catalog_of, title_of
from rib.metrics import holm
from rib.reporting.formatting import world_of
from rib.reporting.heads import PER_SOURCE, start_of
from rib.reporting.summary import LEVEL, Summary, summary_of
from rib.runs.store import RunStore
from rib.schemas.metrics import Metrics
from rib.sweeps.study import Made


@dataclass(frozen=True)
class Row:
    """A row of a study's table: finished cells that differ only in source and seed.

    Attributes:
        columns: Values by column: model, method, values of the axes, and `numbers`.
        made: The finished cells.
    """

    columns: dict[str, Any]
    made: list[Made]


def rows(made: Sequence[Made], store: RunStore) -> list[Row]:
    """Group finished cells into rows: one per model, pretrained weights, method and values of the axes.

    Args:
        made: Finished cells.
        store: The store that holds their runs.

    Returns:
        Rows with mRI and its intervals over images and seeds in percentage points, accuracies in percent and seconds
        per run, all means over the finished sources and seeds.
    """
    groups: dict[str, list[Made]] = {}
    starts: dict[str, set[str]] = {}
    for one in made:
        m = one.metrics
        start = _start(m)
        # By repr, since values of axes may be lists, which cannot be keys.
        groups.setdefault(repr((m["model"], start, m["method"], sorted(one.cell.axes.items()))), []).append(one)
        starts.setdefault(m["model"], set()).add(start)
    result = []
    for group in groups.values():
        m, axes = group[0].metrics, group[0].cell.axes
        kind = m["data"]["kind"]
        summary = summary_of([one.result for one in group], store, catalog_of(kind))
        model = summary.model if len(starts[summary.model]) == 1 else f"{summary.model} ({_start(m)})"
        result.append(Row({"model": model, "method": summary.method, **axes, "kind": kind, **numbers(summary)}, group))
    return result


def _start(metrics: Metrics) -> str:
    """Return text that tells models of one name apart: the first digits of the pretrained run's key, model options."""
    options = [f"{k.rpartition('.')[2]} {v}" for k, v in metrics["options"].items() if k.startswith("model.")]
    start = start_of(metrics)
    return " ".join([start if start == PER_SOURCE else start[:6], *options])


def name_curves(grouped: Sequence[Row], along: Sequence[str], always: Sequence[str] = ("model",)) -> None:
    """Add the column ``curve`` to rows: the values that distinguish its curve, ``mini_small, ewc, lr 0.01``.

    Args:
        grouped: All rows of one table.
        along: Axes that vary along a curve.
        always: Columns that are named even if all rows have the same value.
    """
    axes = dict.fromkeys(axis for row in grouped for axis in row.made[0].cell.axes if axis not in along)
    columns = ["method", *axes]
    varying = [c for c in columns if c in always or len({repr(row.columns.get(c)) for row in grouped}) > 1]
    for row in grouped:
        first = [str(row.columns[column]) for column in always if column not in columns]
        named = [(c, row.columns[c]) for c in varying if row.columns.get(c) is not None]
        rest = [str(value) if c == "method" else f"{c.rpartition('.')[2]} {value}" for c, value in named]
        row.columns["curve"] = ", ".join([*first, *rest])


def describe_subset(row: Row) -> dict[str, Any]:
    """Return columns with the size and digests of the image subsets that a row's runs were fine-tuned on.

    Returns:
        ``images``: number of images; ``a_class``: images per class; both means over the row's cells. ``digests``: the
        digest of each distinct subset.
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
    """Return the numeric columns of a study's row: mRI in percentage points, accuracies in percent, seconds per run."""
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
    """Format mRI in percentage points with its 95 % interval over images only: ``-3.21 [-4.00, -2.50]``."""
    return f"{row[of]:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"


def per_class(value: float) -> str:
    """Format a number of images per class: ``1 image per class``, ``12.5 images per class``."""
    return f"{value:.5g} image{'' if value == 1 else 's'} per class"


def with_holm(table: pd.DataFrame) -> pd.DataFrame:
    """Add the column ``p_holm``: p-values of mRI = 0 (column ``p``), adjusted by Holm's method for all rows."""
    return table.assign(p_holm=holm(list(table["p"])))


def count_gains(table: pd.DataFrame) -> int:
    """Count the rows whose mRI is significantly above 0, in a table that `with_holm` returned."""
    return int(((table["mri"] > 0) & (table["p_holm"] < LEVEL)).sum())


def n_of(table: pd.DataFrame, named: bool = False) -> str:
    """Format the number of sources and seeds of a table: ``3 sources, 2 seeds``; ``1 to 3 seeds`` where rows differ.

    Toy data and suites of one's own are named, ``3 sources, 2 seeds, toy data (mini)``, since every text and figure of
    a study has these words.

    Args:
        table: A table with the columns of `numbers`, and ``kind`` of its data (without it: the user's).
        named: Name the sources as well if there are at most three.
    """
    counts = []
    kind = kind_in(table)
    sources = sorted({name for row in table["sources"] for name in str(row).split()})
    for column, name in (("num_sources", "source"), ("num_seeds", "seed")):
        least, most = int(table[column].min()), int(table[column].max())
        counts.append(f"{least if least == most else f'{least} to {most}'} {name}{'s' * (most > 1)}")
    if named and len(sources) <= 3:
        counts[0] += f" ({', '.join(title_of(source, kind) for source in sources)})"
    return ", ".join(counts if kind == "user" else [*counts, world_of(kind, None)])


def kind_in(table: pd.DataFrame) -> str:
    """Return the kind of data behind a study's table, which is in its column ``kind``; without it ``user``."""
    return "user" if "kind" not in table else str(table["kind"].iloc[0])


def is_missing(value: object) -> bool:
    """Return True if a value of a table is NaN."""
    return isinstance(value, float) and isnan(value)
