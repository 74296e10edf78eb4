"""The LightningModule that fine-tunes a model: logits, loss with the methods' penalties, optimizer and schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from rib.data.labels import LabelSpace
from rib.data.sampler import EpochBatches
from rib.data.transform import read_image
from rib.errors import DivergedError, RibError
from rib.methods.base import Batch, Method, Space, Step, hook_steps, methods_of
from rib.methods.foreign import EveryOutput, Foreign
from rib.methods.own_trainer import numbered
from rib.metrics.accuracy import SubspaceAccuracy
from rib.models.batch_norm import takes_one_image
from rib.models.classifier import Classifier
from rib.models.layers import head_names
from rib.runtime.artifacts import ArtifactCache
from rib.runtime.files import digest_of
from rib.runtime.stopwatch import timed
from rib.training.callbacks import total_steps
from rib.training.contract import (
    check_labels,
    check_logits,
    check_network,
    check_optimizer,
    logits_of,
    one_image_message,
    split_batch,
)
from rib.training.frozen_features import FrozenFeatures, fixed_images, frozen_features
from rib.training.log import reads_freely
from rib.training.schedule import warmup_cosine


class FineTuner(L.LightningModule):
    """Fine-tune a classifier on one source; methods among the trainer's callbacks add their penalties and steps.

    For a network of your own::

        module = FineTuner(network, lr=0.01)
        data = RIBDataModule(train=dataset, val=other, batch_size=64)
        Trainer(max_epochs=3, callbacks=[EWC(strength=1)]).fit(module, data)

    It trains ``network`` itself, in training mode from the start of the fit whatever mode it comes in (the network of
    ``run.model()`` comes in eval mode), and logs ``loss``, ``accuracy``, ``val_loss`` and ``val_accuracy``.
    `rib.training.contract.ImageClassifier` describes the network.

    Args:
        model: Any network from images (B, C, H, W) to logits (B, K); rib's `Classifier` takes them as uint8.
        space: The source's C classes in terms of the K outputs; None: every output is a class.
        optimizer: Makes an optimizer from parameter groups; None: SGD with momentum 0.9, as in the paper.
        lr: Peak learning rate; the default is the paper's.
        warmup_steps: Number of optimizer steps of linear warm-up.
        seed: Seeds dropout and other random draws, at every step again, so that a resumed fit draws the same.
        freeze_batch_norm: Keep BatchNorm's running statistics unchanged.
        memo: Cache for what methods compute from the pretrained model and the data; None caches nothing.

    Attributes:
        step_terms: Means of the loss and of its terms over the last optimizer step, in nats, on the device; empty amid
            accumulated batches.
        gathered: After a fit under FSDP, the backbone's whole weights on rank zero; None under any other strategy.
    """

    def __init__(
        self,
        model: nn.Module,
        space: LabelSpace | None = None,
        optimizer: Callable[[Iterable[Any]], Optimizer] | None = None,
        *,
        lr: float = 1e-3,
        warmup_steps: int = 0,
        seed: int = 0,
        freeze_batch_norm: bool = False,
        memo: ArtifactCache | None = None,
    ) -> None:
        super().__init__()
        check_network(model)
        check_optimizer(optimizer, lr)
        self.is_users = space is None
        self.model = model
        self.space: Space = EveryOutput() if space is None else space
        self.lr = lr
        self.warmup_steps = warmup_steps
        self.seed = seed
        self.freeze_batch_norm = freeze_batch_norm
        self.memo = memo
        self.accuracy = SubspaceAccuracy(self.space)
        self.val_accuracy = SubspaceAccuracy(self.space)
        self._optimizer = partial(torch.optim.SGD, lr=lr, momentum=0.9) if optimizer is None else optimizer
        self._diverged_at = torch.tensor(-1)
        self._checked_batch_size = False
        self._terms: list[tuple[int, dict[str, Tensor]]] = []
        self.step_terms: dict[str, Tensor] = {}
        self.gathered: dict[str, Tensor] | None = None
        self.features: FrozenFeatures | None = None

    @property
    def methods(self) -> list[Method]:
        """Methods that take part in this training, sorted by their ``order``."""
        return methods_of(self.trainer)

    @property
    def backbone(self) -> nn.Module:
        """Network inside the classifier, a model of timm or open_clip; the user's own network itself."""
        return self.model.backbone if isinstance(self.model, Classifier) else self.model

    @property
    def head(self) -> set[str]:
        """Names of the parameters of the backbone's last layer, which maps features to the K outputs.

        Raises:
            RibError: If it has no linear layer.
        """
        try:
            return head_names(self.backbone)
        except ValueError as error:
            raise RibError(f"model: {error}") from error

    def source_images(self, count: int, seed: int, rank: int = 0, world: int = 1) -> tuple[Iterable[Batch], int]:
        """Return batches of source images chosen by a seed, and the number of images."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if not hasattr(data, "source_images"):  # the user's own loader
            return Foreign(self).source_images(count, seed, rank, world)
        selection: tuple[Iterable[Batch], int] = data.source_images(count, seed, rank, world)
        return selection

    def fixed_images(self, rank: int = 0, world: int = 1) -> tuple[Iterable[Batch], int] | None:
        """Return all source images in a fixed order, where training shows the same pixels more than once; else None."""
        return fixed_images(self, rank, world)

    def read_image(self, file: Path) -> Tensor:
        """Read an image file and transform it like the images of the source, uint8 (3, H, W)."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if getattr(data, "transform", None) is None:
            return Foreign(self).read_image(file)  # raises: nobody knows how the user's images are read
        return read_image(file, data.transform, data.image_backend)

    def train(self, mode: bool = True) -> FineTuner:
        """Set training mode as in torch, but leave frozen BatchNorm layers in eval mode."""
        super().train(mode)
        if self.freeze_batch_norm:
            for layer in self.modules():
                if isinstance(layer, _BatchNorm):
                    layer.eval()
        return self

    def on_fit_start(self) -> None:
        """Put a user's network into training mode, but for frozen BatchNorm layers."""
        # Lightning trains in the mode that it finds, and a network that was just evaluated comes in eval mode. Methods
        # that need eval mode (linear_probe) set it before each batch.
        if self.is_users:
            self.train()

    def on_train_start(self) -> None:
        """Compute the features of all images once, if the head alone trains; the loader then reads no images."""
        self.features = frozen_features(self)

    def on_train_batch_start(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        """Check before the first step that BatchNorm can handle the smallest batch of an epoch.

        Raises:
            RibError: If a process would train on a single image and the network cannot.
        """
        # Otherwise torch would raise in the last batch of the first epoch, after hours.
        sharded = isinstance(self.trainer.strategy, FSDPStrategy)  # a shard cannot be run alone
        if not (self._checked_batch_size or sharded or self.order is None or self.features is not None):
            self._checked_batch_size = True
            if self.order.smallest_share() == 1 and not takes_one_image(self.model, batch[0]):
                raise RibError(one_image_message(self.order))

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch: cross-entropy over the source's classes plus each method's penalty.

        Args:
            batch: Images (B, 3, H, W), labels (B,) and positions of the images in the source (B,).
            batch_idx: Number of the batch in the epoch.

        Returns:
            A scalar in nats per image, times the batch's weight (`EpochBatches.weight`): a step then follows the mean
            over all its images, with accumulation and several processes as well.
        """
        # Seeded at every step, not once: a resumed fit has no other way to the random state of its middle.
        torch.manual_seed(int(digest_of([self.seed, self.current_epoch, batch_idx, self.global_rank])[:15], 16))
        images, labels, places = split_batch(batch)
        outputs = self._outputs(images, labels, places)
        logits = self.space.project(outputs)
        loss = F.cross_entropy(logits.float(), labels)
        terms = {"loss": loss}
        # The last images of a batch may be repeats that fill it up (`EpochBatches`); they count nowhere.
        own = len(labels) if self.order is None else self.order.share(batch_idx)
        self.accuracy.update(outputs[:own].detach(), labels[:own])
        step = Step(images, labels, outputs, logits, numbered(self.trainer, images) if places is None else places)
        for method in self.methods:
            with timed("training: penalty"):
                penalty = method.penalty(self, step)
            if penalty is not None:
                terms[f"penalty/{method.name}"] = penalty
                loss = loss + penalty
        self._log_means(terms, own, batch_idx)
        self._check_finite(loss.detach())
        return loss * self._weight(batch_idx)

    def _outputs(self, images: Tensor, labels: Tensor, places: Tensor | None) -> Tensor:
        """Return the logits (B, K) of a batch; those of a user's network are checked, and the labels against them."""
        if self.features is not None and self.trainer.training and places is not None:
            known = self.features.outputs(places, self.current_epoch)
            if known is not None:
                return known
            images, self.features = self.features.images(places), None
        outputs: Tensor = logits_of(self.model, images) if self.is_users else self.model(images)
        if self.is_users:
            check_logits(outputs, images)
            # Reading labels makes the CPU wait for the GPU; the first epoch sees all of them.
            if reads_freely(labels.device) or self.current_epoch == 0:
                check_labels(labels, outputs.shape[1], places, "train" if self.trainer.training else "val")
        return outputs

    @property
    def validation_step(self) -> Callable[..., Any]:
        """Lightning's validation step, where the trainer has validation images; else the one that does nothing."""
        # A property: Lightning warns of a validation step without images, and of images without a step.
        trainer: Any = self._trainer
        source = None if trainer is None else trainer.fit_loop.epoch_loop.val_loop._data_source
        return self._validate if source is not None and source.is_defined() else super().validation_step

    def _validate(self, batch: Any, batch_idx: int) -> None:
        """Log the cross-entropy and the accuracy on validation images, as ``val_loss`` and ``val_accuracy``."""
        images, labels, places = split_batch(batch)
        outputs = self._outputs(images, labels, places)
        self.val_accuracy.update(outputs, labels)
        loss = F.cross_entropy(self.space.project(outputs).float(), labels)
        self.log("val_loss", loss, batch_size=len(labels), sync_dist=True, on_step=False, on_epoch=True)
        self.log("val_accuracy", self.val_accuracy, batch_size=len(labels), on_step=False, on_epoch=True)

    def on_train_epoch_end(self) -> None:
        """Log the accuracy on the training images during the epoch, a fraction.

        Raises:
            DivergedError: If a loss of the epoch was NaN or infinite.
        """
        self._raise_if_diverged()
        self.log("accuracy", self.accuracy.compute(), rank_zero_only=True)
        self.accuracy.reset()

    def on_train_end(self) -> None:
        """Gather the whole weights on rank zero under FSDP, where each process holds shards."""
        # Before Lightning tears the strategy down, after which the shards are out of reach.
        if isinstance(self.trainer.strategy, FSDPStrategy):
            state = self.trainer.strategy.lightning_module_state_dict()
            prefix = "model.backbone." if isinstance(self.model, Classifier) else "model."
            self.gathered = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}

    def configure_optimizers(self) -> Any:
        """Return the optimizer over the methods' parameter groups, or all trainable parameters, and its schedule.

        Raises:
            RibError: If the optimizer refuses its options.
        """
        groups: list[dict[str, Any]] | None = None
        for method in self.methods:
            groups = method.parameter_groups(self) or groups
        try:
            optimizer = self._optimizer(groups or [{"params": [p for p in self.parameters() if p.requires_grad]}])
        except (TypeError, ValueError) as error:
            raise RibError(f"optimizer: {error}") from error
        hook_steps(optimizer, self.methods, self)
        total = total_steps(self.trainer)
        schedule = LambdaLR(optimizer, lambda step: warmup_cosine(step, self.warmup_steps, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step", "name": "lr"}}

    @property
    def order(self) -> EpochBatches | None:
        """Batch sampler that orders the training images; None if the user's own data loader serves them."""
        order = getattr(self.trainer.train_dataloader, "batch_sampler", None)
        return order if isinstance(order, EpochBatches) else None

    def _weight(self, batch_idx: int) -> float:
        """Return the factor that multiplies a batch's loss (`EpochBatches.weight`); 1 with the user's own loader."""
        if self.order is None:
            return 1.0
        batches = int(self.trainer.num_training_batches)
        return self.order.weight(batch_idx, self.trainer.accumulate_grad_batches, batches)

    def _log_means(self, terms: dict[str, Tensor], images: int, batch_idx: int) -> None:
        """Log the mean of each loss term once per optimizer step, over this process's images of that step."""
        self.step_terms = {}
        self._terms.append((images, {name: term.detach() for name, term in terms.items()}))
        last = batch_idx + 1 >= self.trainer.num_training_batches
        if not last and (batch_idx + 1) % self.trainer.accumulate_grad_batches:
            return
        counts, batches = zip(*self._terms, strict=True)
        self._terms = []
        if len(batches) > 1:
            shares = [count / max(1, sum(counts)) for count in counts]
            means = {n: torch.stack([s * t[n] for s, t in zip(shares, batches, strict=True)]).sum() for n in terms}
        else:
            means = batches[0]
        self.step_terms = means
        self.log_dict(dict(means))

    def _check_finite(self, loss: Tensor) -> None:
        """Record the first step with a NaN or infinite loss; raise DivergedError, on a GPU every 20 steps only."""
        step = torch.where(loss.isfinite(), -1, self.global_step)
        earlier = self._diverged_at.to(loss.device)
        self._diverged_at = torch.where(earlier >= 0, earlier, step)
        if reads_freely(loss.device) or self.global_step % 20 == 0:
            self._raise_if_diverged()

    def _raise_if_diverged(self) -> None:
        if (step := int(self._diverged_at)) >= 0:
            lr = self.trainer.optimizers[0].param_groups[0]["lr"]
            raise DivergedError(
                f"training diverged: the loss became NaN or infinite at step {step} (lr {lr:.3g} now, {self.lr:.3g} at "
                "its peak); try a smaller optimizer.lr, a longer optimizer.warmup_steps, clip=1, or precision=32-true"
            )
