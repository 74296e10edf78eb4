"""Files are there whole or not at all, whatever kills the process or fills the disk."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from rib.errors import RibError


def unfinished(file: Path) -> Path:
    """A name beside ``file`` that no other writer has, on this machine or another: a cluster's nodes share numbers."""
    return file.with_name(f".{file.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")


def write_atomically(file: Path, content: bytes) -> None:
    """Put a file in its place by a rename, making its folder.

    Raises:
        RibError: If it cannot be written; an older file of that name is as it was.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = unfinished(file)
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RibError(f"cannot write {file}: {error.strerror}; nothing that was finished is lost") from error


def file_digest(file: Path) -> str:
    """SHA-256 of a file's content, 64 hex digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_of(facts: object) -> str:
    """Sixteen hex digits that change when any of the facts does (JSON with sorted keys, SHA-256)."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
