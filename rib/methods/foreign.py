"""Adapter and checks for methods in a user's own Lightning Trainer, called a foreign one.

`rib.methods.base` lists what the user's module must satisfy.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from rib.errors import RibError
from rib.methods.clashes import CLASHES
from rib.methods.quadratic_penalty import peak_rate
from rib.methods.selection import select_images

if TYPE_CHECKING:
    from rib.methods.base import Method

START = "rib_start"
"""Key in a checkpoint: a digest of the parameters that the fit began from."""

FINAL = "final.ckpt"
"""Weights after the methods that change them at the end of a fit."""

SHARDED = (FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy)


class EveryOutput:
    """Label space of a user's own module, in which each of the K outputs is one class."""

    def project(self, logits: Tensor) -> Tensor:
        """Return the logits (B, K) as they are."""
        return logits

    def likeliest_outputs(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the labels (B,) as they are: a class has one output."""
        return labels


class Foreign:
    """Adapter that gives a user's LightningModule the interface `rib.methods.base.Tuned`; it has no state.

    Args:
        module: Attached to its trainer.
    """

    space = EveryOutput()
    memo = None

    def __init__(self, module: L.LightningModule) -> None:
        self.model = module

    @property
    def backbone(self) -> nn.Module:
        """The module's only child with parameters; else (several, or parameters of its own) the module itself."""
        direct = next(self.model.parameters(recurse=False), None)
        children = [child for child in self.model.children() if next(child.parameters(), None) is not None]
        return children[0] if direct is None and len(children) == 1 else self.model

    @property
    def head(self) -> set[str]:
        """Names of the parameters of the last trainable linear layer; of the last linear layer if none is trainable.

        Raises:
            RibError: If there is none.
        """
        linear = {name: child for name, child in self.backbone.named_modules() if isinstance(child, nn.Linear)}
        if not linear:
            raise RibError("expected a network with a linear layer at its end, found none")
        trains = [name for name, child in linear.items() if any(p.requires_grad for p in child.parameters())]
        last = (trains or list(linear))[-1]
        return {f"{last}.{key}".lstrip(".") for key, _ in linear[last].named_parameters()}

    @property
    def lr(self) -> float:
        """The largest peak rate of the optimizer's parameter groups."""
        return max(peak_rate(group) for group in self.trainer.optimizers[0].param_groups)

    @property
    def seed(self) -> int:
        """The seed of Lightning's ``seed_everything``, or 0."""
        return int(os.environ.get("PL_GLOBAL_SEED", 0))

    @property
    def trainer(self) -> L.Trainer:
        """The Trainer that the user's module is attached to."""
        return self.model.trainer

    def source_images(
        self, count: int, seed: int, rank: int = 0, world: int = 1
    ) -> tuple[Iterator[tuple[Tensor, Tensor, Tensor]], int]:
        """Select images of the Trainer's training loader by a seed, and move them to this process's device.

        Args:
            count: Number of images; all, if there are fewer.
            seed: Seed of the choice.
            rank: This process takes every ``world``-th image, beginning here.
            world: Number of processes.

        Returns:
            Batches of images, labels and positions in the selection; and the number of images in the selection.

        Raises:
            RibError: If the loader's images cannot be known without iterating it.
        """
        batches, number = select_images(self.trainer.train_dataloader, count, seed, rank, world)
        return ((*self.transfer(batch), places) for batch, places in batches), number

    def fixed_images(self, rank: int = 0, world: int = 1) -> None:
        """Return None: whether the user's images are augmented is not known."""

    def transfer(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Move a batch to the device as the Trainer does, with the module's transfer hooks; return images and labels.

        Raises:
            RibError: If the batch is not (images, labels, ...).
        """
        batch = self.trainer.precision_plugin.convert_input(batch)
        batch = self.model._on_before_batch_transfer(batch)
        images, labels = images_and_labels(self.trainer.strategy.batch_to_device(batch))
        return images, labels

    def read_image(self, file: Path) -> Tensor:
        """Raise an error, since rib does not know how the user's images are read.

        Raises:
            RibError: Always.
        """
        raise RibError("lwf: a folder of images works only in rib's commands; set inputs to source or augmented")


def images_and_labels(batch: Any) -> tuple[Tensor, Tensor]:
    """Return the first two entries of a batch, images and labels.

    Raises:
        RibError: If it is not (images, labels, ...).
    """
    if not isinstance(batch, tuple | list) or len(batch) < 2 or not all(isinstance(t, Tensor) for t in batch[:2]):
        raise RibError(f"expected batches (images, labels, ...) of tensors, got a {type(batch).__name__}")
    return batch[0], batch[1]


def check_before(method: Method, methods: Sequence[Method], own: Foreign, rib_only: str) -> None:
    """Check before a fit that a method can run in this Trainer, and broadcast rank zero's weights to all processes.

    Args:
        method: The method to check.
        methods: All methods of the Trainer, in the order of `Method.order`.
        own: The user's module.
        rib_only: Reason why the method runs in rib's commands only; empty if it runs in any Trainer.

    Raises:
        RibError: If it cannot run; the message gives the reason.
    """
    module, trainer, name = own.model, own.trainer, method.name
    if rib_only:
        raise RibError(f"{name}: {rib_only}; run it with python -m rib.train +method={name}")
    if isinstance(trainer.strategy, SHARDED):
        raise RibError(f"{name}: expected whole weights in each process, got a sharded strategy; use strategy='ddp'")
    if not module.automatic_optimization:
        raise RibError(f"{name}: expected automatic optimization, got automatic_optimization=False")
    parameters = list(module.parameters())
    if not parameters or any(is_lazy(p) for p in parameters):
        raise RibError(
            f"{name}: expected a module that has its network before setup, got one without parameters; build the "
            "network in __init__"
        )
    names = {other.name for other in methods}
    for pair, why in CLASHES.items():
        if pair <= names:
            raise RibError(f"callbacks: {' and '.join(sorted(pair))} cannot be stacked: {why}")
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    listed = [callback for callback in callbacks if callback in methods]
    if listed != list(methods):
        wrong = next(i for i, (one, other) in enumerate(zip(listed, methods, strict=True)) if one is not other)
        raise RibError(f"callbacks: expected {methods[wrong].name} before {listed[wrong].name}, got the other order")
    _share_start(module, trainer.strategy.root_device)


@torch.no_grad()
def _share_start(module: nn.Module, device: torch.device) -> None:
    """Broadcast rank zero's weights to all processes; DDP does so too late, after methods have copied the start."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    for tensor in (*module.parameters(), *module.buffers()):
        there = tensor.detach().to(device)
        dist.broadcast(there, src=0)
        tensor.copy_(there)


def digest_of_parameters(module: nn.Module) -> str:
    """Return the SHA-256 of the names and exact values of a module's parameters."""
    found = hashlib.sha256()
    for name, p in sorted(module.named_parameters()):
        found.update(name.encode())
        found.update(p.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def check_resumed(method: Method, checkpoint: dict[str, Any], start: str) -> None:
    """Check that a checkpoint is of a fit with this method that began from the module's present start weights.

    Raises:
        RibError: If it began from other weights, or ran without a method.
    """
    if START not in checkpoint:
        raise RibError(
            f"{method.name}: expected a checkpoint of a fit with this method, got one without it; to start from its "
            "weights, load them in __init__"
        )
    if checkpoint[START] != start:
        raise RibError(
            f"{method.name}: expected the start weights that the checkpoint's fit began from, got others; build the "
            "network in __init__ from the same pretrained weights, and seed any random initialisation"
        )


def check_start(method: Method, own: Foreign, start: str | None) -> None:
    """Check when a fit starts that the weights have not changed since `Method.prepare`.

    Prints a note if the method will change the weights when the fit ends.

    Args:
        method: The method that checks.
        own: The user's module.
        start: Digest of the parameters when methods were prepared; None where that is not known.

    Raises:
        RibError: If the weights have changed since.
    """
    resumed = own.trainer.ckpt_path is not None
    if start is not None and not resumed and digest_of_parameters(own.model) != start:
        raise RibError(
            f"{method.name}: expected the start weights to be there before setup, but they changed since; load them in "
            "__init__"
        )
    if method.changes_end:
        file = final_checkpoint(own.trainer)
        then = "the weights change when the fit ends" + (f" and are written to {file}" if file else "")
        rank_zero_info(f"{method.name}: checkpoints hold the weights as they are trained; {then}")


def nobody_asked(method: Method) -> RibError:
    """Return the error for a ``training_step`` that does not call `rib.methods.penalties`."""
    return RibError(
        f"{method.name}: training_step did not add the method's penalty to the loss; add this line to training_step: "
        "loss = loss + rib.methods.penalties(self, images, outputs, labels)"
    )


def final_checkpoint(trainer: L.Trainer) -> str | None:
    """Return the path of final.ckpt, in the first ModelCheckpoint's folder; None if checkpoints are switched off."""
    checkpoint = trainer.checkpoint_callback
    if checkpoint is None:
        return None
    folder = getattr(checkpoint, "dirpath", None) or trainer.default_root_dir
    return f"{str(folder).rstrip('/')}/{FINAL}"


def save_final(method: Method, changing: Sequence[Method], trainer: L.Trainer) -> None:
    """Write final.ckpt if ``method`` is the last of those that change the weights at the end of a fit; else do nothing.

    It holds weights only, since the states of other callbacks and the optimizer belong to the weights before the
    change.
    """
    file = final_checkpoint(trainer)
    if file is not None and changing and method is changing[-1]:
        trainer.save_checkpoint(file, weights_only=True)
        rank_zero_info(f"{method.name}: wrote the final weights to {file}")
