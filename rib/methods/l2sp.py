"""L2-SP: weight decay towards the start weights instead of zero."""

from __future__ import annotations

import math

from torch import Tensor

from rib.errors import DivergedError, RibError
from rib.methods.anchor import KeepOn, check_keep_on, kept
from rib.methods.base import Method, Step, Tuned, trained_parameters
from rib.methods.quadratic_penalty import quadratic, stability_bound


class L2SP(Method):
    """L2 penalty on the distance from the start: L(theta) = L_task(theta) + strength/2 * ||theta - theta0||^2.

    Li et al. 2018, "Explicit inductive bias for transfer learning with convolutional networks", arXiv 1802.01483,
    eq. 2, over all weights that train; EWC with the identity as its Fisher. In a config::

        l2sp:
          _target_: rib.methods.l2sp.L2SP
          strength: 1.0
          keep_on: device

    Differs from the official code (holyseven/TransferLearningClassification, ``model/network_base.py``): there the
    penalty leaves out biases and the parameters of norms (except in its mode 101), and a new head decays to zero at a
    rate of its own; here the head is pretrained and is penalized like the rest.

    Costs a copy of the weights, and one pass over them per step. With `ewc` the two penalties add up. Does not stack
    with `lora` or `visual_prompt`, which do not train the weights themselves.

    Args:
        strength: 0 or more; 0 is plain fine-tuning bit for bit. SGD with momentum m is unstable from 2 (1 + m) / lr on,
            at the peak rate (from 2 (1 + m) / (1 + 2 m) / lr on with Nesterov's momentum), and a little below because
            of the loss's own curvature. `ewc` caps such a pull, this method refuses it.
        keep_on: Where the start weights are kept: on the ``device`` that trains, or in the ``host``'s memory, from
            where they are copied at every step. Numbers are the same.

    Raises:
        RibError: If the strength is negative or not finite, or ``keep_on`` is unknown.
        DivergedError: Before the first step, if SGD cannot be stable at it.
    """

    def __init__(self, strength: float = 1.0, keep_on: KeepOn = "device") -> None:
        self.strength = check_strength("l2sp", strength)
        self.keep_on: KeepOn = check_keep_on("l2sp", keep_on)
        self._anchor: list[Tensor] = []

    def prepare(self, module: Tuned) -> None:
        """Store a copy of the start weights."""
        self._anchor = kept(trained_parameters(module), module.trainer.strategy.root_device, self.keep_on)

    def begin(self, module: Tuned) -> None:
        """Check that SGD with this learning rate is stable with a penalty of this strength."""
        for optimizer in module.trainer.optimizers:
            if self.strength >= (bound := stability_bound(optimizer)):
                raise DivergedError(
                    f"method.l2sp.strength: expected less than {bound:.4g}, above which this optimizer and rate throw "
                    f"weights further at each step, got {self.strength:g}; lower it or optimizer.lr, or use "
                    "+method=ewc method.ewc.fisher=identity, which caps it"
                )

    def penalty(self, module: Tuned, step: Step) -> Tensor:
        """Return strength/2 * ||theta - theta0||^2, a scalar in nats, in float32."""
        return quadratic(trained_parameters(module), self._anchor, math.sqrt(self.strength))

    def reads_images(self) -> bool:
        """False: the penalty is a function of the weights."""
        return False


def check_strength(method: str, strength: float) -> float:
    """Return a method's strength unchanged if it is a finite number of 0 or more.

    Args:
        method: Name of the method whose option it is.
        strength: The value.

    Raises:
        RibError: If the strength is negative or not finite.
    """
    if not 0 <= strength < float("inf"):
        raise RibError(f"method.{method}.strength: expected a finite number of 0 or more, got {strength}")
    return strength
