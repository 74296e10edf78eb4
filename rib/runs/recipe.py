"""Optimization with nothing left open: what null comes to, from the kind of data and the machine."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from rib.config.schema import Config
from rib.data.catalog import Catalog
from rib.errors import RibError
from rib.runs import method_stack
from rib.runtime.processes import has_gpu

SETTLED = {
    "epochs": "epochs",
    "optimizer.lr": "lr",
    "optimizer.warmup_steps": "warmup_steps",
    "precision": "precision",
}
"""Options that may be null, and where the recipe holds what they come to."""

SHORT_NAMES = {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true", "64": "64-true"}
"""What Lightning takes in the place of a precision's full name."""


@dataclass(frozen=True)
class Recipe:
    """Optimization with nothing left open.

    Attributes:
        epochs: Passes over the source.
        lr: Peak learning rate.
        warmup_steps: Optimizer steps of linear warm-up.
        precision: Lightning's name, ``32-true``, ``bf16-mixed`` or ``16-mixed``.
        max_steps: Optimizer steps after which it ends in mid-epoch; None: at the end of the last epoch.
    """

    epochs: int
    lr: float
    warmup_steps: int
    precision: str
    max_steps: int | None = None


def settle(config: Config, catalog: Catalog, num_images: int) -> Recipe:
    """The recipe of a config.

    Args:
        config: As composed.
        catalog: Whose kind of data says what null means (``recipe`` in conf/train.yaml).
        num_images: To train on.

    Raises:
        RibError: If a number makes no sense.
    """
    default = config.recipe[catalog.kind]
    epochs = default.epochs if config.epochs is None else config.epochs
    # A method may have a rate of its own (a visual prompt's is 40), one for all or by kind of data, which gives way to
    # the user's.
    nodes = [node for node in config.method.values() if node and node.get("lr") is not None]
    own = [node["lr"] for node in nodes if "lr" in method_stack.read_by_rib(node)]
    of_kind = (rate.get(catalog.kind) if isinstance(rate, Mapping) else rate for rate in own)
    rates = (config.optimizer.get("lr"), *of_kind)
    lr = next((rate for rate in rates if rate is not None), default.lr)
    for name, value in (("epochs", epochs), ("optimizer.lr", lr)):
        if not isinstance(value, int | float) or not (math.isfinite(value) and value >= 0):
            raise RibError(f"{name}: expected a number of 0 or more, got {value!r}")
    in_an_epoch = math.ceil(math.ceil(num_images / config.batch_size) / config.accumulate)
    if config.steps is not None:
        if config.epochs is not None:
            raise RibError(
                f"steps and epochs: expected one of them, got {config.steps} and {config.epochs}; null is none"
            )
        if config.steps < 0:
            raise RibError(f"steps: expected a number of 0 or more, got {config.steps}")
        epochs = math.ceil(config.steps / in_an_epoch)
    steps = epochs * in_an_epoch if config.steps is None else config.steps
    warmup = config.optimizer.get("warmup_steps")
    if warmup is None:
        warmup = default.warmup_steps
        if warmup is None or 2 * warmup > steps:
            warmup = round(steps / 10)
    if not isinstance(warmup, int) or warmup < 0:
        raise RibError(f"optimizer.warmup_steps: expected a number of steps, 0 or more, got {warmup!r}")
    return Recipe(epochs, float(lr), int(warmup), runs_in(config), config.steps)


def runs_in(config: Config) -> str:
    """The precision that training will run in, under Lightning's full name: its CPU has no float16."""
    accelerator = config.trainer.get("accelerator", "auto")
    on_gpu = has_gpu(accelerator)
    asked = config.precision or (config.gpu_precision if on_gpu else "32-true")
    precision = SHORT_NAMES.get(asked, asked)
    on_cpu = not on_gpu and (accelerator == "cpu" or (accelerator == "auto" and sys.platform != "darwin"))
    return "bf16-mixed" if on_cpu and precision == "16-mixed" else precision
