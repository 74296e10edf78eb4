"""By what the images of a dataset are told from others, which is what keys stand on.

Drawn images are told by their pixels before encoding, which are the same on every machine. All others are told by
path and content, or, where reading them all would take hours (ImageNet-C), by path and size. No time and no place is
part of it: a dataset that was copied, touched or moved is the same one. Only images that take part are looked at.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rib.data.catalog import DatasetSpec
from rib.runtime.content import Digests, Ints, columns_digest, file_states, files_digest, is_network
from rib.runtime.files import digest_of

DIGESTS = "digests.json"
"""In a root whose images are drawn: {dataset: digest of paths and pixels}."""

CONTENTS = "contents.json"
"""Beside it: {dataset: digest of its files' content}. Where they hold anything else, the pixels are not those drawn."""

RECORDS = "records"
"""Folder in such a root that keeps the digests of its files."""


@dataclass(frozen=True)
class Telling:
    """How files are told, and where that is kept.

    Attributes:
        kind: ``content``, or ``listing``: sizes alone.
        record: File that keeps digests; None: none.
        since: What was read before this time is read again, ns since 1970.
        network: Whether they lie on another machine, so that their folders alone are looked at.
    """

    kind: str = "content"
    record: Path | None = None
    since: int = 0
    network: bool = False

    @classmethod
    def of(cls, spec: DatasetSpec, folder: Path, kind: str | None, records: Path | None, since: int) -> Telling:
        """As the catalog and the user want it; kind None is ``content``, but ``listing`` for ImageNet-C."""
        name = f"{spec.name}-files-{digest_of(str(folder.resolve()))}.npz"
        usual = "listing" if spec.rule == "corruption" else "content"
        return cls(str(kind or usual), None if records is None else records / name, since, is_network(folder))

    def contents(self, folder: Path, paths: tuple[str, ...], title: str) -> Digests:
        """Digests of content as the files are now, (N, 16)."""
        return files_digest(folder, paths, self.record, title, self.since, by_folder=self.network)

    def column(self, folder: Path, paths: tuple[str, ...], sizes: Ints | None, title: str) -> bytes:
        """What tells the files, one after another: as they are now, but for sizes on another machine."""
        if self.kind == "content":
            return self.contents(folder, paths, title).tobytes()
        if sizes is None or not self.network:
            sizes = file_states(folder, paths)[:, 0]
        return sizes.astype("<i8").tobytes()


def drawn_digests(root: Path) -> dict[str, dict[str, str]] | None:
    """What `DIGESTS` and `CONTENTS` of a root say; None where either is not there, or damaged."""
    try:
        found = {name: json.loads((root / name).read_text()) for name in (DIGESTS, CONTENTS)}
    except (OSError, ValueError):
        return None
    return found if all(isinstance(digests, dict) for digests in found.values()) else None


def contents_digest(contents: Digests) -> str:
    """Sixteen hex digits of what some files hold, in their order."""
    return columns_digest(contents.tobytes())
