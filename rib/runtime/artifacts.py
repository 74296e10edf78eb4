"""Disk cache for values that depend only on the pretrained model and the data, such as the Fisher information."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from rib.runtime.console import rank
from rib.runtime.files import digest_of
from rib.runtime.locks import Locks


@dataclass(frozen=True)
class ArtifactCache:
    """Folder of cached files, each named by a digest of the values that determine its content.

    Args:
        folder: Folder of the files, in the run store.
        key_fields: Values that all files here depend on: digests of the pretrained weights and the source images,
            transform, image decoder.
        locks: Locks of the run store, so that of several runs that need the same file only one computes it; None
            locks nothing.
    """

    folder: Path
    key_fields: Mapping[str, object]
    locks: Locks | None = None

    def file(self, kind: str, **key_fields: object) -> Path:
        """Return the path ``<kind>-<digest>.safetensors`` of a cached file, which may not exist yet.

        Args:
            kind: Name of what is cached, ``fisher``.
            key_fields: Further values that determine the content.
        """
        digest = digest_of({**self.key_fields, **key_fields, "kind": kind})
        return self.folder / f"{kind}-{digest}.safetensors"

    def making(self, file: Path) -> AbstractContextManager[object]:
        """Lock a cached file while the caller looks for it or computes it; only rank zero takes the lock."""
        return nullcontext() if self.locks is None or rank() > 0 else self.locks.hold(file.stem)
