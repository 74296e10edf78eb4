"""The interval for few images: against the 2 x 2 table of the paper, and its exact coverage."""

from __future__ import annotations

from math import comb, sqrt

import numpy as np
import pytest

from rib.metrics import Changes, dataset_change_interval
from rib.metrics.few_images import small_sample_interval


def interval(won, lost, same):
    change = np.array([1] * won + [-1] * lost + [0] * same)
    return small_sample_interval([Changes("imagenet_r", change)])


@pytest.mark.parametrize(
    ("won", "lost", "same"), [(0, 0, 14), (0, 2, 12), (3, 1, 6), (14, 0, 0), (1, 0, 0), (9, 9, 80)]
)
def test_it_is_walds_interval_with_half_an_image_added_to_each_cell_of_the_table(won, lost, same):
    table = np.array([[same, won], [lost, 0]]) + 0.5  # how the pairs that are alike are split does not matter
    n = table.sum()
    p12, p21 = table[0, 1] / n, table[1, 0] / n
    half = 1.959964 * sqrt((p12 + p21 - (p12 - p21) ** 2) / n)
    found = interval(won, lost, same)
    assert found.low == pytest.approx(max(-100, 100 * (p12 - p21 - half)), abs=1e-4)
    assert found.high == pytest.approx(min(100, 100 * (p12 - p21 + half)), abs=1e-4)
    assert found.value == pytest.approx(100 * (won - lost) / (won + lost + same))
    assert found.low < found.value < found.high or abs(found.value) == 100


@pytest.mark.parametrize("chances", [(0.02, 0.02), (0.1, 0.02), (0.1, 0.1), (0.3, 0.1), (0.5, 0.05), (0.05, 0.4)])
def test_its_exact_coverage_with_14_images_is_that_of_its_name(chances):
    """The sum over all outcomes of their probabilities where the interval holds the true difference."""
    n, (gain, loss) = 14, chances
    covered, naive = 0.0, 0.0
    for won in range(n + 1):
        for lost in range(n + 1 - won):
            rest = n - won - lost
            chance = comb(n, won) * comb(n - won, lost) * gain**won * loss**lost * (1 - gain - loss) ** rest
            found, truth = interval(won, lost, rest), 100 * (gain - loss)
            covered += chance * (found.low <= truth <= found.high)
            difference, half = (won - lost) / n, 1.96 * sqrt(won + lost - (won - lost) ** 2 / n) / n
            naive += chance * (difference - half <= truth / 100 <= difference + half)
    assert 0.925 <= covered <= 1, covered
    assert covered > naive - 0.001


def test_with_many_images_it_is_the_bootstraps():
    change = np.random.default_rng(0).choice([-1, 0, 1], 2000, p=[0.2, 0.7, 0.1])
    ours, theirs = (f([Changes("imagenet_r", change)]) for f in (small_sample_interval, dataset_change_interval))
    assert ours.value == theirs.value
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.15)


def test_pictures_of_one_photograph_are_one_image():
    """15 corruptions that all change alike say no more than one of them."""
    change, originals = np.array([1, 0, 0, -1, 0, 1]), np.arange(6)
    cells = [Changes("imagenet_c", change, originals, "imagenet_val", f"fog/{k}") for k in range(15)]
    alone, many = small_sample_interval(cells[:1]), small_sample_interval(cells)
    assert [many.value, many.low, many.high] == pytest.approx([alone.value, alone.low, alone.high])
