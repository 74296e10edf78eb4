"""Spearman's rank correlation, for independent pairs and for several models measured on the same sources."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import permutations
from math import atanh, factorial, isnan, nan, sqrt, tanh
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

MIN_DISTINCT = 6
"""Fewest distinct values of x and of y for which a rank correlation is computed.

With five values, a correlation of 0.9 or more occurs by chance in 8 % of cases, and Bonett and Wright's interval then
excludes 0. Reports print the points themselves instead."""

MAX_ORDERS = 40_320
"""Permutations in a test: all 8! of up to eight sources, else as many random ones."""


class Correlation(NamedTuple):
    """A rank correlation with its 95 % interval.

    Attributes:
        value: Spearman's coefficient, -1 to 1.
        low: Lower end; NaN where ``value`` is -1 or 1, for which the formula gives no interval.
        high: Upper end; NaN likewise.
        n: Number of independent values that the interval is based on.
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if isnan(self.low):  # the value is exactly -1 or 1
            return f"{self.value:+.2f} (all in order, no interval; n = {self.n})"
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}] (n = {self.n})"


class MeanCorrelation(NamedTuple):
    """Mean rank correlation of several curves (one per model) over the same sources.

    Attributes:
        within: The mean and its interval; ``n`` is the number of sources, not of points.
        curves: Number of curves that the mean is over.
        p: Two-sided p-value of the hypothesis "x and y of a source are unrelated", by permuting whole sources.
    """

    within: Correlation
    curves: int
    p: float

    def __str__(self) -> str:
        return f"{self.within}, p {self.p:.2g}"


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> Correlation | None:
    """Compute Spearman's rank correlation of independent pairs, with its 95 % interval.

    The interval is that of Bonett & Wright 2000, "Sample size requirements for estimating Pearson, Kendall and Spearman
    correlations", section 3, eq. 2: Fisher's z with the standard error sqrt((1 + r²/2) / (n - 3)), which covers better
    for ranks than 1 / sqrt(n - 3). ``n`` is the number of distinct values of x or y, whichever is smaller: three models
    pretrained on the same number of images are one step of a scale. For pairs that are not independent (two models
    fine-tuned on one source) use `shared_rank_correlation`.

    Args:
        x: One number per pair; pairs with a NaN are dropped.
        y: One number per pair.

    Returns:
        Coefficient and interval; None if x or y has fewer than six distinct values.
    """
    pairs = [(a, b) for a, b in zip(x, y, strict=True) if not (isnan(a) or isnan(b))]
    n = _distinct(pairs)
    return None if n < MIN_DISTINCT else _with_interval(float(stats.spearmanr(pairs).statistic), n)


def shared_rank_correlation(curves: Mapping[str, Mapping[str, tuple[float, float]]]) -> MeanCorrelation | None:
    """Compute the mean rank correlation of several models (curves) that were fine-tuned on the same sources.

    A source affects all models alike: 4 models on 7 sources give 28 points but at most 7 independent ones. An interval
    that takes the 28 pairs as independent excludes 0 in 8 to 43 % of cases without any relation (simulated in
    tests/metrics/test_rank.py). Therefore:

    - ranks are taken within each curve, so that differences in level between curves have no effect;
    - the estimate is the mean of the curves' correlations;
    - Bonett and Wright's interval counts each source once, however many curves there are; it covers 95 to 100 %;
    - the test permutes whole sources in all curves at once (exactly up to eight sources); it rejects 5 % of true
      hypotheses, whatever the curves have in common.

    The alternatives were worse: a bootstrap of seven sources excludes 0 in up to 9 % of such cases, and a jackknife
    covers 50 to 85 % for strong correlations.

    Args:
        curves: For each curve, the pair (x, y) of each source. Curves in which x or y has fewer than six distinct
            values are left out, then sources that some remaining curve lacks.

    Returns:
        Mean correlation, interval and p-value; None if no curve remains, or one has fewer than six
        distinct values of x or y on the common sources.
    """
    kept = [curve for curve in curves.values() if _distinct(curve.values()) >= MIN_DISTINCT]
    sources = [source for source in kept[0] if all(source in curve for curve in kept)] if kept else []
    if not kept or any(_distinct([curve[source] for source in sources]) < MIN_DISTINCT for curve in kept):
        return None
    x, y = (_standard_ranks(np.array([[curve[source][i] for source in sources] for curve in kept])) for i in (0, 1))
    match = x.T @ y / len(kept)
    correlation = _with_interval(float(np.trace(match)), len(sources))
    return MeanCorrelation(correlation, len(kept), _permutation_p(match))


def _distinct(pairs: Collection[tuple[float, float]]) -> int:
    """Return the number of distinct x or of distinct y among (x, y) pairs, whichever is smaller."""
    return min(len({pair[i] for pair in pairs}) for i in (0, 1))


def _with_interval(r: float, n: int) -> Correlation:
    if abs(r) > 1 - 1e-12:  # atanh(1) is infinite
        return Correlation(r, nan, nan, n)
    half = float(stats.norm.ppf(0.975)) * sqrt((1 + r * r / 2) / (n - 3))
    return Correlation(r, tanh(atanh(r) - half), tanh(atanh(r) + half), n)


def _standard_ranks(values: Floats) -> Floats:
    """Return the ranks in each row, centred and scaled to length 1: the dot product of two rows is Spearman's r."""
    ranks = stats.rankdata(values, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    standard: Floats = ranks / np.linalg.norm(ranks, axis=1, keepdims=True)
    return standard


def _permutation_p(match: Floats) -> float:
    """Return the p-value: the share of permutations of the sources with at least the observed |correlation|.

    Args:
        match: Mean over curves of the products of standard ranks, x of source i with y of source j, shape (N, N); the
            trace is the observed correlation.
    """
    n = len(match)
    if factorial(n) <= MAX_ORDERS:
        orders = np.array(list(permutations(range(n))))
    else:
        orders = np.argsort(np.random.default_rng(0).random((MAX_ORDERS, n)), axis=1)
        orders[0] = np.arange(n)  # the observed order counts as one of them, so that p is never 0
    sums = match[np.arange(n), orders].sum(axis=1)
    # The tolerance counts orders with the same sum up to rounding as equally far.
    return float(np.mean(abs(sums) >= abs(np.trace(match)) - 1e-12))
