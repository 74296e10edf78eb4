"""A linear probe: multinomial logistic regression on frozen features, its L2 penalty chosen on held-out images.

For N features f (D,) and weights W (C, D), b (C,) it minimises, in float64,

    mean over images of -log softmax(W f + b)[label]  +  l2 / 2 ||W||^2     (nats; no penalty on b),

which is scikit-learn's ``LogisticRegression(C=1 / (N l2))``. L-BFGS runs on features that are centred and divided by
one number, with W and b expressed in them: the minimum is the same, and it is found in a tenth of the steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

GAP = 1e-9
"""Largest distance of the objective from its minimum at which a fit ends, nats."""

STEPS = 3000
"""Largest number of L-BFGS steps of a fit."""

ENTRIES = 2**24
"""Numbers of a chunk of features or logits in float64: 128 MiB."""

KEPT = 2**26
"""Numbers of features up to which their float64 copy is kept (512 MiB) rather than made again in every step."""


@dataclass(frozen=True)
class Probe:
    """A fitted linear probe.

    Attributes:
        weight: W, float64 (C, D), on the CPU.
        bias: b, float64 (C,).
        l2: The chosen strength of the penalty.
        held_out: Accuracy on the held-out images, as a fraction, by strength; empty if nothing was held out.
        steps: Number of L-BFGS steps of the final fit.
        converged: False if the final fit ended at `STEPS`, before its objective was within `GAP` of the minimum.
    """

    weight: Tensor
    bias: Tensor
    l2: float
    held_out: Mapping[float, float]
    steps: int
    converged: bool


def fit_probe(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    l2: Sequence[float],
    seed: int = 0,
    holdout: float = 0.1,
    advance: Callable[[str], object] = lambda note: None,
) -> Probe:
    """Fit a linear probe, with the strength of its penalty that is most accurate on held-out images.

    The strengths are tried on all images but those held out, and the best is fitted again to all; of equally accurate
    ones the strongest is taken. With a single strength nothing has to be chosen, and nothing is held out. If every
    class has a single image, nothing can be, and the middle one of the strengths is taken.

    Args:
        features: Shape (N, D), float32; the regression runs on their device.
        labels: Classes 0..C-1, shape (N,); every class has an image.
        num_classes: C.
        l2: Strengths to choose from, above zero.
        seed: Seed of the choice of held-out images.
        holdout: Fraction of each class that is held out, rounded; if that is none at all, one image of each class with
            two or more.
        advance: Called after each fit, with a note on it.
    """
    grid = sorted(set(l2), reverse=True)
    held_out: dict[float, float] = {}
    solution = None
    labels = labels.to(features.device)
    best = grid[(len(grid) - 1) // 2]
    held = held_out_images(labels.cpu(), holdout, seed).to(features.device)
    if len(grid) > 1 and held.any():
        rows, rest = (~held).nonzero()[:, 0], held.nonzero()[:, 0]
        regression = _Regression(features, labels, num_classes, rows)
        solutions = {}
        for strength in grid:  # from strong to weak, each from the one before
            solution = solutions[strength] = regression.minimise(strength, solution)
            held_out[strength] = _accuracy(features, labels, rest, solution)
            advance(f"l2 {strength:g}: {100 * held_out[strength]:.2f} % of the images held out")
        best = max(grid, key=lambda strength: (held_out[strength], strength))
        solution = solutions[best]
    fitted = _Regression(features, labels, num_classes, None).minimise(best, solution)
    advance("")
    return Probe(fitted.weight.cpu(), fitted.bias.cpu(), best, held_out, fitted.steps, fitted.converged)


def held_out_images(labels: Tensor, holdout: float, seed: int) -> Tensor:
    """Return which images are held out: of each class a fraction, rounded, and never all; bool (N,).

    If that is none at all, it is one of each class with two or more.

    Args:
        labels: Classes, shape (N,), on the CPU.
        holdout: The fraction.
        seed: Seed of the choice.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    by_class = order[labels[order].argsort(stable=True)]
    size = torch.bincount(labels)
    first = size.cumsum(0) - size
    rank = torch.empty(len(labels), dtype=torch.long)
    rank[by_class] = torch.arange(len(labels)) - first[labels[by_class]]
    wanted = (holdout * size.double()).round().long().minimum(size - 1)
    if not wanted.clamp(min=0).any():
        wanted = (size > 1).long()
    return rank < wanted[labels]


@dataclass(frozen=True)
class _Solution:
    """Weights in terms of the features as they are, on their device, and how the fit ended."""

    weight: Tensor
    bias: Tensor
    steps: int
    converged: bool


