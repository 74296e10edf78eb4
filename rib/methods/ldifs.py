"""LDIFS: keep the features on the way, not the weights."""

from __future__ import annotations

import copy
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from rib.methods.base import Method, Step
from rib.methods.l2sp import non_negative
from rib.models.layers import blocks
from rib.module import FineTuner


class LDIFS(Method):
    """L(theta) = L_task(theta) + strength * mean_x mean_l || f_l(x)/||f_l(x)|| - f0_l(x)/||f0_l(x)|| ||^2.

    f_l are the outputs of the network's blocks, flattened. Mukhoti et al., "Fine-tuning can cripple your foundation
    model; preserving features may be the solution", TMLR 2024, arXiv 2308.13320, eq. 4 and 5. In a config::

        ldifs:
          _target_: rib.methods.ldifs.LDIFS
          strength: 10.0

    Costs a forward of the start model a step, a copy of its weights, and its blocks' outputs of one batch. It stacks
    with any method that trains; with `linear_probe` nothing is left for it to hold.

    Args:
        strength: 0 or more; 0 is plain fine-tuning bit for bit. Theirs is 10.

    Raises:
        RibError: If it is negative or no finite number.
    """

    def __init__(self, strength: float = 10.0) -> None:
        self.strength = non_negative("ldifs", strength)
        self._handles: list[RemovableHandle] = []
        self._teacher: nn.Module | None = None
        self._now: dict[str, Tensor] = {}
        self._before: dict[str, Tensor] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Keep the start model, and listen to the blocks of both."""
        if stage != "fit":
            return
        assert isinstance(pl_module, FineTuner)
        teacher = copy.deepcopy(pl_module.model).to(trainer.strategy.root_device).eval().requires_grad_(False)
        self._teacher = teacher
        for backbone, kept in ((pl_module.model.backbone, self._now), (teacher.backbone, self._before)):
            for name, block in blocks(backbone).items():
                self._handles.append(block.register_forward_hook(_keeper(kept, name)))

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Forget what passed through the model since."""
        self._now.clear()

    def penalty(self, module: FineTuner, step: Step) -> Tensor:
        """The distance of features on the unit sphere, a scalar in nats, in float32."""
        assert self._teacher is not None, "setup keeps the start model"
        now = dict(self._now)
        with torch.no_grad():
            self._teacher(step.images)
        layers = [(_unit(now[name]) - _unit(self._before[name])).square().sum(dim=1).mean() for name in now]
        self._now.clear()
        self._before.clear()
        return self.strength * torch.stack(layers).mean()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Remove the hooks and let the start model go."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._teacher = [], None


def _keeper(kept: dict[str, Tensor], name: str) -> Any:
    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        # The batch comes first; what other methods of the stack show the model later is not asked about.
        kept.setdefault(name, output[0] if isinstance(output, tuple) else output)

    return keep


def _unit(features: Tensor) -> Tensor:
    """Features of each image, (B, D), on the unit sphere."""
    return F.normalize(features.float().flatten(1), dim=1)
