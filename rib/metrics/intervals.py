"""What an interval is, and the one over seeds.

Two intervals stand side by side in every table, since they answer different questions: over *images* (would other
images of the same kind say the same of these weights?, `rib.metrics.bootstrap`) and over *seeds* (would training
again?). Neither contains the other. Each is 95 % for itself: of 20 intervals around nothing one excludes 0, so that
what is said of many at once goes by Holm (`rib.metrics.comparison.holm`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt
from statistics import fmean, stdev
from typing import Literal

from scipy.special import ndtr, stdtrit


@dataclass(frozen=True)
class Interval:
    """A value and where it may lie, in percentage points.

    Attributes:
        value: The estimate itself.
        low: Lower end.
        high: Upper end.
        over: What was taken to vary; the label that goes beside the numbers.
        level: Nominal coverage, 0 to 1.
        error: Standard error in closed form, percentage points; NaN where there is none that is normal.
    """

    value: float
    low: float
    high: float
    over: Literal["images only", "seeds", "sources"]
    level: float = 0.95
    error: float = nan

    @property
    def p(self) -> float:
        """Two-sided, of "the value is 0", by its error; NaN without one."""
        return two_sided(self.value, self.error)

    def __str__(self) -> str:
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}] ({self.over})"


def two_sided(value: float, error: float) -> float:
    """The p-value of a normal estimate against 0."""
    if value == 0:
        return 1.0
    return 2 * float(ndtr(-abs(value) / error)) if error else 0.0


def seed_interval(
    values: Sequence[float], level: float = 0.95, over: Literal["seeds", "sources"] = "seeds"
) -> Interval | None:
    """The interval of a mean over training seeds, by Student's t with n - 1 degrees of freedom.

    With the three seeds that one can afford, a percentile bootstrap covers 73 % where 95 % is meant (it can never
    leave the range of the three values); Student's t is exact for normal values. The values must be independent: seeds
    of a merged run that share an ingredient are not (`rib.reporting.summary` tells).

    Args:
        values: One number a seed, in percentage points.
        level: Nominal coverage, 0 to 1.
        over: What the values are one of each.

    Returns:
        None for fewer than two seeds, from which no spread can be told.
    """
    if len(values) < 2:
        return None
    mean = fmean(values)
    half = float(stdtrit(len(values) - 1, (1 + level) / 2)) * stdev(values) / sqrt(len(values))
    return Interval(mean, mean - half, mean + half, over, level)
