"""Layer-wise learning-rate decay: early layers learn slowly."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from torch.nn import Parameter

from rib.errors import RibError
from rib.methods.base import Method
from rib.models.layers import depths, head_names
from rib.training.module import FineTuner


class LayerDecay(Method):
    """The learning rate at depth l of L blocks is lr * decay^(L + 1 - l); 0 is the embedding, L + 1 the head.

    Clark et al. 2020 (ELECTRA), arXiv 2003.10555, section 3.1; for ViTs Bao et al. 2021 (BEiT), arXiv 2106.08254.
    In a config::

        layer_decay:
          _target_: rib.methods.layer_decay.LayerDecay
          decay: 0.65

    Differs from the official code (microsoft/unilm, ``beit/optim_factory.py``): not in depths and rates. There biases,
    norms, tokens and positions have no weight decay; here it is the optimizer's, the same for all. ELECTRA's code
    (google-research/electra, ``model/optimization.py``) lies one off: its head is at depth L + 2, its last block learns
    at decay^2.

    Not by timm's ``param_groups_layer_decay``, which knows timm's networks alone: depths here go by names, those of
    open_clip's towers too. Costs nothing. Not with `surgical`, which sets the same rates, or `visual_prompt`, which has
    no layers.

    Args:
        decay: Above 0 to 1; 1 is plain fine-tuning bit for bit.

    Raises:
        RibError: For a value outside.
    """

    def __init__(self, decay: float = 0.65) -> None:
        if not 0 < decay <= 1:
            raise RibError(f"method.layer_decay.decay: expected a number above 0 and up to 1, got {decay}")
        self.decay = decay

    @property
    def name(self) -> str:
        """As in configs."""
        return "layer_decay"

    def parameter_groups(self, module: FineTuner) -> list[dict[str, Any]]:
        """One group a depth."""
        backbone = module.model.backbone
        trained = {name: p for name, p in backbone.named_parameters() if p.requires_grad}
        depth = depths([name for name, _ in backbone.named_parameters()], head_names(backbone))
        groups: defaultdict[int, list[Parameter]] = defaultdict(list)
        for name, p in trained.items():
            groups[depth[name]].append(p)
        top = max(depth.values())
        return [{"params": groups[d], "lr": module.lr * self.decay ** (top - d)} for d in sorted(groups)]
