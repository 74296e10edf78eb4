"""Format numbers and descriptions for tables: signed percentage points, intervals, accuracy before and after."""

from __future__ import annotations

from math import isnan
from typing import Literal

from rib.data.worlds import describe_kind
from rib.schemas.metrics import DatasetAccuracy, IntervalInPoints, Metrics


def points(value: float) -> str:
    """Format percentage points with a sign, ``+1.23``; a change that rounds to zero has none."""
    return f"{value:+.2f}" if abs(value) >= 0.005 else "0.00"


def with_interval(value: IntervalInPoints) -> str:
    """Format a value and its interval, both in percentage points, as ``+1.23 [+0.40, +2.05]``."""
    return f"{points(value['value'])} [{points(value['low'])}, {points(value['high'])}]"


def before_after(before: float, after: float) -> str:
    """Format accuracy before and after fine-tuning, in percent, as ``34.6 > 62.5``; ``not scored`` if NaN."""
    return "not scored" if isnan(after) else f"{before:.1f} > {after:.1f}"


def world_of(kind: str, limit: int | None) -> str:
    """Describe the data behind results (toy data or the user's), with a warning if only some images are used.

    Args:
        kind: ``mini`` or ``user``.
        limit: ``data.limit``, the largest number of images per dataset; None for all of them.
    """
    return describe_kind(kind) + (f", at most {limit} images per dataset: a quick look, not a result" if limit else "")


def world(metrics: Metrics) -> str:
    """Describe the data that a run was scored on, for the title or caption of a table or figure."""
    return world_of(metrics["data"]["kind"], metrics["protocol"]["limit"])


def percent(entry: DatasetAccuracy | None, when: Literal["before", "after"]) -> float:
    """Return a dataset's accuracy before or after fine-tuning, in percent; NaN if it was not scored."""
    return 100 * entry[when] if entry else float("nan")
