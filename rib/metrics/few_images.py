"""Interval of a change in accuracy for few images, such as those of one class.

Of 14 images perhaps two change, or none. A bootstrap of them is too narrow then, and [0, 0] where none changed, as if
the accuracy on further images were known exactly (`rib.metrics.bootstrap`). Agresti & Min 2005, "Simple improved
confidence intervals for comparing matched proportions" (Statistics in Medicine 24), add half an image to each of the
four outcomes of a pair (both right, both wrong, won, lost) and use the normal approximation: two images more, whose
changes cancel in the sum and add one to the sum of squares. With 14 or 50 images the intervals cover 92 to 100 %, with
five at worst 83 %, summed over all outcomes (tests/metrics/test_few_images.py). With hundreds they are the bootstrap's.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np
from scipy.special import ndtri

from rib.metrics.bootstrap import Changes
from rib.metrics.intervals import Interval


def small_sample_interval(changes: Sequence[Changes], level: float = 0.95) -> Interval:
    """Return the accuracy change on few images with its confidence interval, in percentage points.

    Args:
        changes: The images of one dataset; for ImageNet-C of every corruption and severity. Pictures of one photograph
            count as one image, with the mean of their changes.
        level: Nominal coverage, 0 to 1.
    """
    ids = np.concatenate([np.arange(len(c.change)) if c.originals is None else c.originals for c in changes])
    shares = np.concatenate([c.change / (len(c.change) * len(changes)) for c in changes])
    photographs, number = np.unique(ids, return_inverse=True)
    change = len(photographs) * np.bincount(number, shares)
    count = len(change) + 2
    centre = float(change.sum()) / count
    half = float(ndtri((1 + level) / 2)) * sqrt(((float((change**2).sum()) + 1) / count - centre**2) / count)
    return Interval(
        100 * float(shares.sum()), 100 * max(-1.0, centre - half), 100 * min(1.0, centre + half), "images only", level
    )
