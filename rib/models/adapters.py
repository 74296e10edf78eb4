"""Modules for parameter-efficient fine-tuning: low-rank updates of weights (LoRA), and a visual prompt.

`LowRank` is a `torch.nn.utils.parametrize` parametrization, so a weight attribute reads as base plus update and can be
merged without leaving a trace in the network. `BorderPrompt` adds a frame to images. Other functions
return the names of the tokens and norms that such methods may train in addition.
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
"""Key of a visual prompt among a model's stored weights."""

TOKENS = ("cls_token", "dist_token", "reg_token", "pos_embed", "class_embedding", "positional_embedding")
"""Last parts of the parameter names of learned tokens and positions in timm and open_clip."""


def token_names(backbone: nn.Module) -> set[str]:
    """Return the names of the parameters that are learned tokens or positions; empty for a ConvNet."""
    return {name for name, _ in backbone.named_parameters() if name.rpartition(".")[2] in TOKENS}


def outer_norm_names(backbone: nn.Module) -> set[str]:
    """Return the names of the LayerNorm parameters outside a network's blocks (timm's ``norm``, ``fc_norm``)."""
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
    """Range of rows of a weight to which a low-rank update can be added.

    Attributes:
        module: Module that owns the weight.
        weight: Name of the weight in the module.
        start: First row.
        stop: One past the last row.
    """

    module: nn.Module
    weight: str
    start: int
    stop: int


def sites(backbone: nn.Module) -> dict[str, list[Site]]:
    """Return the weights of a network that can get low-rank updates, by kind of layer, from input to output.

    Args:
        backbone: timm or open_clip network.

    Returns:
        Sites by kind. ``q``, ``k``, ``v``: thirds of timm's fused ``attn.qkv`` and of `nn.MultiheadAttention`'s
        ``in_proj_weight``. ``proj``, ``mlp``: the projection after attention, and the layers of a block's MLP.
        ``conv1x1``: 1x1 convolutions without groups. ``linear``: all linear layers except the head.
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
    for index, target in enumerate("qkv"):
        found[target].append(Site(module, name, index * third, (index + 1) * third))


class LowRank(nn.Module):
    """Parametrization that adds the low-rank update ``scale * B A`` to some rows of a weight W.

    Hu et al. 2021, "LoRA", eq. 3, arXiv 2106.09685. Initially B is 0, and A is uniform in +-1/sqrt(inputs), as in the
    paper's code. The weight of a 1x1 convolution is treated as a matrix (outputs, inputs).

    Args:
        site: The rows of W.
        rank: r, the rank of the update.
        scale: alpha / rank.
        generator: CPU generator for A.
    """

    def __init__(self, site: Site, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        weight: Tensor = getattr(site.module, site.weight)
        self.padding = (0, 0, site.start, len(weight) - site.stop)
        self.scale = scale
        a = torch.empty(rank, weight[0].numel())
        nn.init.kaiming_uniform_(a, a=math.sqrt(5), generator=generator)
        self.a = nn.Parameter(a.to(weight))
        self.b = nn.Parameter(torch.zeros(site.stop - site.start, rank).to(weight))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight with its update, same shape."""
        return weight + F.pad(self.scale * (self.b @ self.a), self.padding).view_as(weight)


def add_low_rank(site: Site, rank: int, scale: float, generator: torch.Generator) -> None:
    """Add a trainable low-rank update to some rows of a weight; one weight may have several updates.

    Args:
        site: The rows.
        rank: Rank of the update.
        scale: Factor of the update, alpha / rank.
        generator: CPU generator for the initial values.
    """
    parametrize.register_parametrization(site.module, site.weight, LowRank(site, rank, scale, generator))


def merge_low_rank(network: nn.Module) -> None:
    """Merge all low-rank updates into their weights, in place.

    Names, order and shapes of the parameters are then those of the network before `add_low_rank`.
    """
    for module in list(network.modules()):
        if not parametrize.is_parametrized(module):
            continue
        for name in list(module.parametrizations):  # type: ignore[arg-type]
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)
            # torch puts the merged weight after the module's other parameters, but `rib.models.layers.depths` relies on
            # the order of names: move the others behind it again.
            for other in [key for key, _ in module.named_parameters(recurse=False) if key != name]:
                parameter = getattr(module, other)
                delattr(module, other)
                module.register_parameter(other, parameter)


def plain_weights(network: nn.Module) -> dict[str, Tensor]:
    """Return a network's weights with all low-rank updates merged, under their names before `add_low_rank`.

    The network itself is not changed.
    """
    state: dict[str, Tensor] = {n: t for n, t in network.state_dict().items() if ".parametrizations." not in f".{n}"}
    for name, module in network.named_modules():
        if parametrize.is_parametrized(module):
            for weight in module.parametrizations:
                state[f"{name}.{weight}"] = getattr(module, weight).detach()
    return state


class BorderPrompt(nn.Module):
    """Trainable frame of pixels that is added to the border of normalised images.

    Bahng et al. 2022, "Exploring Visual Prompts for Adapting Large-Scale Models", section 3, arXiv 2203.17274.

    Args:
        frame: Initial values, shape (3, S, S); those inside the border are ignored.
        border: Width of the border, pixels.
    """

    mask: Tensor

    def __init__(self, frame: Tensor, border: int) -> None:
        super().__init__()
        inside = slice(border, frame.shape[-1] - border)
        mask = torch.ones_like(frame, dtype=torch.bool)
        mask[:, inside, inside] = False
        self.frame = nn.Parameter(frame * mask)
        self.register_buffer("mask", mask, persistent=False)  # follows from the picture, which is stored

    @classmethod
    def of(cls, picture: Tensor) -> BorderPrompt:
        """Create a prompt from its frame, a picture (3, S, S) that is zero inside; the border's width is measured."""
        side = picture.shape[-1]
        widths = range(side // 2 + 1)
        border = next(b for b in widths if b * 2 >= side or not picture[:, b : side - b, b : side - b].any())
        return cls(picture, border)

    @property
    def picture(self) -> Tensor:
        """Picture that is added to images, shape (3, S, S), zero inside the border."""
        return self.frame * self.mask

    def forward(self, images: Tensor) -> Tensor:
        """Return normalised images (B, 3, S, S) with the frame added."""
        return images + self.picture
