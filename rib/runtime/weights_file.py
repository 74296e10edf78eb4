"""Files of weights without their tensors: metadata in a safetensors header, shards behind an index, digests.

The format (https://github.com/huggingface/safetensors) is eight bytes with the length of a header, the header as JSON,
and the tensors' bytes. Runs write metadata into the header: model, key, command, licences. A digest of such a file does
not cover it, so that the same tensors have the same digest with any metadata, and as before there was any.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rib.errors import RibError
from rib.runtime.files import file_digest

VERSION = "rib_version"
"""Key of the metadata that only files written by rib have."""

IN_FOLDER = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)
"""Names of the weights in a folder that transformers, timm or open_clip saved, best first."""

INDEX = ".index.json"

LONGEST_HEADER = 100_000_000
"""The format's own limit, bytes."""


def add_metadata(content: bytes, metadata: Mapping[str, str]) -> tuple[bytes, memoryview]:
    """Return the content of a safetensors file with metadata, in the order of its keys: the header, and the tensors.

    safetensors itself writes them in an order that differs from process to process.

    Args:
        content: The file's bytes, with or without metadata.
        metadata: Texts by key.
    """
    header, tensors = _split(content)
    header.pop("__metadata__", None)
    return _encode({"__metadata__": dict(sorted(metadata.items())), **header}), tensors


def read_metadata(file: Path) -> dict[str, str]:
    """Return the metadata in a safetensors file's header; empty if it has none, or is another kind of file."""
    header = _read_header(file)
    metadata = header.get("__metadata__") if header else None
    return {str(key): str(value) for key, value in metadata.items()} if isinstance(metadata, dict) else {}


def weights_file_digest(file: Path) -> str:
    """Return the SHA-256 of a file of weights, 64 hex digits.

    That of a file written by rib does not cover its metadata: it is the digest of the same file without any. That of
    an index covers the shards.

    Args:
        file: A file of weights in any format, or the index of a model in shards.
    """
    if is_index(file):
        digests = {shard.name: file_digest(shard) for shard in shards(file)}
        return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
    header = _read_header(file)
    if not header or VERSION not in header.pop("__metadata__", {}):
        return file_digest(file)
    hasher = hashlib.sha256(_encode(header))
    with file.open("rb") as stream:
        stream.seek(8 + struct.unpack("<Q", stream.read(8))[0])
        while block := stream.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()


def has_own_digest(file: Path) -> bool:
    """Return True if `weights_file_digest` of a file is not simply the SHA-256 of its bytes."""
    return is_index(file) or VERSION in read_metadata(file)


def is_index(file: Path) -> bool:
    """Return True if a file is the index of a model in shards, by its name."""
    return file.name.endswith(INDEX)


def shards(file: Path) -> list[Path]:
    """Return the files with the tensors of a model: the shards that an index lists, or the file itself.

    Args:
        file: A file of weights or an index, ``model.safetensors.index.json``.

    Raises:
        RibError: If the index is damaged or lists files that are not beside it.
    """
    if not is_index(file):
        return [file]
    try:
        names = sorted(set(json.loads(file.read_text())["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RibError(f"model.weights: {file} is a JSON file, but not the index of a model in shards") from error
    found = [file.with_name(Path(str(name)).name) for name in names]
    if not found:
        raise RibError(f"model.weights: {file} is a JSON file that lists no shards")
    if absent := [shard.name for shard in found if not shard.is_file()]:
        raise RibError(
            f"model.weights: {file} lists {len(found)} shards, of which {', '.join(absent[:3])} "
            f"{'is' if len(absent) == 1 else 'are'} not beside it; copy all of them"
        )
    return found


def find_weights_file(path: Path) -> Path:
    """Return the file of weights in a folder that transformers, timm or open_clip saved; a file is returned as it is.

    Args:
        path: A file or folder, which may not exist.
    """
    found = (path / name for name in IN_FOLDER if (path / name).is_file())
    return next(found, path) if path.is_dir() else path


def _read_header(file: Path) -> dict[str, Any] | None:
    """Return the header of a safetensors file; None if the file is of another kind."""
    try:
        with file.open("rb") as stream:
            start = stream.read(9)
            if len(start) < 9 or start[8:] != b"{" or (length := struct.unpack("<Q", start[:8])[0]) > LONGEST_HEADER:
                return None
            header = json.loads(start[8:] + stream.read(length - 1))
    except (OSError, ValueError):
        return None
    return header if isinstance(header, dict) else None


def _split(content: bytes) -> tuple[dict[str, Any], memoryview]:
    """Return the header of a safetensors file and the bytes of its tensors, without copying them."""
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), memoryview(content)[8 + length :]


def _encode(header: Mapping[str, Any]) -> bytes:
    """Return a header with its length, byte for byte as safetensors writes it."""
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
