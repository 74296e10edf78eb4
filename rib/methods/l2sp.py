"""L2-SP: weight decay towards the start instead of zero."""

from __future__ import annotations

import lightning.pytorch as L
from torch import Tensor

from rib.errors import DivergedError, RibError
from rib.methods.base import Method, Step
from rib.methods.pull import quadratic, stable_below
from rib.training.module import FineTuner


class L2SP(Method):
    """L(theta) = L_task(theta) + strength/2 * ||theta - theta0||^2.

    Li et al. 2018, "Explicit inductive bias for transfer learning with convolutional networks", arXiv 1802.01483,
    eq. 2, over all weights that train. It is EWC with the identity in the place of the Fisher. In a config::

        l2sp:
          _target_: rib.methods.l2sp.L2SP
          strength: 1.0

    Differs from the official code (holyseven/TransferLearningClassification, ``model/network_base.py``): there biases
    and the parameters of norms stay free (but in its mode 101), and a new head decays to zero at a rate of its own;
    here the head is pretrained and is held like the rest.

    Costs a copy of the weights and a pass over them a step. Beside `ewc` the two penalties add up. Not with `lora` or
    `visual_prompt`, which train something else than weights.

    Args:
        strength: 0 or more; 0 is plain fine-tuning bit for bit. From 2 (1 + m) / lr on, with momentum m and the peak
            rate, SGD is thrown further at each step (from 2 (1 + m) / (1 + 2 m) / lr on with Nesterov's momentum); the
            loss's own curvature takes its share of that bound. `ewc` caps, this method refuses.

    Raises:
        RibError: If it is negative or no finite number.
        DivergedError: Before the first step, if SGD cannot be stable at it.
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

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """See that the optimizer can bear the pull."""
        for optimizer in trainer.optimizers:
            if self.strength >= (bound := stable_below(optimizer)):
                raise DivergedError(
                    f"method.l2sp.strength: expected less than {bound:.4g}, above which this optimizer and rate throw "
                    f"weights further at each step, got {self.strength:g}; lower it or optimizer.lr, or use "
                    "+method=ewc method.ewc.fisher=identity, which caps it"
                )

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
