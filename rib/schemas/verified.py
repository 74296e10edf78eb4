"""Type of the record of evaluation.precision=verified in metrics.json."""

from __future__ import annotations

from typing import TypedDict


class Verified(TypedDict):
    """Record of the verification of one dataset's top-1 with evaluation.precision=verified.

    Log-probabilities, confidences and places 2 to 5 of the top-5 are those of the first pass in fp16, except for
    images that were scored again.

    Attributes:
        band: Margin, in logits, within which every image was scored again in float32.
        rescored: Share of the images scored again, the sample included.
        sample: Number of images scored both ways to find the band.
        flips: Number of images whose top-1 float32 changed.
        not_finite: Number of images whose logits overflowed in fp16, and were computed in TF32.
    """

    band: float
    rescored: float
    sample: int
    flips: int
    not_finite: int
