"""The learning-rate schedule of fine-tuning: linear warm-up, then a cosine to zero."""

from __future__ import annotations

import math


def warmup_cosine(step: int, warmup: int, total: int) -> float:
    """Return the factor that multiplies the peak learning rate at a step: linear warm-up, then half a cosine to 0.

    The schedule of the ImageNet-RIB authors' code: (step + 1) / warmup, then
    0.5 * (1 + cos(pi * (step - warmup) / (total - warmup))).

    Args:
        step: Number of optimizer steps taken, from 0.
        warmup: Number of steps of linear warm-up.
        total: Number of steps of the whole fit.

    Returns:
        A factor from 0 to 1.
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
