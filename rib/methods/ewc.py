r"""Elastic weight consolidation: hold the weights that mattered near where they started.

    L(theta) = L_task(theta) + strength/2 * sum_i min(F_i, 1 / (lr * strength)) (theta_i - theta0_i)^2

Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting in neural networks", eq. 3, arXiv 1612.00796. F is the
diagonal Fisher at the start weights theta0, divided by its mean.

Why the cap: a real Fisher has a heavy tail (mean 1, median 0.06, largest 6,100 on an EfficientNet). Gradient descent
with step lr on a parabola of curvature strength * F is stable only below 2 / lr (2 (1 + momentum) / lr with
momentum), so the plain penalty at strength 1 makes the loss infinite in a dozen steps even at a small lr. At the cap
a weight's whole displacement is undone by one step, which is all that a larger F could mean. The share of weights
capped is in the run's metrics.json; where it is 1, every Fisher has become the identity.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Literal

import lightning.pytorch as L
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor

from rib.errors import RibError
from rib.methods.base import Method, Step
from rib.methods.fisher import fisher_diagonal, normalised
from rib.scoring import exact_float32
from rib.weights import save_weights

if TYPE_CHECKING:
    from rib.module import FineTuner


class EWC(Method):
    """Elastic weight consolidation; the formula is in the module's docstring.

    In a config::

        ewc:
          _target_: rib.methods.ewc.EWC
          strength: 1.0
          fisher: diagonal
          samples: 1000

    Args:
        strength: Weight of the penalty, 0 or more; 0 is plain fine-tuning bit for bit.
        fisher: ``diagonal`` of the start model on source images, or ``identity``, which with strength 2 is the L2-SP
            that the ImageNet-RIB paper's code calls EWC.
        samples: Source images behind the Fisher (all, if there are fewer).
        seed: Which images, and the labels drawn.

    Raises:
        RibError: For a negative strength, an unknown kind of Fisher, or no samples.
    """

    def __init__(
        self,
        strength: float = 1.0,
        fisher: Literal["diagonal", "identity"] = "diagonal",
        samples: int = 1000,
        seed: int = 0,
    ) -> None:
        if not 0 <= strength < float("inf"):
            raise RibError(f"method.ewc.strength: expected a finite number of 0 or more, got {strength}")
        if fisher not in ("diagonal", "identity"):
            raise RibError(f"method.ewc.fisher: expected diagonal or identity, got {fisher!r}")
        if samples < 1:
            raise RibError(f"method.ewc.samples: expected at least 1 image, got {samples}")
        self.strength = strength
        self.fisher = fisher
        self.samples = samples
        self.seed = seed
        self.capped_share = 0.0
        self._anchor: list[Tensor] = []
        self._importance: list[Tensor] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take the anchor and the Fisher at the start weights."""
        if stage != "fit":
            return
        module: FineTuner = pl_module  # type: ignore[assignment]
        device = trainer.strategy.root_device
        parameters = {name: p for name, p in module.model.named_parameters() if p.requires_grad}
        fisher = self._diagonal(trainer, module, device) if self.fisher == "diagonal" else None
        cap = 1 / module.lr if module.lr > 0 else float("inf")
        capped = 0
        self._anchor, self._importance = [], []
        for name, p in parameters.items():
            f = torch.ones_like(p, device=device) if fisher is None else fisher[name].to(device)
            # In float64, where no strength that a float can hold overflows.
            pull = self.strength * f.double()
            capped += int((pull > cap).sum())
            self._anchor.append(p.detach().clone().to(device))
            self._importance.append(pull.clamp(max=cap).to(p.dtype))
        self.capped_share = capped / sum(p.numel() for p in parameters.values())

    def penalty(self, module: FineTuner, step: Step) -> Tensor:
        """strength/2 * sum_i F_i (theta_i - theta0_i)^2, a scalar in nats, in float32."""
        total = torch.zeros((), device=step.logits.device)
        trained = (p for p in module.model.parameters() if p.requires_grad)
        with torch.autocast(step.logits.device.type, enabled=False):
            for p, anchor, importance in zip(trained, self._anchor, self._importance, strict=True):
                moved = p - anchor
                total = total + (importance * moved * moved).sum()
        return total / 2

    def report(self) -> dict[str, float]:
        """The share of weights whose Fisher was capped, a fraction."""
        return {"ewc.capped_share": self.capped_share}

    def _diagonal(self, trainer: L.Trainer, module: FineTuner, device: torch.device) -> dict[str, Tensor]:
        """The normalised Fisher, from the store where it has been computed before."""
        file = module.memo.file("fisher", samples=self.samples, seed=self.seed) if module.memo else None
        if file is not None and trainer.strategy.broadcast(file.is_file()):  # rank zero's look decides for all
            return load_file(file)
        model = copy.deepcopy(module.model).to(device).eval()
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        loader, count = trainer.datamodule.source_images(self.samples, self.seed, rank, world)  # type: ignore[attr-defined]
        # One number an image, drawn for all of them by every rank: the labels do not depend on who computes.
        uniforms = torch.rand(count, generator=torch.Generator().manual_seed(self.seed), dtype=torch.float64)
        batches = ((images.to(device), uniforms[place].to(device)) for images, _, place in loader)
        with exact_float32():
            total = fisher_diagonal(model, batches, "loop" if device.type == "cpu" else "vmap")
        if world > 1:
            for tensor in total.values():
                dist.all_reduce(tensor)
        try:
            fisher = {name: value.cpu() for name, value in normalised(total).items()}
        except ValueError as error:
            raise RibError(f"method.ewc: {error}; try method.ewc.fisher=identity") from error
        if file is not None and rank == 0:
            save_weights(fisher, file)
        return fisher
