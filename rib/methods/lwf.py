"""Learning without forgetting: answer the old question as the start model does."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from rib.data.listing import SUFFIXES
from rib.data.transform import read_image
from rib.errors import RibError
from rib.methods.base import Method, Step
from rib.methods.l2sp import non_negative
from rib.runtime.files import digest_of
from rib.training.module import FineTuner

INPUTS = ("source", "augmented")


class LwF(Method):
    """L(theta) = L_task(theta) + strength * mean_x KL(softmax(z0(x)/T) || softmax(z(x)/T)).

    Li & Hoiem 2017, "Learning without forgetting", arXiv 1606.09282, eq. 2 and 3: their cross-entropy with the start
    model's tempered answers is this KL and a constant. What must be kept is the old task, so all K outputs are
    distilled; the ImageNet-RIB authors' code distils the source's classes alone (``logits=restricted``). In a config::

        lwf:
          _target_: rib.methods.lwf.LwF
          strength: 1.0
          temperature: 2.0
          t_squared: false
          logits: all
          inputs: source

    Differs from the official code (lizhitwo/LearningWithoutForgetting, ``vl_nnsoftmaxdiff.m``): not in the loss, which
    is summed over a batch there. Old and new task have heads of their own there, and the new one is trained alone
    first; here both are read off the same K outputs, and all that is pretrained trains at once.

    Costs a forward of the start model a step and a copy of its weights; with other inputs another forward and
    backward of the trained model, too. It stacks with every method that trains.

    Args:
        strength: 0 or more; 0 is plain fine-tuning bit for bit.
        temperature: T, above 0.
        t_squared: Multiply by T^2, so that the gradient does not shrink with T (Hinton et al. 2015, arXiv 1503.02531).
        logits: ``all`` outputs, or ``restricted`` to the source's classes.
        inputs: What both models are shown: ``source`` (the batch), ``augmented`` (the batch, randomly cropped and
            flipped), or a folder of unlabelled images.

    Raises:
        RibError: For a value outside, or a folder without images.
    """

    def __init__(
        self,
        strength: float = 1.0,
        temperature: float = 2.0,
        t_squared: bool = False,
        logits: Literal["all", "restricted"] = "all",
        inputs: str = "source",
    ) -> None:
        self.strength = non_negative("lwf", strength)
        if not 0 < temperature < float("inf"):
            raise RibError(f"method.lwf.temperature: expected a finite number above 0, got {temperature}")
        if logits not in ("all", "restricted"):
            raise RibError(f"method.lwf.logits: expected all or restricted, got {logits!r}")
        self.temperature = temperature
        self.t_squared = t_squared
        self.logits = logits
        self.inputs = inputs
        self._files = [] if inputs in INPUTS else _images_of(inputs)
        self._teacher: nn.Module | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Keep the start model; in no checkpoint, since it is taken again before one is restored."""
        if stage != "fit":
            return
        assert isinstance(pl_module, FineTuner)
        self._teacher = copy.deepcopy(pl_module.model).to(trainer.strategy.root_device).eval().requires_grad_(False)
        if self._files:
            self._transform = trainer.datamodule.transform  # type: ignore[attr-defined]
            self._backend = trainer.datamodule.image_backend  # type: ignore[attr-defined]
        if self.inputs == "augmented":
            from torchvision.transforms import v2

            self._augment = v2.RandomHorizontalFlip()
            self._crop = v2.RandomResizedCrop

    def penalty(self, module: FineTuner, step: Step) -> Tensor:
        """The distillation loss, a scalar in nats, in float32."""
        assert self._teacher is not None, "setup keeps the start model"
        if self.inputs == "source":
            images, outputs = step.images, step.outputs
        else:
            images = self._other_images(module, step)
            with _still_batch_norm(module.model):
                outputs = module.model(images)
        with torch.no_grad():
            before = self._teacher(images)
        if self.logits == "restricted":
            before, outputs = module.space.project(before), module.space.project(outputs)
        target = (before.float() / self.temperature).log_softmax(dim=1)
        answer = (outputs.float() / self.temperature).log_softmax(dim=1)
        factor = self.temperature**2 if self.t_squared else 1.0
        divergence = F.kl_div(answer, target, reduction="batchmean", log_target=True)
        return self.strength * factor * divergence

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Let the start model go."""
        self._teacher = None

    def _other_images(self, module: FineTuner, step: Step) -> Tensor:
        """Images in the place of the batch's: each drawn from (seed, epoch, the source image that it stands for).

        So a killed run goes on, and neither processes nor batch sizes change what is drawn.
        """
        words = ("lwf", module.seed, module.current_epoch)
        seeds = [int(digest_of([*words, place])[:15], 16) for place in step.places.tolist()]
        if not self._files:
            return torch.stack([self._augmented(image, seed) for image, seed in zip(step.images, seeds, strict=True)])
        generator = torch.Generator()
        drawn = (torch.randint(len(self._files), (), generator=generator.manual_seed(seed)) for seed in seeds)
        read = [read_image(self._files[int(i)], self._transform, self._backend) for i in drawn]
        return torch.stack(read).to(step.images.device)

    def _augmented(self, image: Tensor, seed: int) -> Tensor:
        """A random crop, flipped or not."""
        with torch.random.fork_rng(devices=[]):
            # The CPU's generator alone draws crops and flips, and `FineTuner` has seeded the others for this step.
            torch.default_generator.manual_seed(seed)
            changed: Tensor = self._augment(self._crop(image.shape[-1], antialias=True)(image))
            return changed


def _images_of(folder: str) -> list[Path]:
    place = Path(folder).expanduser()
    found = sorted(f for f in place.rglob("*") if f.suffix.lower() in SUFFIXES) if place.is_dir() else []
    if not found:
        raise RibError(f"method.lwf.inputs: expected source, augmented, or a folder with images, got {folder!r}")
    return found


@contextmanager
def _still_batch_norm(model: nn.Module) -> Iterator[None]:
    """Other images must not move the statistics of the source's."""
    moving = [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.training]
    for layer in moving:
        layer.eval()
    try:
        yield
    finally:
        for layer in moving:
            layer.train()
