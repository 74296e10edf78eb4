"""EMA: end the fit with an exponential moving average of the weights instead of the last ones."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from rib.errors import RibError
from rib.methods.base import Method


class EMA(WeightAveraging, Method):
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
        super().__init__(multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]
        self.decay = decay

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Prepare the method, and copy the model for the average."""
        Method.setup(self, trainer, pl_module, stage)
        super().setup(trainer, pl_module, stage)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average after an optimizer step; the first one is copied.

        Lightning's own way reads a counter on the device at each step, for which the CPU would wait for the GPU.
        """
        average = self._average_model
        if average is None or trainer.global_step <= self._latest_update_step:
            return
        if self._latest_update_step == 0:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
            return
        pairs = list(zip(_tensors(average.module), _tensors(pl_module), strict=True))
        floats = [(mean, now) for mean, now in pairs if mean.is_floating_point()]
        torch._foreach_lerp_([mean for mean, _ in floats], [now for _, now in floats], 1 - self.decay)
        for mean, now in pairs:
            if not mean.is_floating_point():  # the counters of BatchNorm
                mean.copy_(mean * self.decay + now * (1 - self.decay))
        average.n_averaged += 1
        self._latest_update_step = trainer.global_step


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """Iterate over a module's parameters and buffers."""
    return chain(module.parameters(), module.buffers())
