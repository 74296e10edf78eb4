"""Is one method's mRI another than plain fine-tuning's? A paired test in closed form, and Holm over a table of them.

The statistic is the difference of two mRI over the same sources and seeds. What varies is the choice of images, as in
`rib.metrics.bootstrap`: an original is drawn with everything that shows it, now under both methods as well. A
difference is the same statistic with the second method's weights negative, so its standard error comes from the same
patterns, by the infinitesimal jackknife. For one target under one source it is the test on discordant pairs that is
McNemar's but for the variance, which McNemar takes under the null hypothesis.

What it does not cover: training again. Seeds enter as the fixed set that they are, so that "differs" is about these
weights on other images; the interval over seeds (`rib.metrics.intervals`) is about other weights. The normal
approximation wants about ten images on which the two methods disagree; with fewer, p is too small.
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
    """One mRI against another on the same images.

    Attributes:
        difference: First minus second, percentage points.
        error: Standard error of that over images, percentage points.
        p: Two-sided, of "no difference".
    """

    difference: float
    error: float
    p: float


def mean_robustness_difference(
    first: Mapping[Any, Sequence[Changes]], second: Mapping[Any, Sequence[Changes]]
) -> PairedTest:
    """Compare two mRI by a paired z-test over images.

    Args:
        first: The targets' changes by source, or by source and seed (as for `mean_robustness_interval`).
        second: The same sources and targets under another method.

    Raises:
        ValueError: If the two are not about the same sources, targets and images.
    """
    if _sets(first) != _sets(second):
        raise ValueError("expected two methods scored on the same images after the same sources and seeds")
    families = weighted_by_family(first)
    for family, members in weighted_by_family(second).items():
        families[family] += [(-weight, changes) for weight, changes in members]
    patterns = [Patterns.of(members) for _, members in sorted(families.items())]
    difference = sum(family.mean for family in patterns)
    error = sqrt(sum(family.variance for family in patterns))
    return PairedTest(100 * difference, 100 * error, two_sided(difference, error))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for the number of comparisons, in the order given; below 0.05 stands at 5 % for all together.

    Holm 1979, "A simple sequentially rejective multiple test procedure": the k-th smallest of m times m - k + 1, never
    below the one before it.

    Args:
        p_values: One a comparison.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def _sets(changes: Mapping[Any, Sequence[Changes]]) -> dict[Any, dict[str, int]]:
    """How many images each set has, by source."""
    return {source: {c.unit: len(c.change) for c in targets} for source, targets in changes.items()}
