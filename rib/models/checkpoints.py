"""Look up a checkpoint in timm or open_clip: its evaluation transform, its outputs, and the location of its weights.

Everything comes from the libraries' own records; nothing is repeated here. If a record cannot be used (unknown name, no
ImageNet head, another activation than the weights were trained with), the error names one that can.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rib.config.schema import ModelConfig
from rib.errors import RibError
from rib.models.head import Head, imagenet_head
from rib.models.hf_config import recorded_activation
from rib.runtime.console import say_once


@dataclass(frozen=True)
class Checkpoint:
    """Record of a checkpoint in timm or open_clip: its network, its evaluation transform, and its weights' location.

    Attributes:
        name: Name in commands, tables and the store's folders.
        architecture: The library's name for the network, without the checkpoint's tag.
        transform: Fields of `rib.data.transform.Transform` that the library records.
        repo: Repository on the Hugging Face hub, or None.
        files: Possible names of the weights file there, best first.
    """

    name: str
    architecture: str
    transform: Mapping[str, Any]
    repo: str | None
    files: tuple[str, ...]


def timm_checkpoint(model: ModelConfig, head: Head | None = None) -> Checkpoint:
    """Return timm's record of the checkpoint that a model's config names.

    For a checkpoint that is evaluated at another size than it was trained at, the evaluation size and crop are used
    (torchvision's second ResNet weights: trained at 176, evaluated at 224 after resizing to 232).

    Args:
        model: The model's config, with library ``timm``.
        head: The head that the suite wants; None: that of an ImageNet-1K classifier.

    Raises:
        RibError: If timm has no such model, if it has another number of outputs and is to keep its head, or if it is
            not evaluated on a centre crop.
    """
    import timm

    head = head or imagenet_head()
    architecture, _, tag = (model.architecture or model.name.removeprefix("hf-hub:").removeprefix("timm/")).partition(
        "."
    )
    full = ".".join(filter(None, (architecture, model.tag or tag)))
    known = {*timm.list_pretrained(), *timm.list_models()}
    cfg = timm.get_pretrained_cfg(full) if full in known else None
    if cfg is None:
        raise RibError(f"model.name: timm has no {full}{_suggestion(full, known)}")
    # The user's own weights are checked against the network when they are loaded; the record is not about them.
    if cfg.num_classes != head.outputs and model.weights is None and not head.probe:
        raise _no_head_error(full, cfg, head.outputs)
    # timm registers a CLIP network with GELU and with QuickGELU under two names; `sibling` is the other of the two.
    quick, plain = "_quickgelu" in architecture, architecture.replace("_clip_quickgelu_", "_clip_")
    sibling = plain if quick else plain.replace("_clip_", "_clip_quickgelu_")
    other = sibling if sibling != architecture and sibling in known else None
    _check_activation(model, architecture, quick, other, model.tag or tag)
    if cfg.crop_mode not in (None, "center"):
        raise RibError(
            f"model.name: expected a model that is evaluated on a centre crop, {full} takes whole images "
            f"({cfg.crop_mode}); choose another"
        )
    size, crop_pct = cfg.input_size, cfg.crop_pct
    if cfg.test_input_size is not None and not cfg.fixed_input_size:
        size, crop_pct = cfg.test_input_size, cfg.test_crop_pct or cfg.crop_pct
    files = ("model.safetensors", "pytorch_model.bin")  # timm's default names on the hub
    return Checkpoint(
        name=full if model.architecture is None else model.name,
        architecture=architecture,
        transform={
            "size": size[-1],
            "crop_pct": crop_pct,
            "interpolation": cfg.interpolation,
            "mean": cfg.mean,
            "std": cfg.std,
        },
        repo=model.hub or cfg.hf_hub_id,
        files=_first(model.file or cfg.hf_hub_filename, files),
    )


def timm_outputs(model: ModelConfig) -> int | None:
    """Return the number of outputs of a checkpoint by timm's record, 0 without a head; None if it is not known.

    Args:
        model: The model's config, with library ``timm``.
    """
    import timm

    name = (model.architecture or model.name).removeprefix("hf-hub:").removeprefix("timm/")
    cfg = timm.get_pretrained_cfg(f"{name.partition('.')[0]}.{model.tag}" if model.tag else name)
    return None if cfg is None else int(cfg.num_classes)


def licence_of(model: ModelConfig, name: str) -> str:
    """Return the terms of a pretrained model's weights as its library records them; empty for the user's own file.

    Args:
        model: The model's config.
        name: Name of the checkpoint, ``vit_base_patch16_224.augreg_in1k``.
    """
    if model.weights is not None:
        return ""
    if model.library == "mini":
        return "Apache-2.0"
    if model.package is not None:
        return f"see the Python package {model.package}"
    repo = model.hub
    if model.library == "timm":
        import timm

        architecture = (model.architecture or name).partition(".")[0]
        cfg = timm.get_pretrained_cfg(f"{architecture}.{model.tag}" if model.tag else model.architecture or name)
        if cfg is not None and cfg.license:
            return str(cfg.license)
        repo = repo or (None if cfg is None else cfg.hf_hub_id)
    return f"see the card of {repo} on the Hugging Face hub" if repo else ""


def open_clip_checkpoint(model: ModelConfig) -> Checkpoint:
    """Return open_clip's record of the checkpoint that a model's config names, for a zero-shot classifier.

    Args:
        model: The model's config, with library ``open_clip``.

    Raises:
        RibError: If open_clip has no such model or tag, or builds it with another activation than it was trained with.
    """
    import open_clip
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    architecture, tag = model.architecture or model.name, model.tag
    cfg = open_clip.get_model_config(architecture)
    if cfg is None:
        hint = _suggestion(architecture, open_clip.list_models())
        raise RibError(f"model.name: open_clip has no {architecture}{hint}")
    if "multimodal_cfg" in cfg or {"hf_model_name", "hf_tokenizer_name"} & cfg["text_cfg"].keys():
        raise RibError(
            f"model.name: {architecture} has a multimodal decoder, or a text model or tokenizer from another "
            "repository, which is not supported; choose another model"
        )
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if tag is None and model.hub is None and model.weights is None:
        raise RibError(f"model.tag: expected one of {', '.join(tags)} (or model.weights=FILE), got none")
    if tag is not None and tag not in tags:
        raise RibError(f"model.tag: {architecture} has no {tag}{_suggestion(tag, tags)}; known: {', '.join(tags)}")
    record = open_clip.get_pretrained_cfg(architecture, tag) if tag else {}
    # open_clip 3.3.0 builds ViT-B-16 with GELU for the tag "openai", trained with QuickGELU, and only warns.
    if bool(record.get("quick_gelu")) != bool(cfg.get("quick_gelu")) and tag is not None:
        other = re.sub(r"-quickgelu$", "", architecture) + ("-quickgelu" if record.get("quick_gelu") else "")
        raise RibError(f"model.name: {tag} was trained with another activation than {architecture} has; use {other}")
    quick, plain = bool(cfg.get("quick_gelu")), re.sub(r"-quickgelu$", "", architecture)
    sibling = plain if quick else f"{plain}-quickgelu"
    _check_activation(model, architecture, quick, sibling if sibling in open_clip.list_models() else None, tag)
    if record.get("resize_mode", "shortest") != "shortest":
        raise RibError(
            f"model.name: expected a model that is evaluated on a centre crop, {architecture} resizes images by "
            f"{record['resize_mode']}; choose another"
        )
    size = cfg["vision_cfg"].get("image_size", 224)
    repo, _, file = record.get("hf_hub", "").rpartition("/")
    # A repository that open_clip does not list may be transformers'.
    others = ("model.safetensors", "pytorch_model.bin") if tag is None else ()
    return Checkpoint(
        name=".".join(filter(None, (architecture, tag))) if model.architecture is None else model.name,
        architecture=architecture,
        transform={
            "size": size if isinstance(size, int) else size[0],
            "crop_pct": 1.0,
            "interpolation": record.get("interpolation", "bicubic"),
            "mean": record.get("mean", open_clip.OPENAI_DATASET_MEAN),
            "std": record.get("std", open_clip.OPENAI_DATASET_STD),
        },
        repo=model.hub or repo or None,
        files=_first(model.file or file, (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME, *others)),
    )


def _check_activation(model: ModelConfig, architecture: str, quick: bool, sibling: str | None, tag: str | None) -> None:
    """Require the user to say whether a CLIP model was trained with GELU or QuickGELU, which no weights file records.

    A tag determines the activation, and so do "quickgelu" in the name and ``model.activation``. Otherwise it is an
    error if the library has the network with both activations, and a notice if it has one.

    Raises:
        RibError: If the activation is not determined, or is not the architecture's.
    """
    has = "quickgelu" if quick else "gelu"
    if model.activation not in (None, "gelu", "quickgelu"):
        raise RibError(f"model.activation: expected gelu or quickgelu, got {model.activation}")
    if model.activation not in (None, has):
        use = f"use {sibling}" if sibling else f"there is no such network with {model.activation}"
        raise RibError(f"model.activation: {architecture} has {has}, expected {model.activation}; {use}")
    recorded = recorded_activation(model.weights)
    if recorded not in (None, has) and tag is None and model.activation is None:
        use = f"use {sibling}" if sibling else f"there is no such network with {recorded}"
        raise RibError(
            f"model.name: the config.json beside {model.weights} says {recorded}, and {architecture} has {has}; "
            f"{use}, or give model.activation={has} if you know better"
        )
    known = bool(tag or quick or model.activation or recorded) or (model.weights is None and model.hub is None)
    if not known and sibling is not None:
        raise RibError(
            "model.activation: weights do not say whether they were trained with GELU or QuickGELU, and with the "
            f"wrong one {architecture} is less accurate without any error; give model.tag=TAG (of the checkpoint that "
            f"they were trained from), model.activation=gelu, or the name {sibling}"
        )
    if not known and (model.library == "open_clip" or "_clip" in architecture):
        say_once(
            f"{architecture} has {has}, but the weights do not record their activation; confirm it with "
            f"model.activation={has}, which turns this notice off"
        )


def _no_head_error(name: str, cfg: Any, outputs: int) -> RibError:
    """Create the error for a checkpoint that is not an ImageNet-1K classifier; it suggests one that is."""
    import timm

    kind = "an ImageNet-1K classifier" if outputs == imagenet_head().outputs else "a classifier of the suite's classes"
    head = f"model.name: {name} is not {kind} ({cfg.num_classes} outputs, expected {outputs})"
    if clip := _open_clip_name(name, cfg):
        return RibError(
            f"{head} but a bare CLIP tower; its zero-shot classifier is "
            f"model=open_clip model.name={clip[0]} model.tag={clip[1]}; or fit a head to its features with head=probe"
        )
    cfgs = {n: timm.get_pretrained_cfg(n) for n in timm.list_pretrained()}
    siblings = [n for n, c in cfgs.items() if c is not None and c.num_classes == outputs]
    return RibError(f"{head}{_suggestion(name, siblings)}; or fit a head to its features with head=probe")


def _open_clip_name(name: str, cfg: Any) -> tuple[str, str] | None:
    """Return open_clip's name and tag of the CLIP model that a timm checkpoint's image tower comes from, or None.

    It is the model of the same repository or, if there is none, the one with the same architecture and tag.
    """
    import open_clip

    pairs = []
    for model, tag in open_clip.list_pretrained():
        record = open_clip.get_pretrained_cfg(model, tag)
        if bool(record.get("quick_gelu")) == bool(open_clip.get_model_config(model).get("quick_gelu")):
            pairs.append((model, tag, record.get("hf_hub", "").rstrip("/")))
    for model, tag, repo in pairs:
        if repo and repo == cfg.hf_hub_id:
            return model, tag
    shape = re.match(r"vit_(\w)\w*_patch(\d+)_clip(?:_quickgelu)?_224\.(\w+)", name)
    if shape is None:
        return None
    wanted = f"ViT-{shape[1].upper()}-{shape[2]}"
    for model, tag, _ in pairs:
        if re.sub(r"-quickgelu$", "", model) == wanted and tag.replace("_", "").startswith(shape[3].replace("_", "")):
            return model, tag
    return None


def _first(named: str | None, usual: tuple[str, ...]) -> tuple[str, ...]:
    return (named,) if named else usual


def _suggestion(name: str, known: Iterable[str]) -> str:
    # Names that begin with the given one come first: the user most often leaves out the tag.
    longer = sorted(other for other in known if other.startswith(name))
    close = longer or difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""
