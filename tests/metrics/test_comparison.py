"""Paired tests of two methods' mRI: closed forms, a plain bootstrap, and the rate of false positives."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from scipy.stats import norm

from rib.metrics import Changes, holm, mean_robustness_difference, mean_robustness_interval
from tests.metrics.simulated import World

SUITE = ("imagenet_a", "imagenet_r", "imagenet_cartoon", "imagenet_drawing", "imagenet_c")
# Two methods, each after two sources that are no targets, so that all four have the same ones.
WORLD = World(("1", "2", "3", "4"), SUITE, num_images=150, correlation=0.5, present=0.7)


def two_methods(world: World, generator: np.random.Generator) -> tuple[dict[str, list[Changes]], ...]:
    drawn = world.draw(generator)
    return {"s": drawn["1"], "t": drawn["2"]}, {"s": drawn["3"], "t": drawn["4"]}


def statistic(changes: dict[str, list[Changes]], counts: dict[str, np.ndarray]) -> np.ndarray:
    """Mean RI over sources, in points, when each original is there so many times; counts are (R, N) by family."""
    improvements = []
    for targets in changes.values():
        means: dict[str, dict[str, list[np.ndarray]]] = {}
        for c in targets:
            weights = counts[c.family][:, c.originals]
            mean = (weights * c.change).sum(axis=1) / weights.sum(axis=1)
            means.setdefault(c.dataset, {}).setdefault(c.cell.partition("/")[0], []).append(mean)
        improvements.append(np.mean([np.mean([np.mean(v, 0) for v in g.values()], 0) for g in means.values()], 0))
    return 100 * np.mean(improvements, axis=0)


@pytest.mark.parametrize("present", [1.0, 0.7])
def test_the_error_is_that_of_20_000_paired_resamples(present: float) -> None:
    """Within 3 %: 20,000 draws leave 0.5 %, what is beyond linear of a ratio and the n - 1 about 1 %."""
    first, second = two_methods(replace(WORLD, present=present), np.random.default_rng(3))
    generator, families = np.random.default_rng(4), ("imagenet_a", "imagenet_r", "imagenet_val")
    once = {family: np.ones((1, 150)) for family in families}
    differences = []
    for _ in range(20):
        counts = {f: generator.multinomial(150, np.full(150, 1 / 150), 1000) for f in families}
        differences.append(statistic(first, counts) - statistic(second, counts))
    found = mean_robustness_difference(first, second)
    assert found.difference == pytest.approx((statistic(first, once) - statistic(second, once)).item())
    assert found.error == pytest.approx(np.std(differences) * sqrt(150 / 149), rel=0.03)
    assert found.p == pytest.approx(2 * norm.sf(abs(found.difference) / found.error))


def test_one_target_after_one_source_is_the_test_on_discordant_pairs() -> None:
    """McNemar's statistic divides by the same sum, without the square of the difference that it takes to be 0."""
    n, gained, lost = 400, 31, 17
    before = np.zeros(n, dtype=np.int8)
    after = np.repeat([1, -1, 0], [gained, lost, n - gained - lost])
    found = mean_robustness_difference({"s": [Changes("a", after)]}, {"s": [Changes("a", before)]})
    error = sqrt((gained + lost - (gained - lost) ** 2 / n) / (n * (n - 1)))
    assert (found.difference, found.error) == pytest.approx((100 * (gained - lost) / n, 100 * error))
    mcnemar = (gained - lost) / sqrt(gained + lost)
    assert found.difference / found.error == pytest.approx(mcnemar, rel=0.03)


@pytest.mark.parametrize("present", [1.0, 0.7])
def test_an_intervals_p_is_that_of_a_comparison_with_nothing_done(present: float) -> None:
    first, _ = two_methods(replace(WORLD, present=present), np.random.default_rng(3))
    nothing = {s: [replace(c, change=np.zeros_like(c.change)) for c in targets] for s, targets in first.items()}
    compared, interval = mean_robustness_difference(first, nothing), mean_robustness_interval(first, draws=4000)
    found = (interval.value, interval.error, interval.p)
    assert found == pytest.approx((compared.difference, compared.error, compared.p))
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * interval.error, rel=0.06)
    assert mean_robustness_interval(nothing).p == 1


def test_what_two_methods_have_in_common_does_not_count() -> None:
    """Both lose the same half of the images; the paired error is far below that of either."""
    common = np.repeat([-1, 0], 200).astype(np.int8)
    other = common.copy()
    other[-4:] = 1
    one, two = {"s": [Changes("a", common)]}, {"s": [Changes("a", other)]}
    found, alone = mean_robustness_difference(two, one), mean_robustness_interval(one)
    assert found.difference == pytest.approx(1.0)
    assert found.error < 0.3 * (alone.high - alone.low) / 3.92


def test_the_same_predictions_are_no_difference() -> None:
    drawn, _ = two_methods(WORLD, np.random.default_rng(0))
    found = mean_robustness_difference(drawn, drawn)
    assert (found.difference, found.error, found.p) == (0, 0, 1)


def test_a_single_image_tells_nothing() -> None:
    one, none = (Changes("a", np.array([change])) for change in (1, 0))
    assert mean_robustness_difference({"s": [one]}, {"s": [none]}).p == 1


def test_other_images_or_sources_are_refused() -> None:
    some, fewer = (Changes("a", np.zeros(n, dtype=np.int8)) for n in (9, 8))
    for other in ({"s": [fewer]}, {"t": [some]}, {"s": [Changes("b", some.change)]}):
        with pytest.raises(ValueError, match="two methods scored on the same images after the same sources"):
            mean_robustness_difference({"s": [some]}, other)


def rejected(cases: int) -> float:
    """Return how often two methods that are exchangeable, photograph by photograph, differ at 5 %."""
    generator, rejections = np.random.default_rng(0), 0
    for _ in range(cases):
        first, second = two_methods(WORLD, generator)
        coins = {f: generator.random(150) < 0.5 for f in ("imagenet_a", "imagenet_r", "imagenet_val")}
        swapped: tuple[dict[str, list[Changes]], ...] = ({}, {})
        for source in first:
            for way, mine in enumerate(swapped):
                pairs = zip(first[source], second[source], strict=True)
                mine[source] = [
                    replace(a, change=np.where(coins[a.family][a.originals] ^ bool(way), a.change, b.change))
                    for a, b in pairs
                ]
        rejections += mean_robustness_difference(*swapped).p < 0.05
    return rejections / cases


@pytest.mark.slow
def test_calibration_quickly() -> None:
    """5 % of 300 cases are 15, with a standard deviation of 3.8."""
    assert 0.015 < rejected(300) < 0.09


@pytest.mark.slow
def test_calibration() -> None:
    """Over 4,000 cases the Monte Carlo error is 0.35 %."""
    assert 0.04 < rejected(4000) < 0.06


def test_holm_by_hand() -> None:
    # 4 x 0.005, 3 x 0.01, 2 x 0.03, then 1 x 0.04 which may not fall below 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
