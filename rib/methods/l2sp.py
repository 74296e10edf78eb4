"""L2-SP: weight decay towards the start instead of zero."""

from __future__ import annotations

import lightning.pytorch as L
from torch import Tensor

from rib.errors import RibError
from rib.methods.base import Method, Step
from rib.methods.pull import quadratic
from rib.module import FineTuner


class L2SP(Method):
    """L(theta) = L_task(theta) + strength/2 * ||theta - theta0||^2.

    Li et al. 2018, "Explicit inductive bias for transfer learning with convolutional networks", arXiv 1802.01483,
    eq. 2, over all weights that train: here the head is pretrained too, so it needs no separate decay to zero. It is
    EWC with the identity in the place of the Fisher. In a config::

        l2sp:
          _target_: rib.methods.l2sp.L2SP
          strength: 1.0

    Costs a copy of the weights and a pass over them a step. Beside `ewc` the two penalties add up. Not with `lora` or
    `visual_prompt`, which train something else than weights.

    Args:
        strength: 0 or more; 0 is plain fine-tuning bit for bit. Below 2 (1 + momentum) / lr gradient descent is stable.

    Raises:
        RibError: If it is negative or no finite number.
    """

    def __init__(self, strength: float = 1.0) -> None:
        self.strength = non_negative("l2sp", strength)
        self._anchor: list[Tensor] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take the anchor."""
        if stage == "fit":
            assert isinstance(pl_module, FineTuner)
            device = trainer.strategy.root_device
            trained = (p for p in pl_module.model.parameters() if p.requires_grad)
            self._anchor = [p.detach().clone().to(device) for p in trained]

    def penalty(self, module: FineTuner, step: Step) -> Tensor:
        """strength/2 * ||theta - theta0||^2, a scalar in nats, in float32."""
        trained = [p for p in module.model.parameters() if p.requires_grad]
        return quadratic(trained, self._anchor, self.strength)


def non_negative(method: str, strength: float) -> float:
    """A strength that was checked.

    Raises:
        RibError: If it is negative or no finite number.
    """
    if not 0 <= strength < float("inf"):
        raise RibError(f"method.{method}.strength: expected a finite number of 0 or more, got {strength}")
    return strength
