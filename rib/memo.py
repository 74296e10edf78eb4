"""Where a method keeps what is expensive to find and depends only on the start: the Fisher, a teacher's logits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from rib.claims import Claims
from rib.launch import rank


def digest_of(facts: object) -> str:
    """Sixteen hex digits that change when any of the facts does (JSON with sorted keys, SHA-256)."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Memo:
    """A folder of files named by what determines their content.

    Attributes:
        folder: In the run store, beside the runs.
        facts: What holds for everything kept here: digests of start weights and source images, transform, decoder.
        claims: Of the store, so that two runs that need the same thing find it once; None where there is no other.
    """

    folder: Path
    facts: Mapping[str, object]
    claims: Claims | None = None

    def file(self, kind: str, **facts: object) -> Path:
        """Path for one thing: ``<kind>-<digest>.safetensors``, made or not."""
        return self.folder / f"{kind}-{digest_of({**self.facts, **facts, 'kind': kind})}.safetensors"

    def making(self, file: Path) -> AbstractContextManager[object]:
        """Hold a thing while looking for it and, if it is not there, making it; rank zero holds it for all."""
        return nullcontext() if self.claims is None or rank() > 0 else self.claims.hold(file.stem)
