"""Layers, head and depth of any timm or open_clip network, derived from the names of its parameters.

Parameters are in the same layer if their names agree up to the first number: ``blocks.3`` of a ViT, ``layer2.0`` of a
ResNet, ``visual.transformer.resblocks.5`` of an open_clip tower. Parameters before the first numbered layer are the
embedding, those after the last belong to the head.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from rib.errors import RibError


def layer_of(name: str) -> str:
    """Return the layer of a parameter: ``blocks.3.attn.qkv.weight`` -> ``blocks.3``, ``pos_embed`` -> itself."""
    words = name.split(".")
    number = next((i for i, word in enumerate(words) if word.isdecimal()), None)
    if number is not None:
        return ".".join(words[: number + 1])
    return ".".join(words[:-1]) or name


def head_names(backbone: nn.Module) -> set[str]:
    """Return the parameter names of the head, the last linear layer, whose outputs are the K logits.

    Raises:
        ValueError: If the network has no linear layer.
    """
    get_classifier: Any = getattr(backbone, "get_classifier", None)
    classifier = get_classifier() if get_classifier is not None else None
    modules = dict(backbone.named_modules())
    if isinstance(classifier, nn.Module):
        name = next(name for name, module in modules.items() if module is classifier)
    elif "head" in modules:  # `rib.models.zero_shot.ZeroShot`
        name = "head"
    else:
        linear = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
        if not linear:
            raise ValueError("expected a network that ends in a linear layer, found no linear layer")
        name = linear[-1]
    return {f"{name}.{key}" for key, _ in modules[name].named_parameters()}


def linear_head(backbone: nn.Module) -> nn.Linear:
    """Return the layer whose weights a probe becomes: the last one, from features (B, D) to the K logits.

    Raises:
        RibError: If the network does not end in one linear layer with a bias.
    """
    get_classifier: Any = getattr(backbone, "get_classifier", None)
    several = get_classifier is not None and isinstance(get_classifier(), tuple)
    head = backbone.get_submodule(min(head_names(backbone)).rpartition(".")[0])
    if several or not isinstance(head, nn.Linear) or head.bias is None:
        what = "several classifiers" if several else f"a {type(head).__name__} as its classifier"
        raise RibError(
            f"head=probe: expected a network that ends in one linear layer with a bias, {type(backbone).__name__} has "
            f"{what}; choose another model"
        )
    return head


def depths(names: Iterable[str], head: set[str]) -> dict[str, int]:
    """Return the depth of each parameter: 0 for the embedding, 1..L for the numbered layers, L + 1 for the head.

    Args:
        names: Names of a backbone's parameters or buffers, in the network's own order.
        head: Names from `head_names`, which count as the head wherever they come.

    Returns:
        Depth by name. Norms after the last numbered layer count as the head.
    """
    names = list(names)
    numbered = [n for n in names if n not in head and any(word.isdecimal() for word in n.split("."))]
    order = {layer: depth for depth, layer in enumerate(dict.fromkeys(map(layer_of, numbered)), start=1)}
    last = names.index(numbered[-1]) if numbered else -1
    behind = len(order) + 1
    found = {}
    for index, name in enumerate(names):
        # open_clip's output projection is a parameter of the tower itself, so it comes first though it is applied last.
        if name in head or index > last or (numbered and name.rpartition(".")[2] == "proj"):
            found[name] = behind
        else:
            found[name] = order.get(layer_of(name), 0)
    return found


def blocks(backbone: nn.Module) -> dict[str, nn.Module]:
    """Return the numbered layers (``blocks.3``, say) as modules by name, from input to output, without the head."""
    head = head_names(backbone)
    numbered = [n for n, _ in backbone.named_parameters() if n not in head and any(map(str.isdecimal, n.split(".")))]
    return {name: backbone.get_submodule(name) for name in dict.fromkeys(map(layer_of, numbered))}
