"""Base class of all fine-tuning methods: a Lightning callback for rib's commands and for your own Trainer.

**Writing a method for rib's commands.** Subclass `Method` and override what you need; a class that overrides nothing is
plain fine-tuning. Each of these seven steps receives a `Tuned`, through which a method accesses the model, the
data and the trainer. In their order:

1. ``prepare(module)`` changes the model, freezes parts of it, or keeps the start weights. It runs before a checkpoint
   is restored, before DDP wraps the module and before optimizers exist, so that an anchor taken here is always the
   start, also when a killed run is resumed.
2. ``parameter_groups(module)`` gives parts of the model learning rates of their own.
3. ``begin(module)`` runs once before the first batch, when the optimizer and the training images are there.
4. ``before_batch(module)`` runs before each batch.
5. ``penalty(module, step)`` returns a term of the loss: a mean over this process's images of the batch, or a function
   of the weights. It is added in ``training_step``, inside DDP's forward and autocast, and is scaled with the loss when
   gradients are accumulated; ``on_before_backward`` would count it twice then.
6. ``before_step(module)`` and ``after_step(module)`` run right before and right after each optimizer step
   (``on_train_batch_end`` also fires between accumulated batches).
7. ``finish(module)`` leaves plain weights behind when the fit has ended.

``setup``, ``on_fit_end`` and Lightning's other hooks may be overridden as well; call ``super()`` in them for a method
that is to run in a foreign Trainer too. What a method remembers between steps goes through ``state_dict`` and
``load_state_dict``, or a resumed run forgets it. The loss that penalties are added to is the cross-entropy over the
source's classes. A class with several outputs (nine of ObjectNet's) has the largest of them as its logit, in training
as in scoring: an image's gradient goes to that output alone.

**In your own Trainer.** `EWC`, `L2SP`, `LwF`, `LDIFS`, `SPD`, `FTP`, `EMA`, `LoRA` and `WiseFT`, and a method of your
own that overrides only the functions above, are callbacks of any `lightning.pytorch.Trainer`::

    class MyModule(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = timm.create_model("resnet18", pretrained=True)  # the start weights: here, not in setup

        def forward(self, images):
            return self.net(images)  # logits (B, K)

        def training_step(self, batch, batch_idx):
            images, labels = batch
            outputs = self(images)
            loss = F.cross_entropy(outputs, labels)
            return loss + rib.methods.penalties(self, images, outputs, labels)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

    trainer = L.Trainer(callbacks=[EWC(strength=10), WiseFT(alpha=0.5)])

- ``forward(images)`` gives the logits of all K classes and uses neither the trainer nor ``self.log``: some methods call
  a frozen copy of the module. Images are your own tensors, in whatever range and dtype ``forward`` takes them. A batch
  is (images, labels, ...).
- The network is there before ``setup``, with the start weights. One that holds no parameters then, or other ones when
  training begins or in a resumed run, is refused. With several processes all start from rank zero's weights, as DDP has
  it.
- Automatic optimization, with which Lightning allows one optimizer, and no sharded strategy (FSDP, DeepSpeed).
- What is held near the start is every parameter of the module with ``requires_grad``, those of a loss or a metric
  included. A frozen teacher inside the module is left alone, and copied with it where a method needs a copy.
- Names of layers (the head, blocks) are those of the only child that has parameters, else those of the module itself;
  the head is the last linear layer that trains.
- ``lr`` is the largest peak rate of the optimizer's groups. Nothing is cached between runs.
- Methods that change the weights when the fit has ended (LoRA, WiseFT) write them to ``final.ckpt``, beside the
  checkpoints of the first ModelCheckpoint, and log its path; ``MyModule.load_from_checkpoint`` reads it. Checkpoints
  in between hold what is being trained. With ``enable_checkpointing=False`` no file is written.
- Callbacks are listed in the order of their `Method.order`; any other order is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

import lightning.pytorch as L
from torch import Tensor, nn
from torch.optim import Optimizer

from rib.methods import foreign

Batch = tuple[Tensor, Tensor, Tensor]
"""Images (B, 3, H, W), labels (B,), and positions of the images in a selection, (B,)."""


class Space(Protocol):
    """Interface of a label space: which of the model's K outputs belong to the source dataset's C classes."""

    def project(self, logits: Tensor) -> Tensor:
        """Convert the model's outputs (B, K) to logits of the source dataset's classes, (B, C)."""

    def likeliest_outputs(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return for each image the index of the largest output among those of its labelled class, shape (B,)."""


