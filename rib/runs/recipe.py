"""Optimization settings of a run (its recipe), with defaults for null options by the kind of data and the machine."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from rib.config.schema import Config
from rib.data.catalog import Catalog
from rib.data.worlds import recipe_of
from rib.errors import RibError
from rib.runs import method_stack
from rib.runtime.processes import has_gpu

RECIPE_OPTIONS = {
    "epochs": "epochs",
    "optimizer.lr": "lr",
    "optimizer.warmup_steps": "warmup_steps",
    "precision": "precision",
}
"""Options that may be null, with the attribute of `Recipe` that holds the resolved value."""

SHORT_NAMES = {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true", "64": "64-true"}
"""Short names of precisions that Lightning accepts, with their full names."""


@dataclass(frozen=True)
class Recipe:
    """Fully resolved optimization settings.

    Attributes:
        epochs: Passes over the source.
        lr: Peak learning rate.
        warmup_steps: Optimizer steps of linear warm-up.
        precision: Lightning's name, ``32-true``, ``bf16-mixed`` or ``16-mixed``.
        max_steps: Optimizer steps after which training stops, also in mid-epoch; None to train all epochs.
    """

    epochs: int
    lr: float
    warmup_steps: int
    precision: str
    max_steps: int | None = None

    def images_trained(self, num_images: int, images_per_step: int) -> int:
        """Return the number of images that training sees, counting an image once per epoch.

        Args:
            num_images: Training images of an epoch.
            images_per_step: Images of a full optimizer step.
        """
        if self.max_steps is None or num_images == 0:
            return self.epochs * num_images
        # An epoch's last step may have fewer images than the others.
        epochs, steps = divmod(self.max_steps, math.ceil(num_images / images_per_step))
        return epochs * num_images + min(num_images, steps * images_per_step)


def resolve_recipe(config: Config, catalog: Catalog, num_images: int) -> Recipe:
    """Return the optimization settings of a config, with defaults in place of options that are null.

    Args:
        config: A composed config.
        catalog: Its kind of data chooses the defaults for options that are null (``recipe`` in conf/train.yaml).
        num_images: Number of training images.

    Raises:
        RibError: If a number is negative or not finite, or both epochs and steps are given.
    """
    default = config.recipe[recipe_of(catalog.kind)]
    epochs = default.epochs if config.epochs is None else config.epochs
    # A method may have a learning rate of its own (a visual prompt's is 40), as one number or by kind of data. The
    # user's optimizer.lr takes precedence.
    nodes = [node for node in config.method.values() if node and node.get("lr") is not None]
    method_rates = [node["lr"] for node in nodes if "lr" in method_stack.read_by_rib(node)]
    of_kind = (rate.get(recipe_of(catalog.kind)) if isinstance(rate, Mapping) else rate for rate in method_rates)
    rates = (config.optimizer.get("lr"), *of_kind)
    lr = next((rate for rate in rates if rate is not None), default.lr)
    for name, value in (("epochs", epochs), ("optimizer.lr", lr)):
        if not isinstance(value, int | float) or not (math.isfinite(value) and value >= 0):
            raise RibError(f"{name}: expected a number of 0 or more, got {value!r}")
    # The last step of an epoch may have fewer batches, and its last batch fewer images: both round up.
    steps_per_epoch = math.ceil(math.ceil(num_images / config.batch_size) / config.accumulate)
    if config.steps is not None:
        if config.epochs is not None:
            raise RibError(
                f"steps and epochs: expected only one of them, got {config.steps} and {config.epochs}; set one to null"
            )
        if config.steps < 0:
            raise RibError(f"steps: expected a number of 0 or more, got {config.steps}")
        epochs = math.ceil(config.steps / steps_per_epoch)
    steps = epochs * steps_per_epoch if config.steps is None else config.steps
    warmup = config.optimizer.get("warmup_steps")
    if warmup is None:
        # The paper's 196 steps, but a tenth of a fit so short that they would be more than half of it.
        warmup = default.warmup_steps
        if warmup is None or 2 * warmup > steps:
            warmup = round(steps / 10)
    if not isinstance(warmup, int) or warmup < 0:
        raise RibError(f"optimizer.warmup_steps: expected a number of steps, 0 or more, got {warmup!r}")
    return Recipe(epochs, float(lr), int(warmup), training_precision(config), config.steps)


def training_precision(config: Config) -> str:
    """Return the precision that training runs in on this machine, by Lightning's full name, ``bf16-mixed``."""
    accelerator = config.trainer.get("accelerator", "auto")
    on_gpu = has_gpu(accelerator)
    name = config.precision or (config.gpu_precision if on_gpu else "32-true")
    precision = SHORT_NAMES.get(name, name)
    # On a CPU Lightning turns 16-mixed into bf16-mixed, so that is what the key has to say.
    on_cpu = not on_gpu and (accelerator == "cpu" or (accelerator == "auto" and sys.platform != "darwin"))
    return "bf16-mixed" if on_cpu and precision == "16-mixed" else precision
