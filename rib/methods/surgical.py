"""Surgical fine-tuning: learning rates in proportion to each layer's relative gradient norm."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from statistics import median
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from rib.errors import RibError
from rib.methods.base import Method, Tuned
from rib.methods.fisher import rank_and_world
from rib.models.layers import layer_of
from rib.runtime.precision import exact_float32
from rib.runtime.progress import track


class Surgical(Method):
    """Learning rates by relative gradient norm: lr * (RGN_l / max RGN)^power, RGN_l = ||g_l|| / ||theta_l||.

    Lee et al., "Surgical fine-tuning improves adaptation to distribution shifts", ICLR 2023, arXiv 2210.11466, section
    5 (Auto-RGN). In a config::

        surgical:
          _target_: rib.methods.surgical.Surgical
          samples: 256
          seed: 0
          power: 1.0
          per: layer

    Differs from the official code (anniesch/surgical-finetuning, ``main.py``): there a layer is one parameter tensor
    (``per=tensor``; here a block), the ratio is the mean over five batches of ||g|| / ||theta|| in train mode, measured
    again in each epoch with a new Adam, and what has "bn" in its name does not train. Here the gradient is that of all
    `samples` images together in eval mode, measured once at the start model, so that a killed run resumes exactly, and
    BatchNorm's scales train like the rest. A layer of zeros, for which the official code divides by zero, has the full
    rate and does not count for max RGN.

    Costs a forward and a backward pass of ``samples`` images before training. Does not stack with `layer_decay`, which
    sets the same rates, or `visual_prompt`, which has no layers. In rib's commands only.

    Args:
        samples: Number of source images for the gradient (all, if there are fewer).
        seed: Seed of the choice of images.
        power: 0 makes all rates equal: plain fine-tuning bit for bit.
        per: Unit with a learning rate of its own: ``layer`` (block) or ``tensor``.

    Raises:
        RibError: For no samples, a negative power, another value of ``per``, or a gradient that is zero everywhere.
    """

    def __init__(
        self, samples: int = 256, seed: int = 0, power: float = 1.0, per: Literal["layer", "tensor"] = "layer"
    ) -> None:
        if samples < 1:
            raise RibError(f"method.surgical.samples: expected at least 1 image, got {samples}")
        if not 0 <= power < float("inf"):
            raise RibError(f"method.surgical.power: expected a finite number of 0 or more, got {power}")
        if per not in ("layer", "tensor"):
            raise RibError(f"method.surgical.per: expected layer or tensor, got {per!r}")
        self.samples = samples
        self.seed = seed
        self.power = power
        self.per = per
        self.rates: dict[str, float] = {}

    def prepare(self, module: Tuned) -> None:
        """Measure the relative gradient norm of each layer."""
        norms = self._relative_gradients(module)
        largest = max(norms.values()) if all(map(math.isfinite, norms.values())) else math.nan
        if not largest > 0:
            raise RibError(f"method.surgical: expected a gradient with a finite norm above 0, got {largest}")
        self.rates = {layer: (norm / largest) ** self.power for layer, norm in norms.items()}

    def parameter_groups(self, module: Tuned) -> list[dict[str, Any]]:
        """Return one optimizer parameter group for each layer or tensor, with its own learning rate."""
        groups: defaultdict[str, list[Tensor]] = defaultdict(list)
        for name, p in module.backbone.named_parameters():
            if p.requires_grad:
                groups[self._unit(name)].append(p)
        return [{"params": ps, "lr": module.lr * self.rates[layer]} for layer, ps in groups.items()]

    def report(self) -> dict[str, float]:
        """Return each layer's learning rate relative to the largest; with ``per=tensor`` only minimum and median."""
        if self.per == "tensor" and self.rates:
            rates = self.rates.values()
            return {"surgical.smallest_rate": min(rates), "surgical.median_rate": median(rates)}
        return {f"surgical.rate.{layer}": rate for layer, rate in self.rates.items()}

    def _relative_gradients(self, module: Tuned) -> dict[str, float]:
        """Compute gradient norm / weight norm of each layer for the mean task loss, the same on every process."""
        device = module.trainer.strategy.root_device
        model = copy.deepcopy(module.model).to(device).eval()
        prefix = next(name for name, child in module.model.named_modules() if child is module.backbone)
        backbone = model.get_submodule(prefix)
        trained = {name: p for name, p in backbone.named_parameters() if p.requires_grad}
        total = [torch.zeros_like(p) for p in trained.values()]
        rank, world = rank_and_world()
        batches, count = module.source_images(self.samples, self.seed, rank, world)
        with exact_float32():
            shown = track(batches, "measuring the gradient of each layer", count, lambda batch: world * len(batch[0]))
            for images, labels, _ in shown:
                logits = module.space.project(model(images.to(device)))
                loss = F.cross_entropy(logits, labels.to(device), reduction="sum") / count
                gradients = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
                for value, gradient in zip(total, gradients, strict=True):
                    if gradient is not None:
                        value += gradient
        for value in total:
            if world > 1:
                dist.all_reduce(value)
        squares: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for (name, p), gradient in zip(trained.items(), total, strict=True):
            squares[self._unit(name)][0] += float(gradient.double().square().sum())
            squares[self._unit(name)][1] += float(p.detach().double().square().sum())
        ratios = {unit: (g / w) ** 0.5 for unit, (g, w) in squares.items() if w > 0}
        largest = max(ratios.values(), default=0.0)
        return {unit: ratios.get(unit, largest) for unit in squares}

    def _unit(self, name: str) -> str:
        return layer_of(name) if self.per == "layer" else name
