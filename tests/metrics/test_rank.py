"""Spearman's rank correlation, its interval and its test, by hand and by simulation."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from rib.metrics.rank import rank_correlation, shared_rank_correlation


def test_a_rank_correlation_is_the_sum_over_ranks_with_bonett_and_wrights_interval():
    x, y = [1.0, 2, 3, 4, 5, 6], [2.0, 1, 4, 3, 6, 5]
    found = rank_correlation(x, y)
    assert found is not None
    r = 1 - 6 * sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) / (6 * 35)
    assert found.value == pytest.approx(r)
    half = 1.959964 * ((1 + r * r / 2) / 3) ** 0.5
    assert np.arctanh([found.low, found.high]) == pytest.approx([np.arctanh(r) - half, np.arctanh(r) + half], abs=1e-5)
    assert "all in order" in str(rank_correlation(x, x))


def test_five_values_have_no_interval_however_often_they_come():
    assert rank_correlation([1, 2, 3, 4, 5], [1, 2, 3, 4, 5]) is None
    assert rank_correlation([1, 1, 2, 2, 3, 3, 4, 5], range(8)) is None
    assert rank_correlation(range(6), [1.0] * 6) is None
    assert rank_correlation([1, 2, 3, 4, 5, float("nan")], range(6)) is None


def test_its_interval_covers():
    rng = np.random.default_rng(0)
    truth, covered, cases = 6 / np.pi * np.arcsin(0.6 / 2), 0, 1000  # of a bivariate normal with correlation 0.6
    for _ in range(cases):
        a = rng.normal(size=28)
        found = rank_correlation(list(a), list(0.6 * a + 0.8 * rng.normal(size=28)))
        covered += found.low < truth < found.high
    assert 0.93 < covered / cases < 0.975


MODELS, SOURCES = 4, 7


def drawn(rng, shared: float, levels: float = 0.0, correlation: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Two numbers of each model on each source (M, S): what the source does to all models, what is the model's own
    level, and noise. Their relation is the sources' alone.
    """
    source = rng.normal(size=(2, 1, SOURCES))
    source[1] = correlation * source[0] + np.sqrt(1 - correlation**2) * source[1]
    level, noise = levels * rng.normal(size=(2, MODELS, 1)), rng.normal(size=(2, MODELS, SOURCES))
    return tuple(np.sqrt(shared) * source + np.sqrt(1 - shared) * noise + level)


def as_lines(x, y):
    return {str(m): {str(s): (x[m, s], y[m, s]) for s in range(SOURCES)} for m in range(MODELS)}


def null_rates(shared: float, levels: float, cases: int) -> tuple[float, float, float]:
    """Return how often 0 is excluded although nothing is related: by independent pairs, by ours, by our p-value."""
    rng, pairs, interval, test = np.random.default_rng(0), 0, 0, 0
    for _ in range(cases):
        x, y = drawn(rng, shared, levels)
        naive = rank_correlation(list(x.ravel()), list(y.ravel()))
        pairs += not naive.low <= 0 <= naive.high
        found = shared_rank_correlation(as_lines(x, y))
        interval += not found.within.low <= 0 <= found.within.high
        test += found.p < 0.05
    return pairs / cases, interval / cases, test / cases


def test_sources_that_models_share_are_no_independent_pairs():
    pairs, interval, test = null_rates(0.8, 0.0, 60)
    assert pairs > 0.12
    assert interval <= 0.08
    assert test <= 0.12  # three standard errors above 5 % in 60 cases


@pytest.mark.slow
@pytest.mark.parametrize(("shared", "levels"), [(0.0, 0.0), (0.5, 0.0), (0.8, 0.0), (1.0, 0.0), (0.5, 1.0), (0.8, 1.0)])
def test_where_nothing_is_related_0_is_excluded_as_rarely_as_is_said(shared, levels):
    """Over 1,000 cases the Monte Carlo error of 5 % is 0.7 %."""
    pairs, interval, test = null_rates(shared, levels, 1000)
    assert interval <= 0.06
    assert 0.03 <= test <= 0.07
    # What was done before, and why it is not; of lines that are copies of one another it counts each point once.
    assert (pairs > 0.08) == (0 < shared < 1)


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("shared", [0.8, 1.0])
def test_the_interval_of_shared_places_covers(shared, correlation):
    """The expectation of the estimate in the same design, where there is an interval at all."""
    rng = np.random.default_rng(0)
    found = [shared_rank_correlation(as_lines(*drawn(rng, shared, 1.0, correlation))) for _ in range(1000)]
    truth = np.mean([one.within.value for one in found])
    covered = [one.within.low <= truth <= one.within.high for one in found if not np.isnan(one.within.low)]
    assert np.mean(covered) > 0.93


def test_the_value_is_the_mean_of_the_lines_and_p_counts_orders_of_whole_places():
    x, y = drawn(np.random.default_rng(1), 0.7, 1.0, 0.5)
    found = shared_rank_correlation(as_lines(x, y))
    ranks = [stats.rankdata(side, axis=1) for side in (x, y)]

    def mean(order) -> float:
        squares = ((ranks[0] - ranks[1][:, list(order)]) ** 2).sum(axis=1)
        return float(np.mean(1 - 6 * squares / (SOURCES * (SOURCES**2 - 1))))

    every = np.array([mean(order) for order in permutations(range(SOURCES))])
    assert found.within.value == pytest.approx(every[0])
    assert found.within.value == pytest.approx(
        np.mean([stats.spearmanr(*pair).statistic for pair in zip(x, y, strict=True)])
    )
    assert found.p == pytest.approx(np.mean(abs(every) >= abs(every[0]) - 1e-12))
    assert (found.within.n, found.curves) == (SOURCES, MODELS)


def test_where_all_lines_agree_p_is_two_orders_of_all():
    same = {str(m): {str(s): (float(s), float(s)) for s in range(SOURCES)} for m in range(MODELS)}
    found = shared_rank_correlation(same)
    assert found.p == pytest.approx(2 / 5040)
    assert "all in order" in str(found)


def test_places_that_a_line_lacks_and_lines_that_hardly_vary_are_left_out():
    lines = as_lines(*drawn(np.random.default_rng(1), 0.7))
    whole = shared_rank_correlation(lines)
    flat = {**lines, "flat": {place: (1.0, float(place)) for place in lines["0"]}}
    begun = {**lines, "begun": {"0": (1.0, 2.0), "1": (2.0, 1.0)}}
    assert whole == shared_rank_correlation(flat) == shared_rank_correlation(begun)
    lines["0"] = {place: pair for place, pair in lines["0"].items() if place != "3"}
    assert shared_rank_correlation(lines).within.n == 6
    lines["1"] = {place: pair for place, pair in lines["1"].items() if place != "4"}
    assert shared_rank_correlation(lines) is None, "five places are points"
    assert shared_rank_correlation({}) is None


def test_more_places_than_all_orders_can_be_tried_of_are_permuted_at_random_and_p_is_never_0():
    line = {str(place): (float(place), float(place)) for place in range(12)}
    assert shared_rank_correlation({"a": line}).p == pytest.approx(1 / 40_320)
