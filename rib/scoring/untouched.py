"""Run a user's model, and leave it and the process as they were: mode, device and random states."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn

from rib.errors import RibError


def device_of(model: nn.Module, name: str = "model") -> torch.device:
    """Return the device of a model's parameters and buffers; the CPU for a model without any.

    Raises:
        RibError: If they lie on several devices, or have no values (the meta device).
    """
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    if len(devices) > 1:
        raise RibError(
            f"{name}: expected a module on one device, got one on {', '.join(sorted(map(str, devices)))}; move it to "
            "one, as in model.cuda()"
        )
    device = devices.pop() if devices else torch.device("cpu")
    if device.type == "meta":
        raise RibError(f"{name}: expected a module with weights, got one on the meta device; load its weights first")
    return device


@contextmanager
def untouched(models: Sequence[nn.Module], device: torch.device) -> Iterator[None]:
    """Move models to a device within a block; afterwards restore their devices, their modes and all random states.

    Autocast, which may be on around the call, is off within the block.

    Args:
        models: Models, each on one device.
        device: Device to move them to.

    Raises:
        RibError: If a model lies on several devices.
    """
    homes = [device_of(model) for model in models]
    modes = [(module, module.training) for model in models for module in model.modules()]
    with ExitStack() as stack:
        stack.enter_context(_random_states())
        for kind in {"cpu", device.type}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        try:
            for model in models:
                model.to(device)
            yield
        finally:
            for module, training in modes:
                # By train(), parents first: it may do more than set a flag (LoRA layers that merge their weights).
                if module.training != training:
                    module.train(training)
            for model, home in zip(models, homes, strict=True):
                model.to(home)


@contextmanager
def _random_states() -> Iterator[None]:
    """Restore the random states of Python, NumPy, and torch on the CPU and all CUDA GPUs after a block."""
    # NumPy's global generator: a model of the user's may draw from it.
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002
