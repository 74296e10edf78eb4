"""Spearman's rank correlation and its interval, by hand and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from rib.metrics.rank import rank_correlation


def test_a_rank_correlation_is_the_sum_over_ranks_with_bonett_and_wrights_interval():
    x, y = [1.0, 2, 3, 4, 5, 6], [2.0, 1, 4, 3, 6, 5]
    found = rank_correlation(x, y)
    assert found is not None
    r = 1 - 6 * sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) / (6 * 35)
    assert found.value == pytest.approx(r)
    half = 1.959964 * ((1 + r * r / 2) / 3) ** 0.5
    assert np.arctanh([found.low, found.high]) == pytest.approx([np.arctanh(r) - half, np.arctanh(r) + half], abs=1e-5)
    assert rank_correlation([1, 2, 3], [1, 2, 3]) is None
    assert rank_correlation([1, 2, 3, 4], [1, 1, 1, 1]) is None
    assert "all in order" in str(rank_correlation([1, 2, 3, 4], [1, 2, 3, 4]))


def test_its_interval_covers():
    rng = np.random.default_rng(0)
    truth, covered, cases = 6 / np.pi * np.arcsin(0.6 / 2), 0, 1000  # of a bivariate normal with correlation 0.6
    for _ in range(cases):
        a = rng.normal(size=28)
        found = rank_correlation(list(a), list(0.6 * a + 0.8 * rng.normal(size=28)))
        covered += found.low < truth < found.high
    assert 0.93 < covered / cases < 0.975
