"""Paired test of the difference in mRI between two methods, and Holm's correction for many such tests.

The statistic is the difference of two mRI over the same sources and seeds. Images are the random sample, as in
`rib.metrics.bootstrap`: a photograph is sampled together with every variant of it, here under both methods as well. The
difference is the same statistic with negative weights for the second method, so its standard error comes from the same
patterns, by the infinitesimal jackknife. For one target and one source this is McNemar's test on discordant pairs,
except that McNemar takes the variance under the null hypothesis.

The test does not cover retraining. Seeds are taken as fixed, so "differs" means: these weights would differ on a new
sample of images. The interval over seeds (`rib.metrics.intervals`) covers other weights. The normal approximation needs
about ten images on which the two methods disagree; with fewer, p is too small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from rib.metrics.bootstrap import Changes, Patterns, weighted_by_family
from rib.metrics.intervals import two_sided


@dataclass(frozen=True)
class PairedTest:
    """Result of a paired test of two methods' mRI on the same images.

    Attributes:
        difference: First minus second, percentage points.
        error: Standard error of the difference over images, percentage points.
        p: Two-sided p-value of the hypothesis "no difference".
    """

    difference: float
    error: float
    p: float


def mean_robustness_difference(
    first: Mapping[Any, Sequence[Changes]], second: Mapping[Any, Sequence[Changes]]
) -> PairedTest:
    """Test the difference in mRI between two methods by a paired z-test over images.

    Args:
        first: Changes of the targets by source, or by source and seed (as for `mean_robustness_interval`).
        second: The same for another method, with the same keys and targets.

    Returns:
        First minus second, with its standard error and p-value.

    Raises:
        ValueError: If sources, targets or numbers of images differ between the two.
    """
    if _set_sizes(first) != _set_sizes(second):
        raise ValueError("expected two methods scored on the same images after the same sources and seeds")
    families = weighted_by_family(first)
    # Joined by family, so that a photograph varies together under both methods.
    for family, members in weighted_by_family(second).items():
        families[family] += [(-weight, changes) for weight, changes in members]
    patterns = [Patterns.of(members) for _, members in sorted(families.items())]
    difference = sum(family.mean for family in patterns)
    error = sqrt(sum(family.variance for family in patterns))
    return PairedTest(100 * difference, 100 * error, two_sided(difference, error))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for multiple comparisons, controlling the family-wise error rate.

    Holm 1979, "A simple sequentially rejective multiple test procedure": the k-th smallest of m p-values is multiplied
    by m - k + 1, and is never smaller than the adjusted one before it.

    Args:
        p_values: One per comparison.

    Returns:
        Adjusted p-values in the order given. Rejecting those below 0.05 keeps the chance of any false rejection at 5 %.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _set_sizes(changes: Mapping[Any, Sequence[Changes]]) -> dict[Any, dict[str, int]]:
    """Return the number of images of each scored set, by source, to check that two methods used the same."""
    return {source: {c.unit: len(c.change) for c in targets} for source, targets in changes.items()}
