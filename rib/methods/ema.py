"""EMA: end the fit with an exponential moving average of the weights instead of the last ones."""

from __future__ import annotations

import lightning.pytorch as L
from lightning.pytorch.callbacks import EMAWeightAveraging

from rib.errors import RibError
from rib.methods.base import Method


class EMA(EMAWeightAveraging, Method):
    """Moving average after every step, theta_ema <- decay * theta_ema + (1 - decay) * theta; the fit ends with it.

    Polyak & Juditsky 1992; for fine-tuning that stays robust, Wortsman et al. 2022, arXiv 2109.01903, appendix. It is
    Lightning's own callback, which begins with the weights after the first step, keeps its state in checkpoints, and
    averages buffers too. In a config::

        ema:
          _target_: rib.methods.ema.EMA
          decay: 0.99

    There is no official code for it in fine-tuning. The rule is that of timm's and BEiT's ``ModelEma``, without
    warm-up; their decay of .9999 is meant for many thousands of steps.

    Costs a copy of the weights, and one pass over them per step. It stacks with every method that trains; those act on
    the weights that train, not on their average. In your own Trainer validation sees the average, as Lightning has it,
    and checkpoints hold both.

    Args:
        decay: From 0 (plain fine-tuning bit for bit) to below 1; an average over about 1 / (1 - decay) steps.

    Raises:
        RibError: For a decay outside this range.
    """

    def __init__(self, decay: float = 0.99) -> None:
        if not 0 <= decay < 1:
            raise RibError(f"method.ema.decay: expected a number from 0 to below 1, got {decay}")
        super().__init__(decay=decay)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Prepare the method, and copy the model for the average."""
        Method.setup(self, trainer, pl_module, stage)
        super().setup(trainer, pl_module, stage)
