"""Use of a checkpoint at another image size: check that its network accepts it, and find the size to build it for.

A ConvNet accepts any size. A ViT is built for one size; its library can build it for another and resamples position
embeddings and relative position biases when it loads the checkpoint. Stored weights then have the new size. Whether
this works is tried out on networks on the meta device, before a run starts.
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
"""Function from an image size (None: the network's own) to a network built for it."""


def size_to_build(library: str, architecture: str, num_outputs: int, own_size: int, size: int) -> int | None:
    """Return the image size that a fixed-size network must be built for; None for a network that accepts any size.

    Args:
        library: ``mini``, ``timm`` or ``open_clip``.
        architecture: The library's name for the network.
        num_outputs: K.
        own_size: Side of the images that the checkpoint is for, pixels.
        size: Side of the images that it will get, pixels.

    Returns:
        ``size`` in pixels, or None if the network accepts any size as it is.

    Raises:
        RibError: If the network cannot be built for the size, does not accept it, or its weights cannot be resampled.
    """
    if library == "mini":
        raise RibError(f"model.transform.size: expected {own_size} pixels, the only size of mini's models, got {size}")
    of_timm = library == "timm"

    def build(to: int | None) -> nn.Module:
        return build_timm(architecture, num_outputs, to) if of_timm else _build_clip(architecture, num_outputs, to)

    # The meta device has shapes but no values: building and running even a large network takes no memory or download.
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that loading into a network on the meta device does nothing
        own = build(None).eval()
        # A network with a fixed size silently cuts off the rows and columns that do not fill a patch: refuse those.
        fixed = _failure(lambda: _run(own, 2 * own_size)) is not None
        if fixed and (stride := _grid_stride(own)) is not None and size % stride:
            raise RibError(
                f"model.transform.size: {architecture} divides images into a grid of {stride} pixels; expected a "
                f"multiple of {stride}, got {size}"
            )
        if (failure := _failure(lambda: _run(own, size))) is None:
            return None
        # The failure of a ConvNet, which has no size to be built for, is that the image is too small: report it.
        if _failure(lambda: build(size)) is None:
            state = dict(own.state_dict())
            failure = _failure(lambda: _load_and_run(build, of_timm, architecture, num_outputs, state, size))
            if failure is None:
                return size
    raise RibError(
        f"model.transform.size: {architecture} cannot take images of {size} pixels ({failure}); leave the option out, "
        "or choose another size"
    )


def build_timm(architecture: str, num_outputs: int, size: int | None = None, **options: Any) -> nn.Module:
    """Build a timm network without pretrained weights, for its own image size or another.

    Args:
        architecture: timm's name for the network.
        num_outputs: K.
        size: Side of the images, pixels; None: the network's own.
        **options: Further options of ``timm.create_model``, which override the ones above.
    """
    import timm

    image_size = {} if size is None else {"img_size": size}
    return timm.create_model(architecture, **{"pretrained": False, "num_classes": num_outputs, **image_size, **options})


def resample(tower: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Resize the position embeddings of open_clip's image tower to the size that a network is built for.

    Args:
        tower: The checkpoint's tensors, named ``visual.*``.
        expected: The network's tensors; only their shapes are used.

    Returns:
        The checkpoint's tensors with resized position embeddings.
    """
    from open_clip.model import resize_pos_embed

    name = "visual.positional_embedding"
    if name not in expected or name not in tower:
        return tower
    side = math.isqrt(len(expected[name]) - 1)  # one embedding is the class token's
    state = {**tower, name: tower[name].float()}
    resize_pos_embed(state, SimpleNamespace(visual=SimpleNamespace(grid_size=side)))
    return state


def _build_clip(architecture: str, num_outputs: int, size: int | None) -> nn.Module:
    from rib.models.zero_shot import build_zero_shot

    return build_zero_shot(architecture, num_outputs, size)


def _load_and_run(
    build: Build, of_timm: bool, architecture: str, num_outputs: int, state: dict[str, Tensor], size: int
) -> None:
    """Try another image size: build a network for it, load weights of its own size, and run it on one image."""
    if of_timm:
        # With a state_dict in the config timm downloads nothing, and resamples it with the family's own filter.
        overlay = {"state_dict": state}
        network = build_timm(architecture, num_outputs, size, pretrained=True, pretrained_cfg_overlay=overlay)
    else:
        network = build(size)
        network.load_state_dict(dict(resample(state, network.state_dict())))
    _run(network.eval(), size)


def _run(network: nn.Module, size: int) -> None:
    with torch.no_grad():
        network(torch.empty(1, 3, size, size))


def _failure(attempt: Callable[[], object]) -> str | None:
    """Call a function and return its error in one line, or None if it succeeds."""
    try:
        attempt()
    except Exception as error:
        if mismatch := re.search(r"size mismatch for ([\w.]+)", str(error)):
            return f"its library does not resample {mismatch[1]}"
        return " ".join(str(error).split()).rstrip(".")[:200] or "it accepts only its own size"
    return None


def _grid_stride(network: nn.Module) -> int | None:
    """Return the side of a ViT's patches or the stride of another network's last features, pixels; None if unknown."""
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3), None)
    if first is not None and first.kernel_size == first.stride and first.stride[0] > 1:
        return int(first.stride[0])
    features: Any = getattr(network, "feature_info", None)
    return int(features[-1]["reduction"]) if isinstance(features, list) and features else None
