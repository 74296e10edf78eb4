"""Do two things rise together? Spearman's rank correlation, where the points are independent and where they are not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import permutations
from math import atanh, factorial, isnan, nan, sqrt, tanh
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

LEAST = 6
"""Distinct values on either side below which a rank correlation is not told: of five, 0.9 and more comes up by chance
in 8 % of cases, and Bonett and Wright's interval then excludes 0. The points themselves say all that there is."""

ORDERS = 40_320
"""Orders of the places that are tried: all of up to eight places, else as many random ones."""


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


class Shared(NamedTuple):
    """The mean of several lines' rank correlations over the same places.

    Attributes:
        within: Its value and interval; ``n`` counts places, not points.
        lines: How many lines the mean is over.
        p: Two-sided, of "what a line's two numbers do at a place has nothing in common", whole places permuted.
    """

    within: Correlation
    lines: int
    p: float

    def __str__(self) -> str:
        return f"{self.within}, p {self.p:.2g}"


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> Correlation | None:
    """Spearman's rank correlation of independent pairs, with the interval of Bonett & Wright (2000), eq. 2, section 3.

    Fisher's z with the standard error sqrt((1 + r²/2) / (n - 3)), which covers better than 1 / sqrt(n - 3) does for
    ranks. ``n`` is the distinct values of the side that has fewer: three models pretrained on one number of images are
    one step of a scale. Pairs that share more (two models fine-tuned on one source) are `shared_rank_correlation`'s.

    Args:
        x: One number a pair.
        y: One number a pair.

    Returns:
        None below six distinct values on either side.
    """
    pairs = [(a, b) for a, b in zip(x, y, strict=True) if not (isnan(a) or isnan(b))]
    n = _distinct(pairs)
    return None if n < LEAST else _with_interval(float(stats.spearmanr(pairs).statistic), n)


def shared_rank_correlation(lines: Mapping[str, Mapping[str, tuple[float, float]]]) -> Shared | None:
    """Spearman's rank correlation over places that all lines share: models over the sources they were fine-tuned on.

    What a source does, it does to every model: 4 models on 7 sources are 28 points and 7 independent ones at most, so
    that the interval of 28 pairs excludes 0 in 8 to 43 % of cases where nothing is related (tests/metrics/test_rank.py
    simulates it). Hence ranks within each line, so that one line's level next to another's says nothing; the mean over
    lines; Bonett and Wright's interval as if a place were one pair, however many lines it has, which covers 95 to
    100 %; and a test that permutes whole places, all lines at once (exact up to eight), which keeps 5 % whatever the
    lines share. A bootstrap of seven places excludes 0 in up to 9 %, and a jackknife covers 50 to 85 % of strong
    correlations.

    Args:
        lines: By line, a pair of numbers by place. A line with fewer than six distinct values on either side is left
            out, and then so are places that not every line has.

    Returns:
        None where nothing is left of six distinct values on either side of a line.
    """
    kept = [line for line in lines.values() if _distinct(line.values()) >= LEAST]
    places = [place for place in kept[0] if all(place in line for line in kept)] if kept else []
    if not kept or any(_distinct([line[place] for place in places]) < LEAST for line in kept):
        return None
    x, y = (_standard_ranks(np.array([[line[place][i] for place in places] for line in kept])) for i in (0, 1))
    match = x.T @ y / len(kept)
    return Shared(_with_interval(float(np.trace(match)), len(places)), len(kept), _permuted(match))


def _distinct(pairs: Collection[tuple[float, float]]) -> int:
    """Distinct values of the side that has fewer."""
    return min(len({pair[i] for pair in pairs}) for i in (0, 1))


def _with_interval(r: float, n: int) -> Correlation:
    if abs(r) > 1 - 1e-12:
        return Correlation(r, nan, nan, n)
    half = float(stats.norm.ppf(0.975)) * sqrt((1 + r * r / 2) / (n - 3))
    return Correlation(r, tanh(atanh(r) - half), tanh(atanh(r) + half), n)


def _standard_ranks(values: Floats) -> Floats:
    """Ranks of each row (L, N), of mean 0 and length 1: the product of two rows is then Spearman's correlation."""
    ranks = stats.rankdata(values, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    standard: Floats = ranks / np.linalg.norm(ranks, axis=1, keepdims=True)
    return standard


def _permuted(match: Floats) -> float:
    """How often another order of the places gives a sum as far from 0.

    Args:
        match: (N, N), what the x of one place and the y of another add up to.
    """
    n = len(match)
    if factorial(n) <= ORDERS:
        orders = np.array(list(permutations(range(n))))
    else:
        orders = np.argsort(np.random.default_rng(0).random((ORDERS, n)), axis=1)
        orders[0] = np.arange(n)  # the one that was observed is one of them, so that p is never 0
    sums = match[np.arange(n), orders].sum(axis=1)
    return float(np.mean(abs(sums) >= abs(np.trace(match)) - 1e-12))
