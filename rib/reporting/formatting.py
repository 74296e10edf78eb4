"""Format numbers for tables: points with a sign, intervals, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan
from typing import Any


def points(value: float) -> str:
    """Percentage points with their sign; no change has none."""
    return f"{value:+.2f}" if abs(value) >= 0.005 else "0.00"


def with_interval(value: Mapping[str, float]) -> str:
    """``+1.23 [+0.40, +2.05]``."""
    return f"{points(value['value'])} [{points(value['low'])}, {points(value['high'])}]"


def before_after(before: float, after: float) -> str:
    """``34.6 > 62.5`` percent; a dataset that no suite scores has no number."""
    return "not scored" if isnan(after) else f"{before:.1f} > {after:.1f}"


def world(metrics: Mapping[str, Any]) -> str:
    """Which data the numbers are about; every output says so."""
    kind = "the built-in mini data" if metrics["data"]["kind"] == "mini" else "user data"
    limit = metrics["protocol"]["limit"]
    return kind + (f", at most {limit} images a dataset: a quick look, not a result" if limit else "")


def percent(entry: Mapping[str, float] | None, when: str) -> float:
    """Return a dataset's accuracy ``before`` or ``after`` in percent; NaN where it was not scored."""
    return 100 * entry[when] if entry else float("nan")
