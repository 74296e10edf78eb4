"""LDIFS: a penalty that keeps the features inside the network near those of the start model."""

from __future__ import annotations

import copy
from typing import Any, Literal

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from rib.errors import RibError
from rib.methods.base import Method, Step, Tuned
from rib.methods.l2sp import check_strength
from rib.models.layers import blocks, depths, head_names

GROUPS = 4
"""Groups of blocks whose ends are compared, beside the input of the first, as in the authors' code."""
EPS = 1e-10
"""Added to norms, as in the authors' code."""


class LDIFS(Method):
    """Feature penalty: L(theta) = L_task(theta) + strength * mean_x mean_l 1/(N C) sum_nc (u_lnc(x) - u0_lnc(x))^2.

    f_l, N positions times C channels, are the features at five places: before the first block, and after a quarter, a
    half, three quarters and all of the blocks. u_lnc = f_lnc / (sqrt(sum_n f_lnc^2) + 1e-10): each channel is a unit
    vector over positions (tokens, or the pixels of a feature map). Mukhoti et al., "Fine-tuning can cripple your
    foundation model; preserving features may be the solution", TMLR 2024, arXiv 2308.13320, eq. 4 and 5. In a config::

        ldifs:
          _target_: rib.methods.ldifs.LDIFS
          strength: 10.0
          scaling: official

    Differs from the official code (omegafragger/ldifs_code, ``loss/ldifs.py``, ``model/modeling.py``) in that it takes
    any network; for the ViT-B of CLIP, the only one there, it is the same: the places are ``ln_pre`` and blocks 3, 6, 9
    and 12, the default weight is 10. AdamW and gradients clipped at 1 belong to the authors' recipe, not to the method.

    ``scaling=flattened`` is eq. 4 to the letter, mean_l || f_l/||f_l|| - f0_l/||f0_l|| ||^2 over every block, the
    features of an image being one vector: 50 to 200 times as strong at the same ``strength``.

    Costs one forward pass of the pretrained model per step, a copy of its weights, and those features of one batch. It
    stacks with any method that trains; with `linear_probe`, whose features cannot change, it has no effect.

    Args:
        strength: 0 or more; 0 is plain fine-tuning bit for bit. The authors' value for ``scaling=official`` is 10.
        scaling: ``official`` or ``flattened``.

    Raises:
        RibError: If the strength is negative or not finite, for another scaling, or for a network without
            numbered blocks.
    """

    def __init__(self, strength: float = 10.0, scaling: Literal["official", "flattened"] = "official") -> None:
        self.strength = check_strength("ldifs", strength)
        if scaling not in ("official", "flattened"):
            raise RibError(f"method.ldifs.scaling: expected official or flattened, got {scaling!r}")
        self.scaling = scaling
        self._handles: list[RemovableHandle] = []
        self._teacher: nn.Module | None = None
        self._channels_last = False
        self._now: dict[str, Tensor] = {}
        self._before: dict[str, Tensor] = {}

    def prepare(self, module: Tuned) -> None:
        """Keep a frozen copy of the start model, and hook the blocks of both."""
        backbone = module.backbone
        if not _has_blocks(backbone):
            raise RibError("method.ldifs: expected a network with numbered blocks, whose features are kept, got none")
        # timm's name for how feature maps leave a network: Swin's are (B, H, W, C).
        self._channels_last = any(getattr(m, "output_fmt", None) == "NHWC" for m in backbone.modules())
        device = module.trainer.strategy.root_device
        teacher = copy.deepcopy(module.model).to(device).eval().requires_grad_(False)
        self._teacher = teacher
        where = next(name for name, child in module.model.named_modules() if child is backbone)
        self._handles += self._hook(backbone, self._now) + self._hook(teacher.get_submodule(where), self._before)

    def before_batch(self, module: Tuned) -> None:
        """Drop features left over from forward passes outside training, such as validation."""
        self._now.clear()

    def penalty(self, module: Tuned, step: Step) -> Tensor:
        """Return strength times the distance of features from the start model's, a scalar in nats, in float32.

        Raises:
            RibError: If no images have passed through the blocks in this step.
        """
        assert self._teacher is not None, "prepare keeps the start model"
        if not self._now:
            raise RibError(
                "ldifs: expected outputs computed by self(images) in this step, but no block of the network was used"
            )
        now = dict(self._now)
        with torch.no_grad():
            self._teacher(step.images)
        layers = [self._distance(now[name], self._before[name]) for name in now]
        self._now.clear()
        self._before.clear()
        return self.strength * torch.stack(layers).mean()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Remove the hooks and drop the start model."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._teacher = [], None

    def _hook(self, backbone: nn.Module, kept: dict[str, Tensor]) -> list[RemovableHandle]:
        """Add forward hooks that store the features of a network's blocks in ``kept``, by block name."""
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
        """Compute the mean squared distance between the trained and the start model's features after one block."""
        if self.scaling == "flattened":
            return (_unit(now) - _unit(before)).square().sum(dim=1).mean()
        units = [_unit_channels(features, self._channels_last) for features in (now, before)]
        return (units[0] - units[1]).square().mean()


def _has_blocks(backbone: nn.Module) -> bool:
    try:
        return bool(blocks(backbone))
    except ValueError:  # no linear layer
        return False


def _keeper(kept: dict[str, Tensor], name: str) -> Any:
    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        # The batch comes first; images that other methods of the stack pass through the model later do not count.
        kept.setdefault(name, output[0] if isinstance(output, tuple) else output)

    return keep


def _unit(features: Tensor) -> Tensor:
    """Flatten the features of each image to (B, D) and normalise them to length 1."""
    return F.normalize(features.float().flatten(1), dim=1)


def _unit_channels(features: Tensor, channels_last: bool) -> Tensor:
    """Scale each channel of each image to length 1 over its positions: tokens, pixels, or the entries of a vector."""
    positions = (1,) if features.ndim < 4 else (1, 2) if channels_last else (2, 3)
    features = features.float()
    unit: Tensor = features / (torch.linalg.vector_norm(features, dim=positions, keepdim=True) + EPS)
    return unit
