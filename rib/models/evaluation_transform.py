"""The evaluation transform that a model in memory records, as those of timm and open_clip do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from rib.data.transform import Transform
from rib.models.adapters import BorderPrompt
from rib.models.classifier import Classifier

if TYPE_CHECKING:
    from torchvision.transforms.v2 import Compose

EvaluationTransform = Transform | Callable[[Any], Tensor]
"""rib's own description of a centre crop, or a function from a PIL image to a tensor (3, H, W)."""


def mark(function: Compose, transform: Transform) -> Compose:
    """Return torchvision transforms, marked as doing what rib's own transform does; `marked` finds it again."""
    function.rib_transform = transform, tuple(function.transforms)
    return function


def marked(function: EvaluationTransform) -> EvaluationTransform:
    """Return the transform of rib that a function is marked with, which reads cached crops, or else the function.

    A marked Compose to which you have added something, or from which you have taken something, counts as your own.
    """
    transform, parts = getattr(function, "rib_transform", (None, ()))
    same = transform is not None and tuple(getattr(function, "transforms", ())) == parts
    return cast(Transform, transform) if same else function


def record_transform(network: nn.Module, transform: Transform) -> None:
    """Record a checkpoint's evaluation transform in a network, under the name and in the fields that timm uses.

    Args:
        network: A network of any library; its attribute ``pretrained_cfg`` is set.
        transform: The checkpoint's transform.
    """
    known = getattr(network, "pretrained_cfg", None) or {}
    # timm builds a network by its architecture, so its own record may be that of another checkpoint.
    other = ("test_input_size", "test_crop_pct", "fixed_input_size", "hf_hub_id", "url", "tag", "architecture")
    network.pretrained_cfg = {key: value for key, value in known.items() if key not in other} | {  # type: ignore[assignment]
        "input_size": (3, transform.size, transform.size),
        "crop_pct": transform.crop_pct,
        "crop_mode": "center",
        "interpolation": transform.interpolation,
        "mean": tuple(transform.mean),
        "std": tuple(transform.std),
    }


def recorded_transform(network: nn.Module) -> EvaluationTransform | None:
    """Return the evaluation transform that a network records, or None if it records none.

    timm's networks record it in ``pretrained_cfg``, open_clip's in ``visual.preprocess_cfg``. An ``nn.Sequential`` has
    that of its first part, which gets the images; a compiled network or one in ``nn.DataParallel`` that of the network
    inside. Other networks that contain one of these may transform images themselves, so theirs is not taken.
    """
    wrapped = getattr(network, "_orig_mod", None) or (
        network.module if isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel) else None
    )
    if isinstance(wrapped, nn.Module):
        return recorded_transform(wrapped)
    if isinstance(network, Classifier):
        return recorded_transform(network.backbone)
    if isinstance(cfg := getattr(network, "pretrained_cfg", None), Mapping) and "input_size" in cfg:
        return _of_timm(cfg)
    for owner in (network, getattr(network, "visual", None)):
        if isinstance(cfg := getattr(owner, "preprocess_cfg", None), Mapping):
            return _of_open_clip(cfg)
    if isinstance(network, nn.Sequential) and len(network):
        # A visual prompt is added to images that are normalised already.
        return recorded_transform(network[1:] if isinstance(network[0], BorderPrompt) else network[0])
    return None


def _of_timm(cfg: Mapping[str, Any]) -> EvaluationTransform:
    """Return the transform with which timm evaluates a checkpoint, from its record."""
    size, crop_pct = cfg["input_size"], cfg["crop_pct"]
    # As in `rib.models.checkpoints`: a checkpoint may be evaluated at another size than it was trained at.
    if cfg.get("test_input_size") is not None and not cfg.get("fixed_input_size"):
        size, crop_pct = cfg["test_input_size"], cfg.get("test_crop_pct") or crop_pct
    square, usual = size[-2] == size[-1], cfg.get("crop_mode") in (None, "center")
    if square and usual and cfg["interpolation"] in ("bicubic", "bilinear") and crop_pct <= 1:
        return Transform(size[-1], crop_pct, cfg["interpolation"], tuple(cfg["mean"]), tuple(cfg["std"]))
    from timm.data.transforms_factory import create_transform

    names = ("interpolation", "mean", "std", "crop_mode")
    given = {name: cfg[name] for name in names if cfg.get(name) is not None}
    made: Callable[[Any], Tensor] = create_transform(size, is_training=False, crop_pct=crop_pct, **given)
    return made


def _of_open_clip(cfg: Mapping[str, Any]) -> EvaluationTransform:
    """Return the transform with which open_clip evaluates a checkpoint, from its record."""
    sides = {cfg["size"]} if isinstance(cfg["size"], int) else set(cfg["size"])
    if len(sides) == 1 and cfg["resize_mode"] == "shortest" and cfg["interpolation"] in ("bicubic", "bilinear"):
        return Transform(sides.pop(), 1.0, cfg["interpolation"], tuple(cfg["mean"]), tuple(cfg["std"]))
    from open_clip.transform import PreprocessCfg, image_transform_v2

    made: Callable[[Any], Tensor] = image_transform_v2(PreprocessCfg(**cfg), is_train=False)
    return made
