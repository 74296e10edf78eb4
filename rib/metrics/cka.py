"""Linear CKA: similarity of two representations of the same images, invariant to rotation and scale.

Kornblith et al. 2019, "Similarity of Neural Network Representations Revisited", arXiv 1905.00414, eq. 4:
CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with K = X X^T. Two estimators of HSIC
(the Hilbert-Schmidt independence criterion):

- *exact*: centred Gram matrices of all images (HSIC_0). It needs all features in memory, and is biased upwards unless
  there are many more images than features: independent noise gets near 1.
- *minibatch*: the unbiased HSIC_1 (Song et al. 2012, JMLR 13, eq. 5), summed over disjoint batches (Nguyen et al. 2021,
  arXiv 2010.15327, eq. 2 and 3). Memory does not grow with the number of images. HSIC_1 is written as the inner product
  of U-centred Gram matrices (Székely & Rizzo 2014, "Partial distance correlation", eq. 2.4 and 2.5), so that all pairs
  of layers are one matrix product of stacked flattened Grams: N + M Grams for N x M pairs.

All arithmetic is in float64, from features centred in float64. Intervals are a jackknife that leaves out one batch of
images at a time. A bootstrap would not do: it draws images twice, and duplicates push debiased CKA far up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import NamedTuple

import torch
from scipy.special import stdtrit
from torch import Tensor

MIN_IMAGES = 4
"""Fewest images in a batch for which HSIC_1 is defined."""

COLUMNS = 16_384
"""Feature columns that are converted to float64 at a time, to bound memory."""

ROUNDING = 1e-6
"""Relative spread of float32 features at or below which they count as constant; float32 rounding is 1e-7."""

ROWS_BYTES = 256 * 2**20
"""Memory for the rows of all centred Gram matrices that the exact estimator holds at a time."""


class Gram(NamedTuple):
    """Inner products of the features of one batch of n images.

    Attributes:
        matrix: Gram matrix of the centred features, shape (n, n), float64.
        spread: Sum of squares of the centred features, a scalar.
        size: Sum of squares of the features before centring, a scalar.
    """

    matrix: Tensor
    spread: Tensor
    size: Tensor


def gram(features: Tensor) -> Gram:
    """Compute the Gram matrix of the features of n images, shape (n, D), centred over the images, in float64."""
    matrix = torch.zeros(len(features), len(features), dtype=torch.float64, device=features.device)
    size = torch.zeros((), dtype=torch.float64, device=features.device)
    # With tokens=all, a layer of a ViT-B/16 has 151,296 or more features per image; this bounds the float64 copies.
    for columns in torch.split(features, COLUMNS, dim=1):
        wide = columns.double()
        size += wide.square().sum()
        centred = wide - wide.mean(dim=0)
        matrix += centred @ centred.T
    return Gram(matrix, matrix.trace(), size)


def is_constant(spread: Tensor, size: Tensor) -> Tensor:
    """Return True for each layer whose features are the same for all images, up to float32 rounding.

    Takes ``Gram.spread`` and ``Gram.size``.
    """
    return spread <= ROUNDING**2 * size


def u_centred(grams: Tensor) -> Tensor:
    """U-centre Gram matrices: the diagonal becomes 0 and rows sum to 0 (Székely & Rizzo 2014, eq. 2.4).

    Args:
        grams: Symmetric matrices, shape (..., n, n), n at least 4.

    Returns:
        The same shape.

    Raises:
        ValueError: For fewer than four images.
    """
    n = grams.shape[-1]
    if n < MIN_IMAGES:
        raise ValueError(f"expected at least {MIN_IMAGES} images in a batch, got {n}")
    hollow = grams - torch.diag_embed(grams.diagonal(dim1=-2, dim2=-1))
    rows = hollow.sum(dim=-1) / (n - 2)
    total = hollow.sum(dim=(-2, -1)) / ((n - 1) * (n - 2))
    centred = hollow - rows[..., :, None] - rows[..., None, :] + total[..., None, None]
    return centred - torch.diag_embed(centred.diagonal(dim1=-2, dim2=-1))


class HSIC(NamedTuple):
    """HSIC of all pairs of layers of two models (N x M), from which CKA follows; sums over batches with ``+``.

    Attributes:
        cross: HSIC of each layer of one model with each of the other, shape (N, M).
        one: HSIC of each layer of one model with itself, shape (N,).
        other: HSIC of each layer of the other model with itself, shape (M,).
    """

    cross: Tensor
    one: Tensor
    other: Tensor

    def __add__(self, more: HSIC) -> HSIC:  # type: ignore[override]
        return HSIC(self.cross + more.cross, self.one + more.one, self.other + more.other)

    def cka(self) -> Tensor:
        """Return the CKA of all pairs of layers, shape (N, M); 0 where a layer's HSIC with itself is not above 0."""
        # The unbiased HSIC of a layer with itself can come out slightly negative for noise.
        scale = (self.one[:, None] * self.other[None, :]).clamp(min=0).sqrt()
        return torch.where(scale > 0, self.cross / scale.where(scale > 0, 1.0), 0.0).clamp(-1.0, 1.0)


