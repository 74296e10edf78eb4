"""Format numbers for tables: points with a sign, intervals, before and after."""

from __future__ import annotations

from math import isnan
from typing import Literal

from rib.schemas.metrics import DatasetAccuracy, IntervalInPoints, Metrics


def points(value: float) -> str:
    """Percentage points with their sign; no change has none."""
    return f"{value:+.2f}" if abs(value) >= 0.005 else "0.00"


def with_interval(value: IntervalInPoints) -> str:
    """``+1.23 [+0.40, +2.05]``."""
    return f"{points(value['value'])} [{points(value['low'])}, {points(value['high'])}]"


def before_after(before: float, after: float) -> str:
    """``34.6 > 62.5`` percent; a dataset that no suite scores has no number."""
    return "not scored" if isnan(after) else f"{before:.1f} > {after:.1f}"


def world_of(kind: str, limit: int | None) -> str:
    """Data in words: its kind, and ``data.limit`` if there is one."""
    data = "the built-in mini data" if kind == "mini" else "user data"
    return data + (f", at most {limit} images a dataset: a quick look, not a result" if limit else "")


def world(metrics: Metrics) -> str:
    """The data that a run's numbers are about; every output says so."""
    return world_of(metrics["data"]["kind"], metrics["protocol"]["limit"])


def percent(entry: DatasetAccuracy | None, when: Literal["before", "after"]) -> float:
    """Return a dataset's accuracy ``before`` or ``after`` in percent; NaN where it was not scored."""
    return 100 * entry[when] if entry else float("nan")
