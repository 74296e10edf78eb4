"""Images of another size than a checkpoint's: what size its network must be built for, or why it cannot be shown them.

A ConvNet takes any size. A ViT is built for one: its library builds it for another, and resamples what depends on
places (position embeddings, biases of relative positions) when it loads the checkpoint; stored weights are then of
the new size, and fit the network that is built for it. What can be done is tried, on networks without values, before
anything else happens.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from rib.errors import RibError

Build = Callable[[int | None], nn.Module]
"""From the size to build for (None: the network's own) to the network."""


def size_to_build(library: str, architecture: str, num_outputs: int, own_size: int, size: int) -> int | None:
    """Size that a network must be built for to take images of another size than its own; None: it takes any.

    Args:
        library: ``mini``, ``timm`` or ``open_clip``.
        architecture: The library's name for the network.
        num_outputs: K.
        own_size: Side of the images that the checkpoint is for, pixels.
        size: Side of those that it is to be shown, pixels.

    Raises:
        RibError: If it cannot be built for that size, cannot be shown it, or its weights cannot be resampled.
    """
    if library == "mini":
        raise RibError(f"model.transform.size: mini's models take images of {own_size} pixels alone, got {size}")
    of_timm = library == "timm"

    def build(to: int | None) -> nn.Module:
        return build_timm(architecture, num_outputs, to) if of_timm else _open_clip(architecture, num_outputs, to)

    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of copying to a network without values
        own = build(None).eval()
        # A network for one size cuts off what its grid leaves over, and says nothing.
        fixed = _trouble(lambda: _show(own, 2 * own_size)) is not None
        if fixed and (grid := _grid(own)) is not None and size % grid:
            raise RibError(
                f"model.transform.size: {architecture} sees images on a grid of {grid} pixels, so expected a multiple "
                f"of {grid}, got {size}"
            )
        if (trouble := _trouble(lambda: _show(own, size))) is None:
            return None
        # A ConvNet says itself what is wrong with an image that is too small; others are built for the size.
        if _trouble(lambda: build(size)) is None:
            state = dict(own.state_dict())
            trouble = _trouble(lambda: _load_and_show(build, of_timm, architecture, num_outputs, state, size))
            if trouble is None:
                return size
    raise RibError(
        f"model.transform.size: {architecture} cannot be shown images of {size} pixels ({trouble}); leave it out, or "
        "choose a size that it takes"
    )


def build_timm(architecture: str, num_outputs: int, size: int | None = None, **more: Any) -> nn.Module:
    """A network of timm, for its own size or another."""
    import timm

    given = {} if size is None else {"img_size": size}
    return timm.create_model(architecture, **{"pretrained": False, "num_classes": num_outputs, **given, **more})


def resample(tower: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Weights of open_clip's image tower with position embeddings for the size that a network is built for.

    Args:
        tower: ``visual.*`` of a checkpoint.
        expected: Those of the network, with whatever values.
    """
    from open_clip.model import resize_pos_embed

    name = "visual.positional_embedding"
    if name not in expected or name not in tower:
        return tower
    side = math.isqrt(len(expected[name]) - 1)  # beside the class token's
    state = {**tower, name: tower[name].float()}
    resize_pos_embed(state, SimpleNamespace(visual=SimpleNamespace(grid_size=side)))
    return state


def _open_clip(architecture: str, num_outputs: int, size: int | None) -> nn.Module:
    from rib.models.zero_shot import build_zero_shot

    return build_zero_shot(architecture, num_outputs, size)


def _load_and_show(
    build: Build, of_timm: bool, architecture: str, num_outputs: int, state: dict[str, Tensor], size: int
) -> None:
    """Load a checkpoint of the network's own size into one of another, and show that an image."""
    if of_timm:
        # With weights at hand timm downloads none; it passes them through the family's own filter.
        overlay = {"state_dict": state}
        network = build_timm(architecture, num_outputs, size, pretrained=True, pretrained_cfg_overlay=overlay)
    else:
        network = build(size)
        network.load_state_dict(dict(resample(state, network.state_dict())))
    _show(network.eval(), size)


def _show(network: nn.Module, size: int) -> None:
    with torch.no_grad():
        network(torch.empty(1, 3, size, size))


def _trouble(attempt: Callable[[], object]) -> str | None:
    """What goes wrong, in a line; None: nothing."""
    try:
        attempt()
    except Exception as error:
        if placed := re.search(r"size mismatch for ([\w.]+)", str(error)):
            return f"its library does not resample {placed[1]}"
        return " ".join(str(error).split()).rstrip(".")[:200] or "it takes none but its own size"
    return None


def _grid(network: nn.Module) -> int | None:
    """Side of the patches that a network cuts images into, or of a place in its last layer; None if unknown."""
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3), None)
    if first is not None and first.kernel_size == first.stride and first.stride[0] > 1:
        return int(first.stride[0])
    features: Any = getattr(network, "feature_info", None)
    return int(features[-1]["reduction"]) if isinstance(features, list) and features else None
