"""Type of all confidence intervals in percentage points, and the interval over training seeds.

Every table shows two intervals, which answer different questions. Over *images*: would the result hold on a new sample
of images? (`rib.metrics.bootstrap`). Over *seeds*: would it hold if the model were trained again? Neither contains the
other. Each has 95 % coverage on its own: when there is no effect, one interval in 20 still excludes 0. Claims about
many rows at once therefore use Holm's correction (`rib.metrics.comparison.holm`).
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
    """An estimate with its confidence interval, in percentage points.

    Attributes:
        value: The estimate.
        low: Lower end.
        high: Upper end.
        over: Source of the variation that the interval covers; printed beside the numbers.
        level: Nominal coverage, 0 to 1.
        error: Standard error in closed form, percentage points; NaN if the estimate is not approximately normal.
    """

    value: float
    low: float
    high: float
    over: Literal["images only", "seeds", "sources"]
    level: float = 0.95
    error: float = nan

    @property
    def p(self) -> float:
        """Two-sided p-value of the hypothesis "the value is 0" by a z-test; NaN without a standard error."""
        return two_sided(self.value, self.error)

    def __str__(self) -> str:
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}] ({self.over})"


def two_sided(value: float, error: float) -> float:
    """Return the two-sided p-value of the hypothesis that a normally distributed estimate is 0.

    Args:
        value: The estimate.
        error: Its standard error in the same unit; 0 if nothing varies.
    """
    if value == 0:  # also where the error is 0: no change on any image is no evidence
        return 1.0
    return 2 * float(ndtr(-abs(value) / error)) if error else 0.0


def seed_interval(
    values: Sequence[float], level: float = 0.95, over: Literal["seeds", "sources"] = "seeds"
) -> Interval | None:
    """Return the mean of values by seed with its confidence interval, by Student's t with n - 1 degrees of freedom.

    With the usual three seeds, a percentile bootstrap covers 73 % instead of 95 % (it can never leave the range of the
    three values); Student's t is exact for normal values. The values must be independent. Seeds of a merged run that
    share an ingredient are not, and `rib.reporting.summary` leaves their interval out.

    Args:
        values: One number per seed, in percentage points.
        level: Nominal coverage, 0 to 1.
        over: Label of the interval: the values are one per seed, or one per source.

    Returns:
        Mean and interval; None for fewer than two values, whose spread cannot be estimated.
    """
    if len(values) < 2:
        return None
    mean = fmean(values)
    # scipy.special, as scipy.stats takes a second to import.
    half = float(stdtrit(len(values) - 1, (1 + level) / 2)) * stdev(values) / sqrt(len(values))
    return Interval(mean, mean - half, mean + half, over, level)
