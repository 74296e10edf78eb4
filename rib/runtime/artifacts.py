"""Disk cache for values that depend only on the pretrained model and the data, such as the Fisher."""

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
    """A folder of files named by what determines their content.

    Attributes:
        folder: In the run store, beside the runs.
        facts: What holds for everything kept here: digests of start weights and source images, transform, decoder.
        locks: Of the store, so that two runs that need the same thing find it once; None where there is no other.
    """

    folder: Path
    facts: Mapping[str, object]
    locks: Locks | None = None

    def file(self, kind: str, **facts: object) -> Path:
        """Path for one thing: ``<kind>-<digest>.safetensors``, made or not."""
        return self.folder / f"{kind}-{digest_of({**self.facts, **facts, 'kind': kind})}.safetensors"

    def making(self, file: Path) -> AbstractContextManager[object]:
        """Hold a thing while looking for it and, if it is not there, making it; rank zero holds it for all."""
        return nullcontext() if self.locks is None or rank() > 0 else self.locks.hold(file.stem)
