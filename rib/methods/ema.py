"""The running mean of the weights along the way, in the place of the last ones."""

from __future__ import annotations

from lightning.pytorch.callbacks import EMAWeightAveraging

from rib.errors import RibError
from rib.methods.base import Method


class EMA(EMAWeightAveraging, Method):
    """theta_ema <- decay * theta_ema + (1 - decay) * theta after every step; the fit ends with theta_ema.

    Polyak & Juditsky 1992; for fine-tuning that stays robust, Wortsman et al. 2022, arXiv 2109.01903, appendix. It is
    Lightning's own callback, which begins with the weights after the first step, keeps its state in checkpoints, and
    averages buffers too. In a config::

        ema:
          _target_: rib.methods.ema.EMA
          decay: 0.99

    There is no official code for it in fine-tuning. The rule is that of timm's and BEiT's ``ModelEma``, without
    warm-up; their decay of .9999 is for runs of many thousand steps.

    Costs a copy of the weights and a pass over them a step. It stacks with every method that trains; what those pull on
    are the weights that train, not their mean.

    Args:
        decay: From 0 (plain fine-tuning bit for bit) to below 1; a mean over about 1 / (1 - decay) steps.

    Raises:
        RibError: For a decay outside.
    """

    def __init__(self, decay: float = 0.99) -> None:
        if not 0 <= decay < 1:
            raise RibError(f"method.ema.decay: expected a number from 0 to below 1, got {decay}")
        super().__init__(decay=decay)
