"""CKA against formulas written out another way: dense Grams in float64, Song's traces, plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rib.metrics.cka import (
    MinibatchCKA,
    biased_hsic,
    debiased_cka,
    gram,
    group_jackknife,
    is_constant,
    linear_cka,
    ratio_jackknife,
    unbiased_hsic,
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layers(count: int, images: int, seed: int) -> list[torch.Tensor]:
    """Related features of several widths, float32, far from zero as a network's often are."""
    shared = normal(images, 6, seed=99)
    widths = [5 + 3 * i for i in range(count)]
    mixed = [
        shared @ normal(6, w, seed=seed + i) + 0.5 * normal(images, w, seed=seed + 50 + i) for i, w in enumerate(widths)
    ]
    return [x + 20.0 for x in mixed]


def dense_cka(x: torch.Tensor, y: torch.Tensor) -> float:
    """Kornblith et al. 2019, eq. 3 and 4, as written: tr(K H L H), in float64."""
    x, y = x.double().numpy(), y.double().numpy()
    h = np.eye(len(x)) - np.ones((len(x), len(x))) / len(x)
    k, l = x @ x.T, y @ y.T  # noqa: E741

    def hsic(a, b):
        return np.trace(a @ h @ b @ h)

    return hsic(k, l) / np.sqrt(hsic(k, k) * hsic(l, l))


def song_hsic(x: torch.Tensor, y: torch.Tensor) -> float:
    """Song et al. 2012, eq. 5, as written: three traces of Grams without their diagonals."""
    k, l = (z.double().numpy() @ z.double().numpy().T for z in (x, y))  # noqa: E741
    np.fill_diagonal(k, 0)
    np.fill_diagonal(l, 0)
    n, ones = len(k), np.ones(len(k))
    middle = (ones @ k @ ones) * (ones @ l @ ones) / ((n - 1) * (n - 2))
    return (np.trace(k @ l) + middle - 2 / (n - 2) * (ones @ k @ l @ ones)) / (n * (n - 3))


def stacked(features: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([gram(x).matrix for x in features])


def test_exact_equals_the_dense_formula_for_all_pairs():
    one, other = layers(3, 50, seed=1), layers(4, 50, seed=7)
    found = biased_hsic(one, other).cka()
    expected = [[dense_cka(x, y) for y in other] for x in one]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_minibatch_equals_songs_formula_summed_over_batches():
    one, other = layers(3, 60, seed=1), layers(4, 60, seed=7)
    batches = torch.arange(60).tensor_split(7)
    measure = MinibatchCKA([(0, 1), (2, 3)])
    for rows in batches:
        measure.update(stacked([x[rows] for x in one]), stacked([y[rows] for y in other]))

    def total(x, y):
        return sum(song_hsic(x[rows], y[rows]) for rows in batches)

    expected = [[total(x, y) / np.sqrt(total(x, x) * total(y, y)) for y in other] for x in one]
    np.testing.assert_allclose(measure.matrix(), expected, atol=1e-9)
    values = [estimate.value for estimate in measure.intervals()]
    assert values == pytest.approx([expected[0][1], expected[2][3]], abs=1e-9)


@pytest.mark.parametrize("cka", [linear_cka, debiased_cka])
def test_what_it_is_invariant_to_and_what_not(cka):
    x, y = layers(2, 80, seed=3)
    rotation = torch.linalg.qr(normal(x.shape[1], x.shape[1], seed=5).double()).Q
    assert cka(x, x) == pytest.approx(1, abs=1e-12)
    assert cka(x.double() @ rotation * 37.0 + 5, y) == pytest.approx(cka(x, y), abs=1e-9)
    stretched = x.double() @ torch.diag(torch.logspace(0, 2, x.shape[1], dtype=torch.float64))
    assert abs(cka(stretched, y) - cka(x, y)) > 0.05


def test_independent_features_are_alike_only_for_the_biased_estimator():
    x, y = normal(100, 400, seed=1), normal(100, 400, seed=2)
    biased, debiased = linear_cka(x, y), debiased_cka(x, y)
    print(f"independent features, 100 images of 400 numbers: biased {biased:.3f}, debiased {debiased:+.4f}")
    assert biased > 0.7
    assert abs(debiased) < 0.02


def test_small_batches_have_no_bias_either():
    x, y = normal(4000, 30, seed=1), normal(4000, 30, seed=2)
    batches = [
        unbiased_hsic(gram(x[i : i + 5]).matrix[None], gram(y[i : i + 5]).matrix[None]) for i in range(0, 4000, 5)
    ]
    cross = torch.cat([b.cross.flatten() for b in batches])
    assert abs(float(cross.mean())) < 4 * float(cross.std()) / 800**0.5


def test_fewer_than_four_images_are_an_error_not_a_nan():
    with pytest.raises(ValueError, match="at least 4 images in a batch, got 3"):
        debiased_cka(normal(3, 5), normal(3, 5))


def test_constant_features_are_told_from_small_ones():
    constant = torch.full((20, 8), 3.7)
    faint = constant + 1e-3 * normal(20, 8)
    for x, expected in ((constant, True), (torch.zeros(20, 8), True), (faint, False)):
        found = gram(x)
        assert bool(is_constant(found.spread, found.size)) is expected
    assert linear_cka(constant.double() * 0, faint) == 0


def test_the_interval_is_a_jackknife_over_batches():
    cross, one, other = (torch.tensor(v, dtype=torch.float64) for v in ([3.0, 2, 4], [5.0, 4, 6], [4.0, 4, 5]))
    found = ratio_jackknife(cross, one, other)
    without = []
    for i in range(3):
        kept = [j for j in range(3) if j != i]
        without.append(float(cross[kept].sum() / (one[kept].sum() * other[kept].sum()).sqrt()))
    error = np.sqrt(2 / 3 * np.sum((np.array(without) - np.mean(without)) ** 2))
    assert found.value == pytest.approx(9 / np.sqrt(15 * 13))
    assert found.high - found.value == pytest.approx(4.3027 * error, rel=1e-4)  # Student's t, two degrees of freedom
    assert ratio_jackknife(cross[:1], one[:1], other[:1]).low is None


@pytest.mark.slow
def test_nine_in_ten_intervals_or_more_hold_the_truth():
    def draw(images: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = normal(images, 10, seed=seed)
        return x, x @ normal(10, 10, seed=1) + 2 * normal(images, 10, seed=seed + 1)

    truth = debiased_cka(*draw(4000, seed=10**6))
    inside = 0
    for trial in range(200):
        x, y = draw(240, seed=2 * trial + 2)
        measure = MinibatchCKA([(0, 0)])
        for rows in torch.arange(240).tensor_split(8):
            measure.update(stacked([x[rows]]), stacked([y[rows]]))
        (found,) = measure.intervals()
        inside += found.low <= truth <= found.high
    print(f"{inside / 2:.0f} % of intervals of 8 batches of 30 hold the truth, {truth:.3f}")
    assert inside >= 180


def test_groups_of_images_are_left_out_for_the_exact_estimator():
    x, y = layers(2, 40, seed=3)
    found = group_jackknife(x, y, groups=4)
    without = [dense_cka(*(torch.cat([z[:i], z[i + 10 :]]) for z in (x, y))) for i in range(0, 40, 10)]
    error = np.sqrt(3 / 4 * np.sum((np.array(without) - np.mean(without)) ** 2))
    assert found.value - found.low == pytest.approx(3.1824 * error, rel=1e-4)
