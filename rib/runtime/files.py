"""Atomic writes (a file is complete or absent, even after a kill or on a full disk), and digests."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from rib.errors import RibError


def temporary_path(file: Path) -> Path:
    """Return a unique path in a file's folder, which no other process on any machine writes to."""
    # Random digits, since processes on two nodes of a cluster may have the same id.
    return file.with_name(f".{file.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")


def write_atomically(file: Path, *parts: bytes | memoryview) -> None:
    """Write a file atomically, under a temporary name that is then renamed; its folder is created if needed.

    Args:
        file: Path to write.
        *parts: All of its bytes, in one part or several.

    Raises:
        RibError: If it cannot be written; an existing file of that name is then unchanged.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(file)
    try:
        with temporary.open("wb") as stream:
            stream.writelines(parts)
            stream.flush()
            os.fsync(stream.fileno())  # else a power cut may leave the name with an empty file
        os.replace(temporary, file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RibError(f"cannot write {file}: {error.strerror}; finished results are not affected") from error


def file_digest(file: Path) -> str:
    """Return the SHA-256 of a file's content, 64 hex digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_of(value: object) -> str:
    """Return a digest of a value: the first 16 hex digits of the SHA-256 of its JSON.

    Args:
        value: Dictionaries, lists, numbers and texts; anything else counts as its `str`. The order of keys is ignored.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
