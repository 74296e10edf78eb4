"""A network's parts by name, whatever library it is from: its head, and its layers from input to output.

A layer is what shares a name up to its first number: ``blocks.3`` of a ViT, ``layer2.0`` of a ResNet,
``visual.transformer.resblocks.5`` of an open_clip tower. What comes before the first numbered layer is the embedding,
what comes after the last belongs to the head.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn


def layer_of(name: str) -> str:
    """The layer that a parameter belongs to: ``blocks.3.attn.qkv.weight`` -> ``blocks.3``, ``pos_embed`` as it is."""
    parts = name.split(".")
    number = next((i for i, part in enumerate(parts) if part.isdecimal()), None)
    if number is not None:
        return ".".join(parts[: number + 1])
    return ".".join(parts[:-1]) or name


def head_names(backbone: nn.Module) -> set[str]:
    """Names of the parameters of the last linear layer, which turns features into the K outputs.

    Raises:
        ValueError: If there is no linear layer.
    """
    ask: Any = getattr(backbone, "get_classifier", None)
    classifier = ask() if ask is not None else None
    modules = dict(backbone.named_modules())
    if isinstance(classifier, nn.Module):
        name = next(name for name, module in modules.items() if module is classifier)
    elif "head" in modules:
        name = "head"
    else:
        linear = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
        if not linear:
            raise ValueError("expected a network with a linear layer at its end, found none")
        name = linear[-1]
    return {f"{name}.{key}" for key, _ in modules[name].named_parameters()}


def depths(names: Iterable[str], head: set[str]) -> dict[str, int]:
    """How deep each parameter lies: 0 for the embedding, 1..L for the numbered layers, L + 1 for the head.

    Args:
        names: Of a backbone's parameters or buffers, in the network's own order.
        head: From `head_names`; they count as the head whatever their name.

    Returns:
        The depth by name. Norms and the like behind the last numbered layer belong to the head.
    """
    names = list(names)
    numbered = [n for n in names if n not in head and any(part.isdecimal() for part in n.split("."))]
    order = {layer: depth for depth, layer in enumerate(dict.fromkeys(map(layer_of, numbered)), start=1)}
    last = names.index(numbered[-1]) if numbered else -1
    behind = len(order) + 1
    found = {}
    for place, name in enumerate(names):
        # open_clip's output projection is a parameter of the tower itself, and so comes first by name.
        if name in head or place > last or (numbered and name.rpartition(".")[2] == "proj"):
            found[name] = behind
        else:
            found[name] = order.get(layer_of(name), 0)
    return found


def blocks(backbone: nn.Module) -> dict[str, nn.Module]:
    """The numbered layers as modules, from input to output, without the head; for features taken on the way."""
    head = head_names(backbone)
    numbered = [n for n, _ in backbone.named_parameters() if n not in head and any(map(str.isdecimal, n.split(".")))]
    return {name: backbone.get_submodule(name) for name in dict.fromkeys(map(layer_of, numbered))}
