"""Linear CKA: how alike two representations of the same images are, whatever their rotation and scale.

Kornblith et al. 2019, "Similarity of Neural Network Representations Revisited", arXiv 1905.00414, eq. 4:
CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with K = X X^T. Two estimators of HSIC:

- *exact*: centred Gram matrices of all images (HSIC_0). It needs every feature at once, and is biased upwards where
  there are not many more images than features: independent noise gets near 1.
- *minibatch*: the unbiased HSIC_1 (Song et al. 2012, JMLR 13, eq. 5), summed over disjoint batches (Nguyen et al. 2021,
  arXiv 2010.15327, eq. 2 and 3). Memory does not grow with the number of images. HSIC_1 is written as the inner product
  of U-centred Gram matrices (Székely & Rizzo 2014, "Partial distance correlation", eq. 2.4 and 2.5), so that all pairs
  of layers are one matrix product of stacked flattened Grams: N + M Grams for N x M pairs.

All arithmetic is in float64, from features centred in float64. Intervals are a jackknife that leaves out one batch of
images at a time; no image is ever drawn twice, since duplicates push debiased CKA far up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import NamedTuple

import torch
from scipy.special import stdtrit
from torch import Tensor

LEAST = 4
"""Images below which HSIC_1 is not defined."""

COLUMNS = 16_384
"""Features that are made float64 at once."""

ROUNDING = 1e-6
"""Spread over size of features in float32 below which they are constant; their rounding is 1e-7."""

ROWS_BYTES = 256 * 2**20
"""Memory for rows of all centred Gram matrices at once in the exact estimator."""


class Gram(NamedTuple):
    """Inner products of one batch's features.

    Attributes:
        matrix: Of centred features, (n, n), float64.
        spread: Sum of squares of centred features, a scalar.
        size: Sum of squares of features as they were, a scalar.
    """

    matrix: Tensor
    spread: Tensor
    size: Tensor


def gram(features: Tensor) -> Gram:
    """The Gram matrix of n images' features (n, D), centred over the images, in float64."""
    matrix = torch.zeros(len(features), len(features), dtype=torch.float64, device=features.device)
    size = torch.zeros((), dtype=torch.float64, device=features.device)
    for part in torch.split(features, COLUMNS, dim=1):
        wide = part.double()
        size += wide.square().sum()
        centred = wide - wide.mean(dim=0)
        matrix += centred @ centred.T
    return Gram(matrix, matrix.trace(), size)


def is_constant(spread: Tensor, size: Tensor) -> Tensor:
    """Whether features are the same for every image, as far as float32 can tell; elementwise."""
    return spread <= ROUNDING**2 * size


def u_centred(grams: Tensor) -> Tensor:
    """U-centred Gram matrices, which have a zero diagonal and rows that sum to zero (Székely & Rizzo 2014, eq. 2.4).

    Args:
        grams: Symmetric, shape (..., n, n), n at least 4.

    Raises:
        ValueError: For fewer than four images.
    """
    n = grams.shape[-1]
    if n < LEAST:
        raise ValueError(f"expected at least {LEAST} images in a batch, got {n}")
    hollow = grams - torch.diag_embed(grams.diagonal(dim1=-2, dim2=-1))
    rows = hollow.sum(dim=-1) / (n - 2)
    total = hollow.sum(dim=(-2, -1)) / ((n - 1) * (n - 2))
    centred = hollow - rows[..., :, None] - rows[..., None, :] + total[..., None, None]
    return centred - torch.diag_embed(centred.diagonal(dim1=-2, dim2=-1))


class HSIC(NamedTuple):
    """All that CKA of N x M pairs of layers is made of.

    Attributes:
        cross: HSIC of each layer of one model with each of the other, (N, M).
        one: Of each layer of one model with itself, (N,).
        other: Likewise, (M,).
    """

    cross: Tensor
    one: Tensor
    other: Tensor

    def __add__(self, more: HSIC) -> HSIC:  # type: ignore[override]
        return HSIC(self.cross + more.cross, self.one + more.one, self.other + more.other)

    def cka(self) -> Tensor:
        """Cross over the root of the selves, (N, M); 0 where a layer has no HSIC with itself."""
        scale = (self.one[:, None] * self.other[None, :]).clamp(min=0).sqrt()
        return torch.where(scale > 0, self.cross / scale.where(scale > 0, 1.0), 0.0).clamp(-1.0, 1.0)


def unbiased_hsic(one: Tensor, other: Tensor) -> HSIC:
    """HSIC_1 of every pair of layers on one batch (Song et al. 2012, eq. 5), by one product of stacked Grams.

    Args:
        one: Gram matrices of one model's N layers, (N, n, n).
        other: Of the other's M layers on the same images, (M, n, n).

    Raises:
        ValueError: For fewer than four images.
    """
    n = one.shape[-1]
    a, b = u_centred(one).flatten(1), u_centred(other).flatten(1)
    degrees = n * (n - 3)
    return HSIC(a @ b.T / degrees, a.square().sum(dim=1) / degrees, b.square().sum(dim=1) / degrees)


