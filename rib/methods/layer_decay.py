"""Layer-wise learning-rate decay: smaller rates for earlier layers."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, ClassVar

from torch.nn import Parameter

from rib.errors import RibError
from rib.methods.base import Method, Tuned
from rib.models.layers import depths


class LayerDecay(Method):
    """Layer-wise learning-rate decay: in a network of L blocks, depth l learns at lr * decay^(L + 1 - l).

    Depth 0 is the embedding, L + 1 the head. Clark et al. 2020 (ELECTRA), arXiv 2003.10555, section 3.1; for ViTs Bao
    et al. 2021 (BEiT), arXiv 2106.08254. In a config::

        layer_decay:
          _target_: rib.methods.layer_decay.LayerDecay
          decay: 0.65

    Differs from the official code (microsoft/unilm, ``beit/optim_factory.py``): there biases, norms, tokens and
    positions have no weight decay; here it is the optimizer's, the same for all. Depths and rates are the same.
    ELECTRA's code (google-research/electra, ``model/optimization.py``) is off by one: its head is at depth L + 2, its
    last block learns at decay^2.

    Depths go by names and not by timm's ``param_groups_layer_decay``, which does not know open_clip's towers. Costs
    nothing. Does not stack with `surgical`, which sets the same rates, or `visual_prompt`, which has no layers. In
    rib's commands only.

    Args:
        decay: Above 0 to 1; 1 is plain fine-tuning bit for bit.

    Raises:
        RibError: For a value outside this range.
    """

    name: ClassVar[str] = "layer_decay"

    def __init__(self, decay: float = 0.65) -> None:
        if not 0 < decay <= 1:
            raise RibError(f"method.layer_decay.decay: expected a number above 0 and up to 1, got {decay}")
        self.decay = decay

    def parameter_groups(self, module: Tuned) -> list[dict[str, Any]]:
        """Return one optimizer parameter group for each depth of the network, with its own learning rate."""
        backbone = module.backbone
        trained = {name: p for name, p in backbone.named_parameters() if p.requires_grad}
        depth = depths([name for name, _ in backbone.named_parameters()], module.head)
        groups: defaultdict[int, list[Parameter]] = defaultdict(list)
        for name, p in trained.items():
            groups[depth[name]].append(p)
        top = max(depth.values())
        return [{"params": groups[d], "lr": module.lr * self.decay ** (top - d)} for d in sorted(groups)]
