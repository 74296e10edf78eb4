"""Intermediate features of a network by layer: sub-layers of each block in a ViT, blocks and stages elsewhere.

A block is a numbered module with several children. If all blocks are in one list, the network is a plain ViT (timm's,
mini's, open_clip's towers), and its layers are each block's projection after attention, the two linear layers of its
MLP, and the block's output. If they are in several lists, the lists are stages, and the layers are the outputs of
blocks and stages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from rib.errors import RibError
from rib.models.layers import blocks, head_names

PARTS = ("attn.proj", "attn.out_proj", "mlp.fc1", "mlp.c_fc", "mlp.fc2", "mlp.c_proj")
"""Sub-layers of a ViT's block that have features, under timm's and open_clip's names, from input to output."""

TOKENS = ("cls", "mean", "all")
"""Choices for `pool_tokens`."""


def feature_layers(backbone: nn.Module) -> dict[str, nn.Module]:
    """Return the modules whose outputs are a network's intermediate features, by name, from input to output.

    Raises:
        ValueError: If the network has no linear layer.
    """
    modules = dict(backbone.named_modules())
    numbered = [name for name, module in modules.items() if _last(name).isdecimal() and _count_children(module) > 1]
    # A numbered module that contains others is a stage; the innermost ones are the blocks.
    inner = [n for n in numbered if not any(other.startswith(f"{n}.") for other in numbered)]
    if not inner:
        return blocks(backbone)
    lists = list(dict.fromkeys(_parent(name) for name in inner))
    found: dict[str, nn.Module] = {}
    for parent in lists:
        for name in (n for n in inner if _parent(n) == parent):
            if len(lists) == 1 and f"{name}.attn" in modules:
                found |= _sub_layers(modules, name)
            found[name] = modules[name]
        if len(lists) > 1:
            stage = _parent(parent) if _last(_parent(parent)).isdecimal() else parent
            found[stage] = modules[stage]
    return found


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _count_children(module: nn.Module) -> int:
    """Return the number of direct child modules that have parameters."""
    return sum(next(child.parameters(), None) is not None for child in module.children())


def _sub_layers(modules: Mapping[str, nn.Module], block: str) -> dict[str, nn.Module]:
    """Return the sub-layers of a ViT's block that are in `PARTS`, by name."""
    found = {f"{block}.{part}": modules[f"{block}.{part}"] for part in PARTS if f"{block}.{part}" in modules}
    attention = modules[f"{block}.attn"]
    if isinstance(attention, nn.MultiheadAttention):
        # torch's attention uses the weights of out_proj without calling the module, so a hook on out_proj would never
        # fire; the output of the attention is the output of the projection.
        found[f"{block}.attn.out_proj"] = attention
    return found


def class_tokens(backbone: nn.Module) -> int:
    """Return the number of tokens before the patch tokens; 0 for a network without a class token."""
    tower: Any = getattr(backbone, "visual", backbone)
    if getattr(tower, "cls_token", None) is not None:
        return int(getattr(tower, "num_prefix_tokens", 1))
    return int(getattr(tower, "class_embedding", None) is not None)


def readout(backbone: nn.Module) -> str:
    """Return how a network computes its head's input: ``cls`` (class token) or ``mean`` (average over positions)."""
    tower: Any = getattr(backbone, "visual", backbone)
    pool = getattr(tower, "global_pool", None) or getattr(tower, "pool_type", None)
    return "cls" if class_tokens(backbone) and pool in ("token", "tok") else "mean"


def pool_tokens(output: Tensor, tokens: str, prefix: int = 0, channels_last: bool = False) -> Tensor:
    """Reduce a layer's output to one feature vector per image.

    Args:
        output: Tokens (B, T, D), a map (B, C, H, W), or features (B, D).
        tokens: ``cls``: the first token; ``mean``: the mean over patch tokens or positions; ``all``: all values.
        prefix: Number of tokens before the patch tokens.
        channels_last: True if maps are (B, H, W, C).

    Returns:
        Features, shape (B, D).

    Raises:
        RibError: If the class token is asked for and the network has none.
    """
    if tokens == "all" or output.ndim == 2:
        return output.flatten(1)
    if tokens == "cls":
        if output.ndim != 3 or not prefix:
            raise RibError("tokens=cls: this model has no class token; expected tokens=mean or tokens=all")
        return output[:, 0]
    if output.ndim == 3:
        return output[:, prefix:].mean(dim=1)
    return output.mean(dim=(1, 2) if channels_last else (2, 3))


@contextmanager
def feature_hooks(backbone: nn.Module, tokens: str, take: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call ``take(name, features)`` for each layer of a network in every forward pass inside the context.

    Args:
        backbone: The network whose `feature_layers` are hooked.
        tokens: How to pool a layer's output, as for `pool_tokens`.
        take: Function of a layer's name and its features, shape (B, D).
    """
    prefix = class_tokens(backbone)
    channels_last = getattr(backbone, "output_fmt", "NCHW") == "NHWC"

    def hook(name: str) -> Callable[..., None]:
        def forward_hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            features = output[0] if isinstance(output, tuple) else output  # nn.MultiheadAttention returns a pair
            take(name, pool_tokens(features, tokens, prefix, channels_last))

        return forward_hook

    with ExitStack() as stack:
        for name, module in feature_layers(backbone).items():
            stack.callback(module.register_forward_hook(hook(name)).remove)
        yield


@contextmanager
def head_input(backbone: nn.Module, take: Callable[[Tensor], None]) -> Iterator[None]:
    """Call ``take(features)`` with the input of the head, shape (B, D), in every forward pass inside the context."""
    head = backbone.get_submodule(_parent(min(head_names(backbone))))
    handle = head.register_forward_pre_hook(lambda _module, inputs: take(inputs[0]))
    try:
        yield
    finally:
        handle.remove()
