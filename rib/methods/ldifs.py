"""LDIFS: keep the features on the way, not the weights."""

from __future__ import annotations

import copy
from typing import Any, Literal

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from rib.errors import RibError
from rib.methods.base import Method, Step
from rib.methods.l2sp import non_negative
from rib.models.layers import blocks, depths, head_names
from rib.training.module import FineTuner

GROUPS = 4
"""Groups of blocks whose ends are taken, beside what enters the first, as in the authors' code."""
EPS = 1e-10
"""Added to norms, as in the authors' code."""


class LDIFS(Method):
    """L(theta) = L_task(theta) + strength * mean_x mean_l 1/(N C) sum_nc (u_lnc(x) - u0_lnc(x))^2.

    f_l, N positions times C channels, are the features at five places: what enters the first block, and what leaves a
    quarter, a half, three quarters and all of the blocks. u_lnc = f_lnc / (sqrt(sum_n f_lnc^2) + 1e-10): each channel
    is a unit vector over positions (tokens, or the pixels of a feature map). Mukhoti et al., "Fine-tuning can cripple
    your foundation model; preserving features may be the solution", TMLR 2024, arXiv 2308.13320, eq. 4 and 5.
    In a config::

        ldifs:
          _target_: rib.methods.ldifs.LDIFS
          strength: 10.0
          scaling: official

    Differs from the official code (omegafragger/ldifs_code, ``loss/ldifs.py``, ``model/modeling.py``): not for the
    ViT-B of CLIP, the one network it knows, whose places are ``ln_pre`` and blocks 3, 6, 9 and 12. Its weight is 10 by
    default, its start model the pretrained one, and AdamW and gradients clipped at 1 belong to its recipe, not to this
    method.

    ``scaling=flattened`` is what eq. 4 says to the letter, mean_l || f_l/||f_l|| - f0_l/||f0_l|| ||^2 over every block,
    the features of an image being one vector: 50 to 200 times as strong at the same ``strength``.

    Costs a forward of the start model a step, a copy of its weights, and those features of one batch. It stacks
    with any method that trains; with `linear_probe` nothing is left for it to hold.

    Args:
        strength: 0 or more; 0 is plain fine-tuning bit for bit. Theirs is 10, in units of ``scaling=official``.
        scaling: ``official`` or ``flattened``.

    Raises:
        RibError: If the strength is negative or no finite number, for another scaling, or for a network without
            numbered blocks.
    """

    def __init__(self, strength: float = 10.0, scaling: Literal["official", "flattened"] = "official") -> None:
        self.strength = non_negative("ldifs", strength)
        if scaling not in ("official", "flattened"):
            raise RibError(f"method.ldifs.scaling: expected official or flattened, got {scaling!r}")
        self.scaling = scaling
        self._handles: list[RemovableHandle] = []
        self._teacher: nn.Module | None = None
        self._channels_last = False
        self._now: dict[str, Tensor] = {}
        self._before: dict[str, Tensor] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Keep the start model, and listen to the blocks of both."""
        if stage != "fit":
            return
        assert isinstance(pl_module, FineTuner)
        backbone = pl_module.model.backbone
        if not blocks(backbone):
            raise RibError("method.ldifs: expected a network with numbered blocks, whose features are kept, got none")
        # timm's name for how feature maps leave a network: Swin's are (B, H, W, C).
        self._channels_last = any(getattr(m, "output_fmt", None) == "NHWC" for m in backbone.modules())
        teacher = copy.deepcopy(pl_module.model).to(trainer.strategy.root_device).eval().requires_grad_(False)
        self._teacher = teacher
        self._handles += self._listen(backbone, self._now) + self._listen(teacher.backbone, self._before)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Forget what passed through the model since."""
        self._now.clear()

    def penalty(self, module: FineTuner, step: Step) -> Tensor:
        """The distance of features, a scalar in nats, in float32."""
        assert self._teacher is not None, "setup keeps the start model"
        now = dict(self._now)
        with torch.no_grad():
            self._teacher(step.images)
        layers = [self._distance(now[name], self._before[name]) for name in now]
        self._now.clear()
        self._before.clear()
        return self.strength * torch.stack(layers).mean()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Remove the hooks and let the start model go."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._teacher = [], None

    def _listen(self, backbone: nn.Module, kept: dict[str, Tensor]) -> list[RemovableHandle]:
        """Keep the features of a network as they pass."""
        found = blocks(backbone)
        names = list(found)
        if self.scaling == "flattened":
            return [found[name].register_forward_hook(_keeper(kept, name)) for name in names]
        ends = sorted({-(-len(names) * group // GROUPS) for group in range(1, GROUPS + 1)})
        handles = [found[names[end - 1]].register_forward_hook(_keeper(kept, names[end - 1])) for end in ends]
        if 0 in depths([name for name, _ in backbone.named_parameters()], head_names(backbone)).values():
            keep = _keeper(kept, "embedding")
            handles.append(found[names[0]].register_forward_pre_hook(lambda module, inputs: keep(module, (), inputs)))
        return handles

    def _distance(self, now: Tensor, before: Tensor) -> Tensor:
        """Of the features of a batch, a scalar."""
        if self.scaling == "flattened":
            return (_unit(now) - _unit(before)).square().sum(dim=1).mean()
        units = [_unit_channels(features, self._channels_last) for features in (now, before)]
        return (units[0] - units[1]).square().mean()


def _keeper(kept: dict[str, Tensor], name: str) -> Any:
    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        # The batch comes first; what other methods of the stack show the model later is not asked about.
        kept.setdefault(name, output[0] if isinstance(output, tuple) else output)

    return keep


def _unit(features: Tensor) -> Tensor:
    """Features of each image, (B, D), on the unit sphere."""
    return F.normalize(features.float().flatten(1), dim=1)


def _unit_channels(features: Tensor, channels_last: bool) -> Tensor:
    """Each channel of each image a unit vector over positions: tokens of (B, N, C), pixels of a map, D of (B, D)."""
    positions = (1,) if features.ndim < 4 else (1, 2) if channels_last else (2, 3)
    features = features.float()
    unit: Tensor = features / (torch.linalg.vector_norm(features, dim=positions, keepdim=True) + EPS)
    return unit