class Cache(Protocol):
    """Interface of a disk cache, in which a file's name is a digest of everything that its content depends on."""

    def file(self, kind: str, **facts: object) -> Path:
        """Return the path of the cached file whose content depends on ``facts``; the file may not exist yet."""

    def making(self, file: Path) -> AbstractContextManager[object]:
        """Lock a cached file while the caller looks for it and, if it is missing, computes it."""


class Tuned(Protocol):
    """The fine-tuning in progress, as methods access it: model, label space, data and trainer.

    rib's `FineTuner` is one; a LightningModule of your own is seen through `rib.methods.foreign.Foreign`.
    """

    @property
    def model(self) -> nn.Module:
        """The model, which maps images to the logits of all outputs, (B, K)."""

    @property
    def backbone(self) -> nn.Module:
        """The network inside the model; layers are recognised by the names of its parameters."""

    @property
    def head(self) -> set[str]:
        """Names, within the backbone, of the parameters of its last layer (the classifier)."""

    @property
    def space(self) -> Space:
        """Label space of the source dataset: which of the K outputs belong to its classes."""

    @property
    def lr(self) -> float:
        """Peak learning rate; in your own Trainer available from ``begin`` on."""

    @property
    def seed(self) -> int:
        """Random seed of this training."""

    @property
    def memo(self) -> Cache | None:
        """Disk cache for values that depend only on the start weights, such as the Fisher diagonal; None: no cache."""

    @property
    def trainer(self) -> L.Trainer:
        """Lightning's trainer."""

    def source_images(self, count: int, seed: int, rank: int = 0, world: int = 1) -> tuple[Iterable[Batch], int]:
        """Sample the source's training images at random, by a seed; in your own Trainer available from ``begin`` on.

        Args:
            count: Number of images; all, if there are fewer.
            seed: Seed of the choice.
            rank: This process takes every ``world``-th image, beginning here.
            world: Number of processes.

        Returns:
            Batches of images, labels and positions in the selection; and the number of images in the selection.
        """

    def fixed_images(self, rank: int = 0, world: int = 1) -> tuple[Iterable[Batch], int] | None:
        """Return all source images in path order, where training shows the same pixels more than once.

        Returns:
            Every ``world``-th batch from ``rank`` on (images, labels, `Step.places`), and the number of images. None if
            images are augmented, are seen once, or may be changed by code of the user's, as in your own Trainer.
        """

    def read_image(self, file: Path) -> Tensor:
        """Read an image file with the same decoding and transform as the source's images, shape (3, H, W)."""


@dataclass(frozen=True)
class Step:
    """One training batch with the model's outputs.

    Attributes:
        images: Shape (B, 3, H, W); in rib uint8 before normalisation, in your own Trainer your own tensors.
        labels: Classes of the source, shape (B,).
        outputs: All outputs of the model, shape (B, K).
        logits: Logits of the source's classes, shape (B, C).
        places: Positions of the images in the source, shape (B,). Random draws for an image are seeded by them, the
            seed and the epoch, so that they do not depend on batches or processes. In a foreign Trainer images are
            numbered by batch, process and row.
    """

    images: Tensor
    labels: Tensor
    outputs: Tensor
    logits: Tensor
    places: Tensor


class _ClassName:
    """Descriptor for `Method.name`: the class's name in lower case, unless a subclass sets another."""

    def __get__(self, instance: object, owner: type) -> str:
        return owner.__name__.lower()


