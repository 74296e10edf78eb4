"""What a method is: a Lightning callback with at most five moments.

1. ``setup(trainer, module, stage="fit")``: change the model, freeze, warm-start. It runs before a checkpoint is
   restored, before DDP wraps the module and before optimizers exist, so an anchor taken here is always the start
   weights, also when a killed run goes on.
2. ``parameter_groups(module)``: other learning rates for parts of the model.
3. ``penalty(module, step)``: a term for the loss, a mean over this process's images of the batch or a function of the
   weights. `FineTuner.training_step` adds it and gives the whole loss the batch's weight, which puts it inside DDP's
   forward, autocast and accumulation; ``on_before_backward`` would count it twice under accumulation.
4. ``after_step(module)``: right after the optimizer's step (its own hook: ``on_train_batch_end`` also fires between
   accumulated batches).
5. ``on_fit_end(trainer, module)``: leave plain weights behind.

The loss that all this is added to is the cross-entropy over the source's classes. A class that several outputs mean
(nine of ObjectNet's) has the largest of them for its logit, in training as in scoring: the gradient of an image goes to
that output alone, and the class's other outputs learn nothing from it. No paper here says how to train such a class.

A user's own method subclasses `Method`; one that overrides nothing is plain fine-tuning. What it remembers between
steps goes through Lightning's ``state_dict`` and ``load_state_dict``, or a killed run goes on without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import lightning.pytorch as L
from torch import Tensor

if TYPE_CHECKING:
    from rib.training.module import FineTuner


@dataclass(frozen=True)
class Step:
    """One training batch on its way through the model.

    Attributes:
        images: uint8, shape (B, 3, H, W), before normalisation.
        labels: Classes of the source, shape (B,).
        outputs: All outputs of the model, shape (B, K).
        logits: The source's classes, shape (B, C).
        places: Which images of the source, shape (B,): with seed and epoch, what random draws for an image depend on,
            so that they do not depend on batches or processes.
    """

    images: Tensor
    labels: Tensor
    outputs: Tensor
    logits: Tensor
    places: Tensor


class Method(L.Callback):
    """Base of every fine-tuning method; see the module's docstring for its five moments.

    Attributes:
        order: Place in a stack, low first: -1 changes the start weights, 0 the network or which of its weights train
            (adapters), 1 regularizes, 2 averages. Methods of one place follow one another by name.
    """

    order: ClassVar[int] = 1

    @property
    def name(self) -> str:
        """As in logs and metrics.json."""
        return type(self).__name__.lower()

    def parameter_groups(self, module: FineTuner) -> list[dict[str, Any]] | None:
        """Optimizer parameter groups in place of one group of everything, or None."""
        return None

    def penalty(self, module: FineTuner, step: Step) -> Tensor | None:
        """A scalar added to the cross-entropy, in nats, or None."""
        return None

    def after_step(self, module: FineTuner) -> None:
        """Change the weights right after the optimizer has."""

    def report(self) -> dict[str, float]:
        """Numbers about this fit for metrics.json, known once it has begun."""
        return {}
