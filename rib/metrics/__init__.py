"""Metrics: accuracy in a dataset's label space, robustness improvement (RI), CKA, and their confidence intervals.

Imports data and the layers below it, never models; methods and every layer above may import it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rib.metrics.bootstrap import (
    Changes,
    dataset_change_interval,
    mean_robustness_interval,
    originals_of,
    robustness_interval,
)
from rib.metrics.comparison import PairedTest, holm, mean_robustness_difference
from rib.metrics.intervals import Interval, seed_interval
from rib.metrics.robustness import (
    family_of,
    mean_over_cells,
    mean_robustness_improvement,
    robustness_improvement,
    targets_of,
    without_derived,
)

if TYPE_CHECKING:
    from rib.metrics.accuracy import RobustnessImprovement, SubspaceAccuracy

__all__ = [
    "Changes",
    "Interval",
    "PairedTest",
    "RobustnessImprovement",
    "SubspaceAccuracy",
    "dataset_change_interval",
    "family_of",
    "holm",
    "mean_over_cells",
    "mean_robustness_difference",
    "mean_robustness_improvement",
    "mean_robustness_interval",
    "originals_of",
    "robustness_improvement",
    "robustness_interval",
    "seed_interval",
    "targets_of",
    "without_derived",
]


def __getattr__(name: str) -> object:
    # Lazy: importing torch takes seconds, and reports need only the functions above.
    if name in ("RobustnessImprovement", "SubspaceAccuracy"):
        from rib.metrics import accuracy

        return getattr(accuracy, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
