"""LoRA: fine-tuning in few directions, folded into the weights at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import lightning.pytorch as L
import torch

from rib.errors import RibError
from rib.methods.base import Method
from rib.models.adapters import add_low_rank, merge_low_rank, outer_norm_names, sites, token_names
from rib.models.layers import head_names

if TYPE_CHECKING:
    from rib.training.module import FineTuner

BESIDE = {"head": head_names, "tokens": token_names, "norms": outer_norm_names}


class LoRA(Method):
    """Trains W = W0 + alpha/rank * B A with W0 frozen, B = 0 at first; afterwards W is a plain weight again.

    Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", eq. 3, arXiv 2106.09685.

    Not by peft: a ViT of timm or open_clip has q, k and v in one fused weight, out of which peft cannot take q and v.
    Here each target has an A and a B of its own for its rows (`rib.models.adapters.LowRank`).

    In a config::

        lora:
          _target_: rib.methods.lora.LoRA
          rank: 8
          alpha: 8.0
          targets: [q, v]
          train: []
          seed: 0

    Differs from the official code (microsoft/LoRA, ``loralib/layers.py``): not in A, B, how they begin, or their scale.
    There a new task's head trains too (here with ``train=[head]``), and dropout before A may be had.

    Cost: that of fine-tuning in time (weights are composed anew at each forward pass), less memory: gradients and
    optimizer state of the adapters alone. BatchNorm's statistics move unless ``batch_norm=frozen``. Not beside
    linear_probe, visual_prompt or freeze_embed, nor what holds weights (ewc, l2sp, spd, ftp), which would hold A and B.

    Args:
        rank: r of the update of each target in each block, 1 or more.
        alpha: The update's factor is alpha/rank; above 0.
        targets: What gets adapters: ``q``, ``k``, ``v``, ``proj`` (behind attention), ``mlp`` in a ViT; ``conv1x1``,
            ``linear`` (all but the head) in a ConvNet.
        train: What else trains: ``head``, ``tokens`` (and positions), ``norms`` (LayerNorms outside the blocks, as
            in the ImageNet-RIB authors' code).
        seed: Of A.

    Raises:
        RibError: For a wrong rank or alpha, and for a target that the model does not have, with those that it has.
    """

    order: ClassVar[int] = 0

    def __init__(
        self,
        rank: int = 8,
        alpha: float = 8.0,
        targets: Sequence[str] = ("q", "v"),
        train: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        if rank < 1:
            raise RibError(f"method.lora.rank: expected 1 or more, got {rank}")
        if not 0 < alpha < float("inf"):
            raise RibError(f"method.lora.alpha: expected a finite number above 0, got {alpha}")
        if isinstance(targets, str) or not targets:
            raise RibError(f"method.lora.targets: expected a list like [q, v], got {targets!r}")
        if isinstance(train, str) or set(train) - BESIDE.keys():
            raise RibError(f"method.lora.train: expected a list of any of {', '.join(BESIDE)}, got {train!r}")
        self.rank = rank
        self.alpha = alpha
        self.targets = list(targets)
        self.train = list(train)
        self.seed = seed

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Freeze the network and put the adapters on it, before a checkpoint that has them is restored."""
        if stage != "fit":
            return
        module: FineTuner = pl_module  # type: ignore[assignment]
        backbone = module.model.backbone
        known = sites(backbone)
        if absent := [target for target in self.targets if target not in known]:
            raise RibError(
                f"method.lora.targets: this model has no {absent[0]}; expected any of {', '.join(known) or 'nothing'}"
            )
        trained = {name for kind in self.train for name in BESIDE[kind](backbone)}
        for name, p in backbone.named_parameters():
            p.requires_grad_(name in trained)
        generator = torch.Generator().manual_seed(self.seed)
        for target in dict.fromkeys(self.targets):
            for site in known[target]:
                add_low_rank(site, self.rank, self.alpha / self.rank, generator)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Fold the adapters into the weights."""
        module: FineTuner = pl_module  # type: ignore[assignment]
        merge_low_rank(module.model.backbone)
