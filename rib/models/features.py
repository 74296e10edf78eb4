"""What a network computes on the way, by the network's own names: for a ViT the parts of each block, else the blocks.

A block is a numbered part made of several layers. Where all blocks lie in one list the network is a plain ViT (timm's,
mini's, open_clip's towers): its layers are each block's projection behind attention, the two linear layers of its MLP,
and the block's output. Where they lie in several lists these are stages: layers are the outputs of blocks and stages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from rib.errors import RibError
from rib.models.layers import blocks, head_names

PARTS = ("attn.proj", "attn.out_proj", "mlp.fc1", "mlp.c_fc", "mlp.fc2", "mlp.c_proj")
"""Of a ViT's block, in timm's and in open_clip's words, from input to output."""

TOKENS = ("cls", "mean", "all")


def feature_layers(backbone: nn.Module) -> dict[str, nn.Module]:
    """Layers from input to output, each with the module whose output it is.

    Raises:
        ValueError: If the network has no numbered part.
    """
    modules = dict(backbone.named_modules())
    numbered = [name for name, module in modules.items() if _last(name).isdecimal() and _parts(module) > 1]
    inner = [n for n in numbered if not any(other.startswith(f"{n}.") for other in numbered)]
    if not inner:
        return blocks(backbone)
    lists = list(dict.fromkeys(_parent(name) for name in inner))
    found: dict[str, nn.Module] = {}
    for place in lists:
        for name in (n for n in inner if _parent(n) == place):
            if len(lists) == 1 and f"{name}.attn" in modules:
                found |= _inside(modules, name)
            found[name] = modules[name]
        if len(lists) > 1:
            stage = _parent(place) if _last(_parent(place)).isdecimal() else place
            found[stage] = modules[stage]
    return found


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _parts(module: nn.Module) -> int:
    """Children that have parameters."""
    return sum(next(child.parameters(), None) is not None for child in module.children())


def _inside(modules: Mapping[str, nn.Module], block: str) -> dict[str, nn.Module]:
    """The parts of a ViT's block."""
    found = {f"{block}.{part}": modules[f"{block}.{part}"] for part in PARTS if f"{block}.{part}" in modules}
    attention = modules[f"{block}.attn"]
    if isinstance(attention, nn.MultiheadAttention):
        # It uses its output projection's weights without calling it; its own output is the same.
        found[f"{block}.attn.out_proj"] = attention
    return found


def class_tokens(backbone: nn.Module) -> int:
    """How many tokens stand before those of the patches; 0 in a network without a class token."""
    tower: Any = getattr(backbone, "visual", backbone)
    if getattr(tower, "cls_token", None) is not None:
        return int(getattr(tower, "num_prefix_tokens", 1))
    return int(getattr(tower, "class_embedding", None) is not None)


def readout(backbone: nn.Module) -> str:
    """What the head reads: ``cls``, the class token, or ``mean``, an average over places."""
    tower: Any = getattr(backbone, "visual", backbone)
    pool = getattr(tower, "global_pool", None) or getattr(tower, "pool_type", None)
    return "cls" if class_tokens(backbone) and pool in ("token", "tok") else "mean"


def pooled(output: Tensor, tokens: str, prefix: int = 0, channels_last: bool = False) -> Tensor:
    """A layer's output as one row an image, (B, D).

    Args:
        output: Tokens (B, T, D), a map (B, C, H, W), or features (B, D).
        tokens: ``cls``: the first token; ``mean``: over patches or places; ``all``: everything, flattened.
        prefix: Tokens before those of the patches.
        channels_last: Whether maps are (B, H, W, C).

    Raises:
        RibError: For the class token of a network that has none.
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
def listening(backbone: nn.Module, tokens: str, take: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Hand each layer's features (B, D) on as they are computed; hooks are gone at the end, whatever happens.

    Args:
        backbone: Whose `feature_layers` are listened to.
        tokens: As for `pooled`.
        take: Given a layer's name and its features.
    """
    prefix = class_tokens(backbone)
    channels_last = getattr(backbone, "output_fmt", "NCHW") == "NHWC"

    def hook(name: str) -> Callable[..., None]:
        def hand_on(_module: nn.Module, _inputs: Any, output: Any) -> None:
            whole = output[0] if isinstance(output, tuple) else output
            take(name, pooled(whole, tokens, prefix, channels_last))

        return hand_on

    with ExitStack() as stack:
        for name, module in feature_layers(backbone).items():
            stack.callback(module.register_forward_hook(hook(name)).remove)
        yield


@contextmanager
def head_input(backbone: nn.Module, take: Callable[[Tensor], None]) -> Iterator[None]:
    """Hand on what the head reads, (B, D), at each pass; the hook is gone at the end, whatever happens."""
    head = backbone.get_submodule(_parent(min(head_names(backbone))))
    handle = head.register_forward_pre_hook(lambda _module, inputs: take(inputs[0]))
    try:
        yield
    finally:
        handle.remove()
