"""Types of the cost of a run in metrics.json."""

from __future__ import annotations

from typing import NotRequired, TypedDict


class Times(TypedDict):
    """Wall time of a run, in seconds.

    Attributes:
        fit: Training or merging.
        evaluate: Scoring.
    """

    fit: float
    evaluate: float


class Cost(TypedDict):
    """Work behind a run's numbers, and the device that did it.

    Attributes:
        images_trained: Training images times epochs, or fewer with steps=; 0 for a run that trains nothing itself.
        images_scored: Images that were predicted for the accuracies, once for each model of a curve or an ensemble.
        device: Name of the GPU, or "CPU (2 threads)"; with a number in front if there were several processes.
    """

    images_trained: int
    images_scored: int
    device: NotRequired[str]
