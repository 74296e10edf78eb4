"""One fine-tuning, as Lightning runs it: logits, loss with the methods' penalties, optimizer and schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
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
from rib.methods.base import Batch, Method, Step, hook_steps, methods_of
from rib.metrics.accuracy import SubspaceAccuracy
from rib.models.batch_norm import takes_one_image
from rib.models.classifier import Classifier
from rib.models.layers import head_names
from rib.runtime.artifacts import ArtifactCache
from rib.runtime.files import digest_of
from rib.training.callbacks import total_steps


def warmup_cosine(step: int, warmup: int, total: int) -> float:
    """Factor of the learning rate at a step: (step+1)/warmup, then half a cosine down to 0 (facts of the paper's code).

    Args:
        step: Optimizer steps taken, from 0.
        warmup: Steps of linear warm-up.
        total: Steps of the whole fit.
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


class FineTuner(L.LightningModule):
    """Fine-tunes a classifier on one label space; methods among the trainer's callbacks add what they add.

    Args:
        model: Images uint8 (B, 3, H, W) to logits (B, K).
        space: The source's classes in terms of the K outputs.
        optimizer: From parameter groups to an optimizer.
        lr: Peak learning rate.
        warmup_steps: Optimizer steps of linear warm-up.
        seed: Seeds dropout and the like, anew at every step, so that a killed run goes on exactly.
        freeze_batch_norm: Keep BatchNorm's running statistics as they are.
        memo: Where methods keep what depends only on the start; None keeps nothing.

    Attributes:
        gathered: After a fit under FSDP, the backbone's whole weights on rank zero; None under any other strategy.
    """

    def __init__(
        self,
        model: Classifier,
        space: LabelSpace,
        optimizer: Callable[[Iterable[Any]], Optimizer],
        *,
        lr: float,
        warmup_steps: int = 0,
        seed: int = 0,
        freeze_batch_norm: bool = False,
        memo: ArtifactCache | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.space = space
        self.lr = lr
        self.warmup_steps = warmup_steps
        self.seed = seed
        self.freeze_batch_norm = freeze_batch_norm
        self.memo = memo
        self.accuracy = SubspaceAccuracy(space)
        self._optimizer = optimizer
        self._lost_at = torch.tensor(-1)
        self._tried = False
        self._terms: list[tuple[int, dict[str, Tensor]]] = []
        self.gathered: dict[str, Tensor] | None = None

    @property
    def methods(self) -> list[Method]:
        """The methods of this fit, in stack order."""
        return methods_of(self.trainer)

    @property
    def backbone(self) -> nn.Module:
        """The network inside the classifier."""
        return self.model.backbone

    @property
    def head(self) -> set[str]:
        """Names in the backbone of the parameters of its last layer."""
        return head_names(self.model.backbone)

    def source_images(self, count: int, seed: int, rank: int = 0, world: int = 1) -> tuple[Iterable[Batch], int]:
        """Select source images by a seed, as `rib.data.datamodule.RIBDataModule.source_images` does."""
        found: tuple[Iterable[Batch], int] = self.trainer.datamodule.source_images(count, seed, rank, world)  # type: ignore[attr-defined]
        return found

    def read_image(self, file: Path) -> Tensor:
        """Read an image as the source's are read, uint8 (3, H, W)."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        return read_image(file, data.transform, data.image_backend)

    def train(self, mode: bool = True) -> FineTuner:
        """As in torch, but frozen BatchNorm layers stay in eval mode."""
        super().train(mode)
        if self.freeze_batch_norm:
            for layer in self.modules():
                if isinstance(layer, _BatchNorm):
                    layer.eval()
        return self

    def on_train_batch_start(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        """Before the first step: see that BatchNorm can take the smallest batch of an epoch."""
        sharded = isinstance(self.trainer.strategy, FSDPStrategy)  # a shard cannot be tried alone
        if not self._tried and not sharded and self.order is not None:
            self._tried = True
            if self.order.smallest_share() == 1 and not takes_one_image(self.model, batch[0]):
                raise RibError(one_image_message(self.order))

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy over the source's classes plus each method's penalty, a scalar in nats an image.

        It comes with the batch's weight, so that a step follows the mean over all of its images (`EpochBatches`).
        """
        torch.manual_seed(int(digest_of([self.seed, self.current_epoch, batch_idx, self.global_rank])[:15], 16))
        images, labels, places = batch
        outputs = self.model(images)
        logits = self.space.project(outputs)
        loss = F.cross_entropy(logits.float(), labels)
        terms = {"loss": loss}
        own = len(labels) if self.order is None else self.order.share(batch_idx)
        self.accuracy.update(outputs[:own].detach(), labels[:own])
        step = Step(images, labels, outputs, logits, places)
        for method in self.methods:
            penalty = method.penalty(self, step)
            if penalty is not None:
                terms[f"penalty/{method.name}"] = penalty
                loss = loss + penalty
        self._log_means(terms, own, batch_idx)
        self._watch(loss.detach())
        return loss * self._weight(batch_idx)

    def on_train_epoch_end(self) -> None:
        """Log the accuracy on the source's images as they came, a fraction, and let no lost loss pass."""
        self._stop_if_lost()
        self.log("accuracy", self.accuracy.compute(), rank_zero_only=True)
        self.accuracy.reset()

    def on_train_end(self) -> None:
        """Under FSDP this process holds shards: gather the whole weights (on rank zero) while that can be done."""
        if isinstance(self.trainer.strategy, FSDPStrategy):
            whole = self.trainer.strategy.lightning_module_state_dict()
            prefix = "model.backbone."
            self.gathered = {name.removeprefix(prefix): t for name, t in whole.items() if name.startswith(prefix)}

    def configure_optimizers(self) -> Any:
        """The optimizer over the methods' parameter groups (default: all that is trainable), with its schedule."""
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
        """The order of training images; None where somebody else's loader serves them."""
        order = getattr(self.trainer.train_dataloader, "batch_sampler", None)
        return order if isinstance(order, EpochBatches) else None

    def _weight(self, batch_idx: int) -> float:
        """What to multiply the batch's loss by; of a loader without `EpochBatches`, all batches count the same."""
        if self.order is None:
            return 1.0
        batches = int(self.trainer.num_training_batches)
        return self.order.weight(batch_idx, self.trainer.accumulate_grad_batches, batches)

    def _log_means(self, terms: dict[str, Tensor], images: int, batch_idx: int) -> None:
        """Log the mean of each term over this process's images of a step, once a step."""
        self._terms.append((images, {name: term.detach() for name, term in terms.items()}))
        last = batch_idx + 1 >= self.trainer.num_training_batches
        if not last and (batch_idx + 1) % self.trainer.accumulate_grad_batches:
            return
        counts, each = zip(*self._terms, strict=True)
        self._terms = []
        if len(each) > 1:
            shares = [count / max(1, sum(counts)) for count in counts]
            terms = {n: torch.stack([s * t[n] for s, t in zip(shares, each, strict=True)]).sum() for n in terms}
        self.log_dict(dict(terms))

    def _watch(self, loss: Tensor) -> None:
        """Stop at a loss that is no number; on a GPU looked at every 20 steps, since each look waits for the device."""
        step = torch.where(loss.isfinite(), -1, self.global_step)
        self._lost_at = torch.where(self._lost_at.to(loss.device) >= 0, self._lost_at.to(loss.device), step)
        if loss.device.type == "cpu" or self.global_step % 20 == 0:
            self._stop_if_lost()

    def _stop_if_lost(self) -> None:
        if (lost_at := int(self._lost_at)) >= 0:
            lr = self.trainer.optimizers[0].param_groups[0]["lr"]
            raise DivergedError(
                f"the loss was no finite number at step {lost_at} (lr {lr:.3g} now, {self.lr:.3g} at its peak); "
                "try a smaller optimizer.lr, a longer optimizer.warmup_steps, clip=1, or precision=32-true"
            )


def one_image_message(order: EpochBatches) -> str:
    """What to do where a process would train on a single image and the network cannot."""
    reach = 16 * order.world
    sizes = range(max(order.world, order.batch_size - reach), order.batch_size + reach + 1, order.world)
    fine = [s for s in sizes if EpochBatches(order.num_images, s, 0, 0, order.world).smallest_share() > 1]
    nearest = min(fine, key=lambda size: abs(size - order.batch_size), default=None)
    other = "" if nearest is None else f"batch_size={nearest}, or "
    return (
        f"batch_size: expected two images or more in every batch of every process, since this network has BatchNorm "
        f"with one value a channel and image; {order.num_images} images in batches of {order.batch_size} on "
        f"{order.world} process{'es' * (order.world > 1)} leave one alone; say {other}batch_norm=frozen"
    )
