"""Faster ways to the same step, and one that needs less memory; Lightning and torch do the work."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from rib.errors import RibError
from rib.models.classifier import Classifier
from rib.models.memory_format import prefer_channels_last
from rib.models.recompute import checkpoint_gradients


def fused(optimizer: Mapping[str, Any], precision: str) -> dict[str, Any]:
    """Return the option that makes torch's optimizer update all weights in one kernel, where it can and may.

    Not with float16's loss scaling: a fused optimizer unscales the gradients itself, so that Lightning cannot clip them
    and methods would read them scaled.

    Args:
        optimizer: The config node, with ``_target_``.
        precision: Of training.
    """
    module, _, name = str(optimizer["_target_"]).rpartition(".")
    of_torch = getattr(torch.optim, name, None) if module == "torch.optim" else None
    chosen = {"fused", "foreach", "capturable", "differentiable"} & optimizer.keys()
    if of_torch is None or chosen or precision == "16-mixed":
        return {}
    return {"fused": True} if "fused" in inspect.signature(of_torch).parameters else {}


def accelerate(model: Classifier, *, compiled: bool, checkpointed: bool, frozen_batch_norm: bool) -> None:
    """Prepare a model for training, in place: channels last for a ConvNet, and what the options ask for.

    Args:
        model: The model.
        compiled: Let torch.compile fuse its operations, at the first batch.
        checkpointed: Compute activations again in the backward pass.
        frozen_batch_norm: BatchNorm's running statistics do not move.

    Raises:
        RibError: If the network has no gradient checkpointing, or it would count every batch twice in its statistics.
    """
    prefer_channels_last(model)
    if checkpointed:
        if not frozen_batch_norm and any(isinstance(layer, _BatchNorm) for layer in model.modules()):
            raise RibError(
                "gradient_checkpointing: every batch would count twice in BatchNorm's running statistics; set "
                "batch_norm=frozen, or gradient_checkpointing=false"
            )
        if not checkpoint_gradients(model):
            raise RibError("gradient_checkpointing: this network does not support it; set it to false")
    if compiled:
        model.compile()  # the module stays what it is, with the same names; only its call is compiled


@contextmanager
def compile_errors() -> Iterator[None]:
    """Say in one sentence that torch.compile failed within the block.

    Raises:
        RibError: If it did.
    """
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        reason = " ".join(str(error).split("\n\n", 1)[0].split())[:300]
        raise RibError(f"compile: torch could not compile this model ({reason}); set compile=false") from error