def unbiased_hsic(one: Tensor, other: Tensor) -> HSIC:
    """Compute the unbiased HSIC_1 of every pair of layers on one batch (Song et al. 2012, eq. 5).

    Args:
        one: Gram matrices of one model's N layers, shape (N, n, n).
        other: Gram matrices of the other model's M layers on the same images, shape (M, n, n).

    Raises:
        ValueError: For fewer than four images.
    """
    n = one.shape[-1]
    a, b = u_centred(one).flatten(1), u_centred(other).flatten(1)
    degrees = n * (n - 3)
    return HSIC(a @ b.T / degrees, a.square().sum(dim=1) / degrees, b.square().sum(dim=1) / degrees)


def biased_hsic(one: Sequence[Tensor], other: Sequence[Tensor]) -> HSIC:
    """Compute the biased HSIC_0 of every pair of layers, unscaled: inner products of centred Gram matrices.

    Args:
        one: Features of one model's N layers, each of shape (n, D) with its own D.
        other: Features of the other model's M layers on the same images.
    """
    features = [layer - layer.mean(dim=0) for layer in (x.double() for x in (*one, *other))]
    n, first = len(features[0]), len(one)
    zeros = features[0].new_zeros
    total = HSIC(zeros(first, len(other)), zeros(first), zeros(len(other)))
    # Block by block of rows: the Gram matrices of all layers at once would grow with the square of n.
    for rows in torch.split(torch.arange(n), max(1, ROWS_BYTES // (8 * n * len(features)))):
        stacked = torch.stack([(x[rows] @ x.T).flatten() for x in features])
        a, b = stacked[:first], stacked[first:]
        total += HSIC(a @ b.T, a.square().sum(dim=1), b.square().sum(dim=1))
    return total


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Compute the exact (biased) linear CKA of two representations of the same images. Kornblith et al. 2019, eq. 4.

    Args:
        x: Features, shape (n, D).
        y: Features of the same images, shape (n, E).

    Returns:
        CKA, 0 to 1; 0 if one of them is constant.
    """
    return float(biased_hsic([x], [y]).cka())


def debiased_cka(x: Tensor, y: Tensor) -> float:
    """Compute the debiased linear CKA of two representations of the same images, taken as one batch.

    Args:
        x: Features, shape (n, D).
        y: Features of the same images, shape (n, E).

    Returns:
        CKA, at most 1; may be below 0.

    Raises:
        ValueError: For fewer than four images.
    """
    return float(unbiased_hsic(gram(x).matrix[None], gram(y).matrix[None]).cka())


class Estimate(NamedTuple):
    """A CKA value with its confidence interval, whose ends are None if they cannot be estimated."""

    value: float
    low: float | None
    high: float | None


def ratio_jackknife(cross: Tensor, one: Tensor, other: Tensor, level: float = 0.95) -> Estimate:
    """Compute the CKA of two layers over k batches, with a confidence interval by leave-one-batch-out jackknife.

    Quenouille-Tukey jackknife: the variance is (k - 1)/k times the sum of squared deviations of the k leave-one-out
    values from their mean; the interval uses Student's t with k - 1 degrees of freedom. The ends are clipped to -1..1,
    the range of CKA.

    Args:
        cross: HSIC of the two layers on each batch, shape (k,).
        one: HSIC of the first layer with itself, shape (k,).
        other: HSIC of the second layer with itself, shape (k,).
        level: Nominal coverage, 0 to 1.

    Returns:
        CKA and its interval; without ends for one batch, or if CKA is not defined without one of the batches.
    """
    value = float(HSIC(cross.sum()[None, None], one.sum()[None], other.sum()[None]).cka())
    left_out = (one.sum() - one) * (other.sum() - other)
    # Unbiased estimates may be negative, and a negative product has no root.
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
    """Compute the CKA of two representations, with a confidence interval by leave-one-group-of-images-out jackknife.

    Args:
        x: Features, shape (n, D); the order of images must be random.
        y: Features of the same images, shape (n, E).
        measure: `linear_cka` or `debiased_cka`.
        groups: Largest number of disjoint groups.
        level: Nominal coverage, 0 to 1.

    Returns:
        CKA and its interval; without ends if fewer than four images remain without a group.
    """
    value, members = measure(x, y), torch.arange(len(x)).tensor_split(min(groups, len(x)))
    if len(x) - len(members[0]) < MIN_IMAGES:
        return Estimate(value, None, None)
    keep = torch.ones(len(members), len(x), dtype=torch.bool)
    for group, indices in enumerate(members):
        keep[group, indices] = False
    return _interval(value, torch.tensor([measure(x[kept], y[kept]) for kept in keep], dtype=torch.float64), level)


@dataclass
class MinibatchCKA:
    """Debiased CKA of all pairs of layers of two models, accumulated batch by batch.

    Nguyen et al. 2021, arXiv 2010.15327, eq. 2.

    Memory does not grow with the number of images, except for three numbers per batch and pair in ``pairs``.

    Attributes:
        pairs: Index pairs (layer of one model, layer of the other) for which `intervals` are computed.
        total: HSIC of all pairs, summed over batches; None before the first.
    """

    pairs: Sequence[tuple[int, int]]
    total: HSIC | None = None
    _batches: list[Tensor] = field(default_factory=list)

    def update(self, one: Tensor, other: Tensor) -> None:
        """Add the Gram matrices of a batch of n images.

        Args:
            one: Gram matrices of one model's N layers, shape (N, n, n).
            other: Gram matrices of the other model's M layers, shape (M, n, n).

        Raises:
            ValueError: For fewer than four images.
        """
        batch = unbiased_hsic(one, other)
        self.total = batch if self.total is None else self.total + batch
        i, j = torch.tensor(self.pairs, dtype=torch.long).reshape(-1, 2).to(one.device).T
        # The jackknife needs these three numbers of each batch; everything else is summed.
        self._batches.append(torch.stack([batch.cross[i, j], batch.one[i], batch.other[j]]).cpu())

    def matrix(self) -> Tensor:
        """Return the CKA of all pairs of layers, shape (N, M); 0 where a layer is constant."""
        assert self.total is not None, "update was never called"
        return self.total.cka().cpu()

    def intervals(self, level: float = 0.95) -> list[Estimate]:
        """Return the CKA of each pair of layers in ``pairs`` with its jackknife interval over batches."""
        cross, one, other = torch.stack(self._batches, dim=1)
        return [ratio_jackknife(*of_pair, level=level) for of_pair in zip(cross.T, one.T, other.T, strict=True)]
