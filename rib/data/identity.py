"""Digests that identify a dataset's images; they are part of the hash under which a run's results are stored.

Images drawn by rib are identified by their pixels before encoding, which are the same on every machine. All others are
identified by path and content or, where reading every file would take hours (ImageNet-C), by path and size. Times and
locations do not count, so a dataset that was copied, touched or moved keeps its identity. Only the images that a run
uses are read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rib.data.catalog import DatasetSpec
from rib.runtime.content import Digests, Ints, columns_digest, file_states, files_digest, is_network
from rib.runtime.files import digest_of

DIGESTS = "digests.json"
"""File in the root of drawn images: {dataset: digest of paths and pixels}."""

CONTENTS = "contents.json"
"""File beside it: {dataset: digest of its files' content}, to notice files that were changed after drawing."""

RECORDS = "records"
"""Folder in the root of drawn images for saved file digests."""


@dataclass(frozen=True)
class FileIdentity:
    """Way to identify a dataset's files, by content or by size, and the file in which their digests are saved.

    Attributes:
        kind: ``content``, or ``listing`` for file sizes alone.
        record: File that saves digests, or None to save none.
        since: Digests computed before this time are computed again, ns since 1970.
        network: True if the files are on a network file system; then only their folders are checked for changes.
    """

    kind: str = "content"
    record: Path | None = None
    since: int = 0
    network: bool = False

    @classmethod
    def of(cls, spec: DatasetSpec, folder: Path, kind: str | None, records: Path | None, since: int) -> FileIdentity:
        """Create a dataset's `FileIdentity`; ``kind=None``: ``listing`` (sizes) for ImageNet-C, else ``content``."""
        name = f"{spec.name}-files-{digest_of(str(folder.resolve()))}.npz"
        default = "listing" if spec.rule == "corruption" else "content"
        return cls(str(kind or default), None if records is None else records / name, since, is_network(folder))

    def contents(self, folder: Path, paths: tuple[str, ...], title: str) -> Digests:
        """Return a digest of each file's present content, uint8 (N, 16)."""
        return files_digest(folder, paths, self.record, title, self.since, by_folder=self.network)

    def column(self, folder: Path, paths: tuple[str, ...], sizes: Ints | None, title: str) -> bytes:
        """Return the content digests or the sizes of all files as bytes, from which the dataset's digest is computed.

        Sizes are read anew, except on a network file system, where the sizes of the last listing are used.
        """
        if self.kind == "content":
            return self.contents(folder, paths, title).tobytes()
        if sizes is None or not self.network:
            sizes = file_states(folder, paths)[:, 0]
        return sizes.astype("<i8").tobytes()  # little-endian on every machine: these bytes enter run keys


def drawn_digests(root: Path) -> dict[str, dict[str, str]] | None:
    """Read the digests saved when mini's images were drawn; None if one of their two files is missing or damaged."""
    try:
        documents = {name: json.loads((root / name).read_text()) for name in (DIGESTS, CONTENTS)}
    except (OSError, ValueError):
        return None
    return documents if all(isinstance(digests, dict) for digests in documents.values()) else None


def contents_digest(contents: Digests) -> str:
    """Combine the content digests of several files, in order, into one digest of 16 hex digits."""
    return columns_digest(contents.tobytes())