class _Regression:
    """The objective on some of the images, as a function of the weights of centred and scaled features."""

    def __init__(self, features: Tensor, labels: Tensor, num_classes: int, rows: Tensor | None) -> None:
        self.features = features
        self.labels = labels if rows is None else labels[rows]
        self.rows = rows
        self.num_classes = num_classes
        self.count, self.width = len(self.labels), features.shape[1]
        self._size = max(1, ENTRIES // max(self.width, num_classes))
        self._kept: list[Tensor] | None = None
        if self.count * self.width <= KEPT:
            self._kept = [chunk for _, chunk in self._chunks()]
        total = torch.zeros(self.width, dtype=torch.float64, device=features.device)
        for _, chunk in self._chunks():
            total += chunk.sum(dim=0)
        self.mean = total / self.count
        spread = sum(float((chunk - self.mean).square().sum()) for _, chunk in self._chunks())
        self.scale = math.sqrt(spread / (self.count * self.width)) or 1.0

    def _chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield the features in float64, chunk by chunk, with their places among the images."""
        for number, begin in enumerate(range(0, self.count, self._size)):
            place = slice(begin, min(begin + self._size, self.count))
            if self._kept is not None:
                yield place, self._kept[number]
            else:
                yield place, (self.features[place] if self.rows is None else self.features[self.rows[place]]).double()

    def minimise(self, l2: float, begin: _Solution | None) -> _Solution:
        """Return the weights at the minimum.

        Args:
            l2: Strength of the penalty.
            begin: Where to begin; None: at zero.
        """
        from scipy.optimize import minimize

        last: dict[str, float] = {}

        def objective(theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            value, gradient = self._value_and_gradient(torch.from_numpy(theta).to(self.features.device), l2)
            last["gradient"] = float(gradient.norm())
            return value, gradient.cpu().numpy()

        # A function that curves at least as much as the penalty is within |gradient|^2 / (2 curvature) of its minimum.
        enough = math.sqrt(2 * GAP * l2) / self.scale
        steps = 0

        def callback(_theta: NDArray[np.float64]) -> None:
            nonlocal steps
            steps += 1
            if last["gradient"] <= enough:
                raise StopIteration

        found: Any = minimize(
            objective,
            self._inside(begin),
            jac=True,
            method="L-BFGS-B",
            callback=callback,
            options={"maxiter": STEPS, "maxfun": 2 * STEPS, "maxcor": 20, "ftol": 0.0, "gtol": 0.0, "maxls": 40},
        )
        weight, bias = self._outside(torch.from_numpy(found.x).to(self.features.device))
        return _Solution(weight, bias, steps, steps < STEPS)

    def _value_and_gradient(self, theta: Tensor, l2: float) -> tuple[float, Tensor]:
        weight, bias = self._outside(theta)
        value = l2 / 2 * float(weight.square().sum())
        of_weight, of_bias = l2 * weight, torch.zeros_like(bias)
        for place, chunk in self._chunks():
            log_probs = (chunk @ weight.T + bias).log_softmax(dim=1)
            labels = self.labels[place, None]
            value -= float(log_probs.gather(1, labels).sum()) / self.count
            residual = log_probs.exp_().scatter_add_(1, labels, -torch.ones_like(log_probs[:, :1])).div_(self.count)
            of_weight += residual.T @ chunk
            of_bias += residual.sum(dim=0)
        centred = (of_weight - of_bias[:, None] * self.mean) / self.scale
        return value, torch.cat([centred.flatten(), of_bias])

    def _outside(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return W and b of the features as they are, from those of centred and scaled features in one vector."""
        inner = theta[: -self.num_classes].view(self.num_classes, self.width)
        weight = inner / self.scale
        return weight, theta[-self.num_classes :] - weight @ self.mean

    def _inside(self, solution: _Solution | None) -> NDArray[np.float64]:
        if solution is None:
            return np.zeros(self.num_classes * (self.width + 1))
        bias = solution.bias + solution.weight @ self.mean
        return torch.cat([(solution.weight * self.scale).flatten(), bias]).cpu().numpy()


def _accuracy(features: Tensor, labels: Tensor, rows: Tensor, solution: _Solution) -> float:
    """Return the fraction of some images whose class has the largest logit."""
    right = 0
    size = max(1, ENTRIES // max(features.shape[1], len(solution.bias)))
    for begin in range(0, len(rows), size):
        chunk = rows[begin : begin + size]
        logits = features[chunk].double() @ solution.weight.T + solution.bias
        right += int((logits.argmax(dim=1) == labels[chunk]).sum())
    return right / len(rows)