def biased_hsic(one: Sequence[Tensor], other: Sequence[Tensor]) -> HSIC:
    """HSIC_0 of every pair of layers, unscaled: inner products of centred Gram matrices of all images.

    Args:
        one: Features of one model's N layers, each (n, D) with a D of its own.
        other: Of the other's M layers on the same images.
    """
    features = [part - part.mean(dim=0) for part in (x.double() for x in (*one, *other))]
    n, first = len(features[0]), len(one)
    zeros = features[0].new_zeros
    found = HSIC(zeros(first, len(other)), zeros(first), zeros(len(other)))
    for rows in torch.split(torch.arange(n), max(1, ROWS_BYTES // (8 * n * len(features)))):
        stacked = torch.stack([(x[rows] @ x.T).flatten() for x in features])
        a, b = stacked[:first], stacked[first:]
        found += HSIC(a @ b.T, a.square().sum(dim=1), b.square().sum(dim=1))
    return found


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Exact linear CKA of two representations of the same n images, (n, D) and (n, E); 0 for a constant one."""
    return float(biased_hsic([x], [y]).cka())


def debiased_cka(x: Tensor, y: Tensor) -> float:
    """Debiased linear CKA of two representations of the same n images as one batch, (n, D) and (n, E); may be below 0.

    Raises:
        ValueError: For fewer than four images.
    """
    return float(unbiased_hsic(gram(x).matrix[None], gram(y).matrix[None]).cka())


class Estimate(NamedTuple):
    """A value and where it may lie, without unit; the ends are None where nothing can be said of them."""

    value: float
    low: float | None
    high: float | None


def ratio_jackknife(cross: Tensor, one: Tensor, other: Tensor, level: float = 0.95) -> Estimate:
    """CKA of k batches together, with the interval of a jackknife that leaves out one batch at a time.

    Quenouille-Tukey: the variance is (k - 1)/k times the sum of squares of the k leave-one-out values about their mean;
    Student's t with k - 1 degrees of freedom. CKA lies in -1..1, and so do the ends.

    Args:
        cross: HSIC of the two layers on each batch, (k,).
        one: Of the first with itself, (k,).
        other: Of the second with itself, (k,).
        level: Nominal coverage, 0 to 1.
    """
    value = float(HSIC(cross.sum()[None, None], one.sum()[None], other.sum()[None]).cka())
    left_out = (one.sum() - one) * (other.sum() - other)
    if len(cross) < 2 or not bool((left_out > 0).all()):
        return Estimate(value, None, None)
    return _interval(value, (cross.sum() - cross) / left_out.sqrt(), level)


def _interval(value: float, without: Tensor, level: float) -> Estimate:
    k = len(without)
    variance = (k - 1) / k * float((without - without.mean()).square().sum())
    half = float(stdtrit(k - 1, (1 + level) / 2)) * sqrt(variance)
    return Estimate(value, max(-1.0, value - half), min(1.0, value + half))


def group_jackknife(
    x: Tensor,
    y: Tensor,
    measure: Callable[[Tensor, Tensor], float] = linear_cka,
    groups: int = 10,
    level: float = 0.95,
) -> Estimate:
    """CKA of all images, with the interval of a jackknife that leaves out one of some disjoint groups at a time.

    Args:
        x: Features (n, D), in an order that means nothing.
        y: Of the same images, (n, E).
        measure: `linear_cka` or `debiased_cka`.
        groups: At most how many.
        level: Nominal coverage, 0 to 1.
    """
    value, parts = measure(x, y), torch.arange(len(x)).tensor_split(min(groups, len(x)))
    if len(x) - len(parts[0]) < LEAST:
        return Estimate(value, None, None)
    keep = torch.ones(len(parts), len(x), dtype=torch.bool)
    for group, places in enumerate(parts):
        keep[group, places] = False
    return _interval(value, torch.tensor([measure(x[kept], y[kept]) for kept in keep], dtype=torch.float64), level)


@dataclass
class MinibatchCKA:
    """Debiased CKA of all pairs of layers over batches that come one after another.

    What is kept does not grow with the images but for three numbers a batch and pair that gets an interval.

    Attributes:
        pairs: (layer of one, layer of the other), for which `intervals` are wanted.
        total: HSIC of all pairs, summed over batches.
    """

    pairs: Sequence[tuple[int, int]]
    total: HSIC | None = None
    _batches: list[Tensor] = field(default_factory=list)

    def update(self, one: Tensor, other: Tensor) -> None:
        """Take in a batch of n images: Gram matrices of one model's layers (N, n, n) and of the other's (M, n, n).

        Raises:
            ValueError: For fewer than four images.
        """
        found = unbiased_hsic(one, other)
        self.total = found if self.total is None else self.total + found
        i, j = torch.tensor(self.pairs, dtype=torch.long).reshape(-1, 2).to(one.device).T
        self._batches.append(torch.stack([found.cross[i, j], found.one[i], found.other[j]]).cpu())

    def matrix(self) -> Tensor:
        """CKA of all pairs, (N, M), 0 where a layer is constant."""
        assert self.total is not None, "no batch was taken in"
        return self.total.cka().cpu()

    def intervals(self, level: float = 0.95) -> list[Estimate]:
        """CKA of each of ``pairs`` with the interval of a jackknife over batches."""
        cross, one, other = torch.stack(self._batches, dim=1)
        return [ratio_jackknife(*of_pair, level=level) for of_pair in zip(cross.T, one.T, other.T, strict=True)]
