"""Learning without forgetting (LwF): distil the start model's outputs on the new images."""

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
from rib.errors import RibError
from rib.methods.base import Method, Step, Tuned
from rib.methods.constants import outputs_of_source
from rib.methods.foreign import Foreign
from rib.methods.l2sp import check_strength
from rib.runtime.files import digest_of

INPUTS = ("source", "augmented")


class LwF(Method):
    """Distillation penalty: L(theta) = L_task(theta) + strength * mean_x KL(softmax(z0(x)/T) || softmax(z(x)/T)).

    Li & Hoiem 2017, "Learning without forgetting", arXiv 1606.09282, eq. 2 and 3: their cross-entropy with the start
    model's tempered outputs is this KL plus a constant. The old task is to be kept, so all K outputs are distilled; the
    ImageNet-RIB authors' code distils only the source's classes (``logits=restricted``). In a config::

        lwf:
          _target_: rib.methods.lwf.LwF
          strength: 1.0
          temperature: 2.0
          t_squared: false
          logits: all
          inputs: source

    Differs from the official code (lizhitwo/LearningWithoutForgetting, ``vl_nnsoftmaxdiff.m``): there the loss is
    summed over a batch, old and new task have separate heads, and the new head is first trained alone; here the loss is
    a mean, both tasks use the same K outputs, and the whole network trains from the first step.

    Costs one forward pass of the pretrained model over the source, whose outputs (N, K) are kept. Where images differ
    from epoch to epoch (``data.augment``), and with other inputs, it costs one a step and a copy of the weights; other
    inputs cost another forward and backward pass of the trained model as well. It stacks with every method that trains.

    In your own Trainer ``inputs`` may be source or augmented (tensors (3, H, W), cropped and flipped); BatchNorm's
    statistics do not move with the augmented images. A user's ``forward`` is called for them a second time.

    Args:
        strength: 0 or more; 0 is plain fine-tuning bit for bit.
        temperature: T, above 0.
        t_squared: Multiply by T^2, so that the gradient does not shrink with T (Hinton et al. 2015, arXiv 1503.02531).
        logits: ``all`` outputs, or ``restricted`` to the source's classes.
        inputs: Images that both models see: ``source`` (the batch), ``augmented`` (the batch, randomly cropped and
            flipped), or a folder of unlabelled images.

    Raises:
        RibError: For a value outside its range, or a folder without images.
    """

    def __init__(
        self,
        strength: float = 1.0,
        temperature: float = 2.0,
        t_squared: bool = False,
        logits: Literal["all", "restricted"] = "all",
        inputs: str = "source",
    ) -> None:
        self.strength = check_strength("lwf", strength)
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
        self._known: Tensor | None = None

    def prepare(self, module: Tuned) -> None:
        """Make a frozen copy of the start model, the teacher; checkpoints do not contain it."""
        device = module.trainer.strategy.root_device
        self._teacher = copy.deepcopy(module.model).to(device).eval().requires_grad_(False)
        if self._files and isinstance(module, Foreign):
            module.read_image(self._files[0])  # in a foreign Trainer this raises, before training rather than in it
        if self.inputs == "augmented":
            from torchvision.transforms import v2

            self._augment = v2.RandomHorizontalFlip()
            self._crop = v2.RandomResizedCrop

    def begin(self, module: Tuned) -> None:
        """Compute the start model's outputs for all source images, if training shows the same pixels in every epoch."""
        assert self._teacher is not None, "prepare keeps the start model"
        if self.inputs == "source":
            self._known = outputs_of_source(module, self._teacher, self._teacher, "outputs of the start model")
        if self._known is not None:
            self._teacher = None

    def reads_images(self) -> bool:
        """False where the start model's outputs for all images are known."""
        return self._known is None

    def penalty(self, module: Tuned, step: Step) -> Tensor:
        """Return the distillation loss, a scalar in nats, in float32."""
        if self.inputs == "source":
            images, outputs = step.images, step.outputs
        else:
            images = self._other_images(module, step)
            with _still_batch_norm(module.model), torch.random.fork_rng(devices=_gpus(images)):
                outputs = module.model(images)
        before = self._before(images) if self._known is None else self._known[step.places.to(self._known.device)]
        if self.logits == "restricted":
            before, outputs = module.space.project(before), module.space.project(outputs)
        target = (before.float() / self.temperature).log_softmax(dim=1)
        answer = (outputs.float() / self.temperature).log_softmax(dim=1)
        factor = self.temperature**2 if self.t_squared else 1.0
        divergence = F.kl_div(answer, target, reduction="batchmean", log_target=True)
        return self.strength * factor * divergence

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Drop the start model and its outputs."""
        self._teacher = self._known = None

    @torch.no_grad()
    def _before(self, images: Tensor) -> Tensor:
        """Return the start model's outputs for a batch, shape (B, K)."""
        assert self._teacher is not None, "prepare keeps the start model"
        outputs: Tensor = self._teacher(images)
        return outputs

    def _other_images(self, module: Tuned, step: Step) -> Tensor:
        """Return the images to distil on if ``inputs`` is not source: the batch augmented, or some of the folder.

        Each is chosen at random by (seed, epoch, source image that it replaces), so that a resumed run chooses the
        same, and neither processes nor batch sizes matter.
        """
        words = ("lwf", module.seed, module.trainer.current_epoch)
        seeds = [int(digest_of([*words, place])[:15], 16) for place in step.places.tolist()]
        if not self._files:
            return torch.stack([self._augmented(image, seed) for image, seed in zip(step.images, seeds, strict=True)])
        generator = torch.Generator()
        drawn = (torch.randint(len(self._files), (), generator=generator.manual_seed(seed)) for seed in seeds)
        return torch.stack([module.read_image(self._files[int(i)]) for i in drawn]).to(step.images.device)

    def _augmented(self, image: Tensor, seed: int) -> Tensor:
        """Return an image randomly cropped and flipped; the seed determines how."""
        with torch.random.fork_rng(devices=[]):
            # Forks only the CPU's generator, which draws crops and flips; the GPU's is seeded by the step.
            torch.default_generator.manual_seed(seed)
            changed: Tensor = self._augment(self._crop(image.shape[-1], antialias=True)(image))
            return changed


def _images_of(folder: str) -> list[Path]:
    place = Path(folder).expanduser()
    found = sorted(f for f in place.rglob("*") if f.suffix.lower() in SUFFIXES) if place.is_dir() else []
    if not found:
        raise RibError(f"method.lwf.inputs: expected source, augmented, or a folder with images, got {folder!r}")
    return found


def _gpus(images: Tensor) -> list[torch.device]:
    return [images.device] if images.is_cuda else []


@contextmanager
def _still_batch_norm(model: nn.Module) -> Iterator[None]:
    """Context manager that stops BatchNorm's running statistics, so that they stay those of the source's images."""
    moving = [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.training]
    for layer in moving:
        layer.eval()
    try:
        yield
    finally:
        for layer in moving:
            layer.train()
