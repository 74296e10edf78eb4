"""Do two things rise together? Spearman's rank correlation with an interval."""

from __future__ import annotations

from collections.abc import Sequence
from math import atanh, isnan, sqrt, tanh
from typing import NamedTuple

from scipy import stats

LEAST = 4
"""Pairs below which a rank correlation is not told."""


class Correlation(NamedTuple):
    """A rank correlation, -1 to 1, with its 95 % interval; at -1 and 1 the formula has none (NaN)."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if isnan(self.low):  # only there: the value itself is a number
            return f"{self.value:+.2f} (all in order, no interval; n = {self.n})"
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}] (n = {self.n})"


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> Correlation | None:
    """Spearman's rank correlation with the interval of Bonett & Wright (2000), eq. 2 and section 3.

    Fisher's z with the standard error sqrt((1 + r²/2) / (n - 3)), which covers better than 1 / sqrt(n - 3) does for
    ranks. It takes the pairs as independent: two sources of one model share their start, so that of a pool of several
    models is, if anything, too narrow.

    Args:
        x: One number a pair.
        y: One number a pair.

    Returns:
        None for fewer than four pairs of two numbers, or where one side is constant.
    """
    pairs = [(a, b) for a, b in zip(x, y, strict=True) if not (isnan(a) or isnan(b))]
    x, y, n = [a for a, _ in pairs], [b for _, b in pairs], len(pairs)
    if n < LEAST or len(set(x)) == 1 or len(set(y)) == 1:
        return None
    r = float(stats.spearmanr(x, y).statistic)
    if abs(r) > 1 - 1e-12:
        return Correlation(r, float("nan"), float("nan"), n)
    half = float(stats.norm.ppf(0.975)) * sqrt((1 + r * r / 2) / (n - 3))
    return Correlation(r, tanh(atanh(r) - half), tanh(atanh(r) + half), n)
