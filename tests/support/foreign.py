"""A user's own LightningModule, loader and Trainer, in one process or in the shared pool of two."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset

import rib.methods
from rib.data.labels import LabelSpace
from rib.training.callbacks import total_steps
from rib.training.module import FineTuner
from rib.training.schedule import warmup_cosine
from tests.support.fitting import LR, MOMENTUM, Data
from tests.support.nets import NETS, OUTPUTS, random_images

IMAGES, LABELS = random_images(40, 7), torch.arange(40) * 7 % OUTPUTS


class Own(L.LightningModule):
    """A plain module: images as they come to logits of all classes, SGD with a cosine.

    Args:
        net: One of `NETS`.
        seed: Of its weights.
        asks: Whether the training step asks for penalties.
        dropout: On the logits.
    """

    def __init__(self, net: str = "vit", seed: int = 0, asks: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = NETS[net](seed)
        self.drop = nn.Dropout(dropout)
        self.asks = asks
        self.train()

    def forward(self, images: Tensor) -> Tensor:
        return self.drop(self.net(images))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, labels = batch[:2]
        outputs = self(images)
        loss = F.cross_entropy(outputs, labels)
        if self.asks:
            loss = loss + rib.methods.penalties(self, images, outputs, labels)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=LR, momentum=MOMENTUM)
        total = total_steps(self.trainer)
        schedule = LambdaLR(optimizer, lambda step: warmup_cosine(step, 0, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Augmented(Dataset):
    """Images changed at random by each of the three global random states."""

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        change = int(torch.randint(20, ())) + random.randrange(20) + int(np.random.randint(20))  # noqa: NPY002
        return IMAGES[index] // 2 + change, LABELS[index]


def shuffled() -> DataLoader[Any]:
    """A loader as people write them: shuffled by torch's global state, with random augmentation."""
    return DataLoader(Augmented(), batch_size=8, shuffle=True)


def fit(
    module: L.LightningModule,
    *callbacks: L.Callback,
    data: Any = None,
    steps: int = 3,
    epochs: int = 1,
    accumulate: int = 1,
    two: bool = False,
    folder: Path | None = None,
    resume: str | None = None,
    **more: Any,
) -> dict[str, Tensor]:
    """Train in a Trainer of one's own and return the module's weights; ``folder`` keeps every epoch's checkpoint."""
    if two:
        os.environ["LOCAL_RANK"] = str(dist.get_rank())
        more |= {"devices": 2, "strategy": DDPStrategy(process_group_backend="gloo", find_unused_parameters=True)}
    kept = [] if folder is None else [ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)]
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[*callbacks, *kept],
        accumulate_grad_batches=accumulate,
        logger=False,
        enable_checkpointing=folder is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **more,
    )
    how = {"datamodule": Data(steps)} if data is None else {"train_dataloaders": data}
    trainer.fit(module, **how, ckpt_path=resume, weights_only=False if resume else None)
    return module.state_dict()


def in_rib(net: str, *methods: L.Callback, steps: int = 3, epochs: int = 1, accumulate: int = 1) -> dict[str, Tensor]:
    """The weights after rib's own module has trained on the same images, over all outputs."""
    everything = LabelSpace.of_ids(range(OUTPUTS))
    sgd = partial(torch.optim.SGD, lr=LR, momentum=MOMENTUM)
    module = FineTuner(NETS[net](), everything, sgd, lr=LR)
    module.train()
    fit(module, *methods, steps=steps, epochs=epochs, accumulate=accumulate)
    return {f"net.{name}": tensor for name, tensor in module.model.state_dict().items()}


def fit_in_pool(net: str, make: Callable[[], Sequence[L.Callback]], seeds: tuple[int, int] = (0, 0)) -> Any:
    """Fit in one process of the pool: its own module (drawn from a seed of its own), its share of each batch."""
    return fit(Own(net, seeds[dist.get_rank()]), *make(), two=True)
