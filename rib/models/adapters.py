"""Parts that train beside a network or in front of it, and the names of what they leave alone.

Plain torch: `LowRank` is a parametrization (`torch.nn.utils.parametrize`), which makes the network's own weight
attribute base plus update and folds it away without a trace; `BorderPrompt` changes images.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from rib.models.layers import blocks, head_names

PROMPT = "visual_prompt"
"""The key of a prompt beside a network's own weights."""

TOKENS = ("cls_token", "dist_token", "reg_token", "pos_embed", "class_embedding", "positional_embedding")
"""What timm and open_clip call learned tokens and positions."""


def token_names(backbone: nn.Module) -> set[str]:
    """Names of the parameters that are learned tokens or positions; none in a ConvNet."""
    return {name for name, _ in backbone.named_parameters() if name.rpartition(".")[2] in TOKENS}


def outer_norm_names(backbone: nn.Module) -> set[str]:
    """Names of the parameters of LayerNorms before and behind the numbered layers (timm's ``norm``, ``fc_norm``)."""
    numbered = tuple(f"{name}." for name in blocks(backbone))
    norms = {name: m for name, m in backbone.named_modules() if isinstance(m, nn.LayerNorm)}
    return {
        f"{name}.{key}"
        for name, module in norms.items()
        if not f"{name}.".startswith(numbered)
        for key, _ in module.named_parameters()
    }


@dataclass(frozen=True)
class Site:
    """Rows of a weight that a low-rank update may be added to.

    Attributes:
        module: Whose weight it is.
        weight: Its name there.
        start: The first row.
        stop: One past the last row.
    """

    module: nn.Module
    weight: str
    start: int
    stop: int


def sites(backbone: nn.Module) -> dict[str, list[Site]]:
    """Where low-rank updates can go, from input to output, by target.

    ``q``, ``k``, ``v``: thirds of timm's fused ``attn.qkv`` and of `nn.MultiheadAttention`'s ``in_proj_weight``.
    ``proj``, ``mlp``: the projection behind attention, the layers of a block's MLP. ``conv1x1``: 1x1 convolutions in
    one group. ``linear``: linear layers, but not the head.
    """
    found: dict[str, list[Site]] = defaultdict(list)
    head = head_names(backbone)
    for name, module in backbone.named_modules():
        last = ".".join(name.split(".")[-2:])
        if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
            _thirds(found, module, "in_proj_weight", module.in_proj_weight)
        elif isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1:
            found["conv1x1"].append(Site(module, "weight", 0, module.out_channels))
        elif isinstance(module, nn.Linear) and f"{name}.weight" not in head:
            whole = Site(module, "weight", 0, module.out_features)
            found["linear"].append(whole)
            if last.endswith("qkv"):
                _thirds(found, module, "weight", module.weight)
            elif last in ("attn.proj", "attn.out_proj"):
                found["proj"].append(whole)
            elif last in ("mlp.fc1", "mlp.fc2", "mlp.c_fc", "mlp.c_proj"):
                found["mlp"].append(whole)
    return dict(found)


def _thirds(found: dict[str, list[Site]], module: nn.Module, name: str, weight: Tensor) -> None:
    third = len(weight) // 3
    for place, target in enumerate("qkv"):
        found[target].append(Site(module, name, place * third, (place + 1) * third))


class LowRank(nn.Module):
    """W + scale * B A on some rows of a weight, which is W itself at first: B is zero.

    Hu et al. 2021, arXiv 2106.09685, eq. 3. A is uniform in +-1/sqrt(inputs), as in the paper's code. A convolution's
    weight counts as (outputs, inputs).

    Args:
        site: The rows of W.
        rank: r, the inner size of B A.
        scale: alpha / rank.
        generator: Draws A, on the CPU.
    """

    def __init__(self, site: Site, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        weight: Tensor = getattr(site.module, site.weight)
        self.around = (0, 0, site.start, len(weight) - site.stop)
        self.scale = scale
        a = torch.empty(rank, weight[0].numel())
        nn.init.kaiming_uniform_(a, a=math.sqrt(5), generator=generator)
        self.a = nn.Parameter(a.to(weight))
        self.b = nn.Parameter(torch.zeros(site.stop - site.start, rank).to(weight))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with its update, of the same shape."""
        return weight + F.pad(self.scale * (self.b @ self.a), self.around).view_as(weight)


def add_low_rank(site: Site, rank: int, scale: float, generator: torch.Generator) -> None:
    """Put a trainable update on some rows of a weight; several may lie on the same weight."""
    parametrize.register_parametrization(site.module, site.weight, LowRank(site, rank, scale, generator))


def merge_low_rank(network: nn.Module) -> None:
    """Fold every update into its weight: names, order and shapes are again those of the plain network."""
    for module in list(network.modules()):
        if not parametrize.is_parametrized(module):
            continue
        for name in list(module.parametrizations):  # type: ignore[arg-type]
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)
            # It comes back behind its siblings; the order of names is what `rib.models.layers.depths` goes by.
            for other in [key for key, _ in module.named_parameters(recurse=False) if key != name]:
                parameter = getattr(module, other)
                delattr(module, other)
                module.register_parameter(other, parameter)


def plain_weights(network: nn.Module) -> dict[str, Tensor]:
    """A network's weights under the names of the plain network, with every update folded in and the network as it is.

    Order is not kept.
    """
    state: dict[str, Tensor] = {n: t for n, t in network.state_dict().items() if ".parametrizations." not in f".{n}"}
    for name, module in network.named_modules():
        if parametrize.is_parametrized(module):
            for weight in module.parametrizations:
                state[f"{name}.{weight}"] = getattr(module, weight).detach()
    return state


class BorderPrompt(nn.Module):
    """A trainable frame of pixels, added to normalised images; inside it nothing changes.

    Bahng et al. 2022, "Exploring Visual Prompts for Adapting Large-Scale Models", arXiv 2203.17274, section 3.

    Args:
        frame: What is added at first, shape (3, S, S); only its border counts.
        border: Width of the border, pixels.
    """

    mask: Tensor

    def __init__(self, frame: Tensor, border: int) -> None:
        super().__init__()
        inside = slice(border, frame.shape[-1] - border)
        mask = torch.ones_like(frame, dtype=torch.bool)
        mask[:, inside, inside] = False
        self.frame = nn.Parameter(frame * mask)
        self.register_buffer("mask", mask, persistent=False)

    @classmethod
    def of(cls, picture: Tensor) -> BorderPrompt:
        """The prompt that adds a given picture, shape (3, S, S), zeros inside its border."""
        side = picture.shape[-1]
        widths = range(side // 2 + 1)
        border = next(b for b in widths if b * 2 >= side or not picture[:, b : side - b, b : side - b].any())
        return cls(picture, border)

    @property
    def picture(self) -> Tensor:
        """What is added, shape (3, S, S)."""
        return self.frame * self.mask

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) with the frame on them."""
        return images + self.picture
