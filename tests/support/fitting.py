"""A few steps of `FineTuner` on a small network, in one process or in the shared pool of two."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import lightning.pytorch as L
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.utils.data import DataLoader

from rib.data.labels import LabelSpace
from rib.methods.base import Method
from rib.models.classifier import Classifier
from rib.runtime.artifacts import ArtifactCache
from rib.training.callbacks import StopAfter
from rib.training.module import FineTuner
from tests.support.nets import NETS, random_images

SPACE = LabelSpace(((3,), (1, 5), (0,), (9, 2), (11,), (12,)))
LR, MOMENTUM = 0.05, 0.9


def batch(number: int, size: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """The images, labels and places of one step: the same every time."""
    return random_images(size, number), torch.arange(size) % len(SPACE), torch.arange(size) + number * size


class Data(L.LightningDataModule):
    """``steps`` batches, in order; each process its share, as the real one does."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def train_dataloader(self):
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        return DataLoader([tuple(t[rank::world] for t in batch(n)) for n in range(self.steps)], batch_size=None)

    def source_images(self, count, seed, rank=0, world=1):
        """All images of the first two batches (16), in batches of 8, the share of one process."""
        images, labels, _ = (torch.cat(parts) for parts in zip(batch(0), batch(1), strict=True))
        chosen = torch.arange(min(count, len(images)))
        mine = chosen[rank::world]
        return [(images[i], labels[i], i) for i in mine.split(8)], len(chosen)


def fit(
    model: Classifier,
    *methods: Method,
    steps: int = 3,
    epochs: int = 1,
    lr: float = LR,
    optimizer: Callable[..., Any] = torch.optim.SGD,
    memo: ArtifactCache | None = None,
    accumulate: int = 1,
    precision: str = "32-true",
    freeze_batch_norm: bool = True,
    two: bool = False,
    data: L.LightningDataModule | None = None,
    logger: Any = False,
    stop_after: int | None = None,
    warmup: int = 0,
) -> Classifier:
    """Fine-tune ``model`` in place (momentum 0.9 for SGD, no warm-up, cosine over all steps) and return it."""
    arguments = {"lr": lr, **({"momentum": MOMENTUM} if optimizer is torch.optim.SGD else {})}
    module = FineTuner(
        model,
        SPACE,
        partial(optimizer, **arguments),
        lr=lr,
        warmup_steps=warmup,
        freeze_batch_norm=freeze_batch_norm,
        memo=memo,
    )
    more: dict[str, Any] = {}
    if two:
        os.environ["LOCAL_RANK"] = str(dist.get_rank())
        more = {"devices": 2, "strategy": DDPStrategy(process_group_backend="gloo", find_unused_parameters=True)}
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[*methods, *([] if stop_after is None else [StopAfter(stop_after)])],
        accumulate_grad_batches=accumulate,
        precision=precision,
        logger=logger,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **more,
    )
    module.train()
    trainer.fit(module, datamodule=data or Data(steps))
    return model.eval()


def plain(net: str, **options: Any) -> dict[str, Tensor]:
    """Weights after plain fine-tuning."""
    return fit(NETS[net](), **options).state_dict()


def fit_in_pool(net: str, make: Callable[[], list[Method]], options: dict[str, Any]) -> dict[str, Tensor]:
    """Fit in one process of the pool: ``pool.run(fit_in_pool, "vit", make, {})``, ``make`` at a module's top."""
    return fit(NETS[net](), *make(), two=True, **options).state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Bit for bit, name by name."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def furthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Largest difference of any weight."""
    return max(float((one[n].double() - other[n].double()).abs().max()) for n in one if one[n].is_floating_point())
