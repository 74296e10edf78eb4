"""LoRA: train low-rank updates of the weights, and fold them into the weights at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch.nn.utils import parametrize

from rib.errors import RibError
from rib.methods.base import Method, Tuned
from rib.models.adapters import add_low_rank, merge_low_rank, outer_norm_names, sites, token_names
from rib.models.layers import head_names

BESIDE = {"head": head_names, "tokens": token_names, "norms": outer_norm_names}


class LoRA(Method):
    """Low-rank adaptation: train W = W0 + alpha/rank * B A with W0 frozen and B = 0 at first.

    At the end of the fit B A is folded in, and W is a plain weight again. Hu et al. 2021, "LoRA: Low-Rank Adaptation of
    Large Language Models", eq. 3, arXiv 2106.09685.

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

    Differs from the official code (microsoft/LoRA, ``loralib/layers.py``): there a new task's head trains too (here
    with ``train=[head]``), and dropout before A is an option. A and B, their initial values and scale are the same.

    In your own Trainer ``configure_optimizers`` must take ``self.parameters()`` when Lightning calls it, so that A and
    B are among them. Checkpoints in between hold W0, A and B; final.ckpt holds plain weights.

    Cost: that of fine-tuning in time (weights are composed anew at each forward pass), less memory: gradients and
    optimizer state of the adapters only. BatchNorm's statistics change unless ``batch_norm=frozen``. Does not stack
    with linear_probe, visual_prompt or freeze_embed, nor with ewc, l2sp, spd or ftp, which would hold A and B near
    their start.

    Args:
        rank: r of the update of each target in each block, 1 or more.
        alpha: The update's factor is alpha/rank; above 0.
        targets: Layers with adapters: ``q``, ``k``, ``v``, ``proj`` (behind attention), ``mlp`` in a ViT; ``conv1x1``,
            ``linear`` (all but the head) in a ConvNet.
        train: Other parts that train: ``head``, ``tokens`` (and positions), ``norms`` (LayerNorms outside the blocks,
            as in the ImageNet-RIB authors' code).
        seed: Seed of A's random values.

    Raises:
        RibError: For a wrong rank or alpha, for a target that the model does not have (with those that it has), for a
            network with parametrizations of its own, or for an optimizer that does not train A and B.
    """

    order: ClassVar[int] = 0
    changes_end: ClassVar[bool] = True

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

    def prepare(self, module: Tuned) -> None:
        """Freeze the network and add the low-rank adapters to it; a checkpoint restored later contains them too."""
        backbone = module.backbone
        if any(parametrize.is_parametrized(child) for child in backbone.modules()):
            raise RibError("method.lora: expected a network without parametrizations of its own, got one with some")
        known = sites(backbone)
        if absent := [target for target in self.targets if target not in known]:
            raise RibError(
                f"method.lora.targets: this model has no {absent[0]}; targets that it has: {', '.join(known) or 'none'}"
            )
        trained = {name for kind in self.train for name in BESIDE[kind](backbone)}
        for name, p in backbone.named_parameters():
            p.requires_grad_(name in trained)
        generator = torch.Generator().manual_seed(self.seed)
        for target in dict.fromkeys(self.targets):
            for site in known[target]:
                add_low_rank(site, self.rank, self.alpha / self.rank, generator)

    def begin(self, module: Tuned) -> None:
        """Check that the optimizer trains the adapters."""
        held = {id(p) for group in module.trainer.optimizers[0].param_groups for p in group["params"]}
        if any(id(p) not in held for p in module.backbone.parameters() if p.requires_grad):
            raise RibError(
                "lora: expected an optimizer of all parameters that train, got one without A and B; give it "
                "self.parameters() in configure_optimizers"
            )

    def finish(self, module: Tuned) -> None:
        """Fold the adapters into the weights."""
        merge_low_rank(module.backbone)