class Method(L.Callback):
    """Base class of every fine-tuning method; the module's docstring explains how to write one.

    Attributes:
        name: Name in logs and metrics.json; by default the class's name in lower case.
        order: Position among methods that are used together, low first: -1 changes the start weights, 0 the network
            or which of its weights train (adapters), 1 regularizes, 2 averages. Methods of one order are sorted by
            name.
        rib_only: Why the method runs in rib's commands only; empty for one that runs in any Trainer.
        changes_end: True if the method changes the weights when the fit has ended.
    """

    name: ClassVar[str] = cast("str", _ClassName())
    order: ClassVar[int] = 1
    rib_only: ClassVar[str] = ""
    changes_end: ClassVar[bool] = False

    _asked = False
    _start_digest: str | None = None

    def prepare(self, module: Tuned) -> None:
        """Change the model or copy its start weights, before a checkpoint is restored and optimizers exist."""

    def parameter_groups(self, module: Tuned) -> list[dict[str, Any]] | None:
        """Return optimizer parameter groups to use instead of one group of all parameters; None to keep that one."""
        return None

    def begin(self, module: Tuned) -> None:
        """Run once before the first training batch, when the optimizer and the training images are available."""

    def before_batch(self, module: Tuned) -> None:
        """Run before each training batch."""

    def penalty(self, module: Tuned, step: Step) -> Tensor | None:
        """Return a scalar to add to the cross-entropy, in nats per image; None to add nothing."""
        return None

    def before_step(self, module: Tuned) -> None:
        """Run right before the optimizer step, to read gradients and weights."""

    def after_step(self, module: Tuned) -> None:
        """Run right after the optimizer step, to change the weights."""

    def finish(self, module: Tuned) -> None:
        """Run at the end of training, to leave plain weights in the model, as LoRA does by merging its updates."""

    def report(self) -> dict[str, float]:
        """Return what the method measured or chose, as numbers by name for metrics.json, after the fit or merge."""
        return {}

    def has_penalty(self) -> bool:
        """Return True if the class overrides `penalty` and so adds a term to the loss."""
        return type(self).penalty is not Method.penalty

    def reads_images(self) -> bool:
        """Return True if `penalty` needs more than weights and outputs; else images may be left out (linear probe)."""
        return self.has_penalty()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check that the method can run in this Trainer, and call `prepare`, when a fit begins.

        Raises:
            RibError: If the method cannot run in this Trainer.
        """
        if stage != "fit":
            return
        own = tuned(pl_module)
        if isinstance(own, foreign.Foreign):
            sets_rates = type(self).parameter_groups is not Method.parameter_groups
            reason = self.rib_only or ("it sets learning rates in rib's own optimizer" if sets_rates else "")
            foreign.check_before(self, methods_of(trainer), own, reason)
        elif getattr(own, "is_users", False):  # rib's own module around a user's network, in a Trainer of the user's
            foreign.check_before(self, methods_of(trainer), foreign.Foreign(pl_module), self.rib_only)
        self.prepare(own)
        if isinstance(own, foreign.Foreign):
            self._start_digest = foreign.digest_of_parameters(pl_module)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save a digest of the start weights in the checkpoint of a user's own Trainer."""
        if self._start_digest is not None:
            checkpoint[foreign.START] = self._start_digest

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Check in a user's own Trainer that the checkpoint's fit began from the same start weights.

        Raises:
            RibError: If it began from other weights.
        """
        if self._start_digest is not None:
            foreign.check_resumed(self, checkpoint, self._start_digest)
            self._start_digest = checkpoint[foreign.START]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Arrange for `after_step` to follow each optimizer step in a user's own Trainer (`FineTuner` does so itself).

        Raises:
            RibError: If the start weights were loaded only after `prepare`.
        """
        own = tuned(pl_module)
        if isinstance(own, foreign.Foreign):
            self._asked = False
            foreign.check_start(self, own, self._start_digest)
            hook_steps(trainer.optimizers[0], [self], own)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Call `begin` once, before the first training batch."""
        self.begin(tuned(pl_module))

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Call `before_batch` before each training batch."""
        self.before_batch(tuned(pl_module))

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """Check that the first ``training_step`` of a user's own module called `rib.methods.penalties`.

        Raises:
            RibError: If it did not; the message contains the line to add.
        """
        if not self._asked and self.has_penalty() and isinstance(tuned(pl_module), foreign.Foreign):
            raise foreign.nobody_asked(self)

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """Call `before_step` right before each optimizer step."""
        self.before_step(tuned(pl_module))

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Call `finish`; in a user's own Trainer the last method that changes the weights then writes final.ckpt."""
        own = tuned(pl_module)
        self.finish(own)
        if isinstance(own, foreign.Foreign):
            foreign.save_final(self, [method for method in methods_of(trainer) if method.changes_end], trainer)


def tuned(pl_module: L.LightningModule) -> Tuned:
    """Return a module with the interface `Tuned`: rib's own unchanged, a user's wrapped in `foreign.Foreign`."""
    return cast("Tuned", pl_module) if hasattr(type(pl_module), "source_images") else foreign.Foreign(pl_module)


def methods_of(trainer: L.Trainer) -> list[Method]:
    """Return the `Method` objects among a trainer's callbacks, sorted by `Method.order` and name."""
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return sorted((c for c in callbacks if isinstance(c, Method)), key=lambda method: method.order)


def hook_steps(optimizer: Optimizer, methods: Iterable[Method], module: Tuned) -> None:
    """Register a hook that calls each method's ``after_step`` right after every optimizer step."""
    for method in methods:
        optimizer.register_step_post_hook(lambda *_, method=method: method.after_step(module))


def trained_parameters(module: Tuned) -> list[Tensor]:
    """Return the model's trainable parameters (``requires_grad``)."""
    return [p for p in module.model.parameters() if p.requires_grad]
