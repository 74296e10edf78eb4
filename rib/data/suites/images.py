"""The images of a domain as a reader finds them, and a saved record of them for the next start.

A reader names the *places* that its result depends on: the folders that it listed, and a manifest's file. While their
times and inodes are as they were, the record is the listing; else the images are listed again.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rib.data.listing import SUFFIXES
from rib.errors import RibError
from rib.runtime.content import INODE, RACY_NS, Ints, join_names
from rib.runtime.files import write_atomically

IMAGES = (*SUFFIXES, ".webp", ".bmp", ".tif", ".tiff", ".gif")
"""Suffixes of image files in a user's suite, in any case; all are formats that `rib.data.decode` reads."""


@dataclass(frozen=True, eq=False)
class DomainImages:
    """N images of a domain, in path order, with the names of their classes as the domain spells them.

    Attributes:
        folder: Folder that the paths are relative to.
        paths: Relative paths with forward slashes, sorted.
        names: Distinct names of classes.
        codes: Position in ``names`` of each image's class, shape (N,).
        sizes: Size of each file when it was listed, bytes, shape (N,).
        places: Folders and files that this listing depends on, relative to ``folder``.
    """

    folder: Path
    paths: tuple[str, ...]
    names: tuple[str, ...]
    codes: Ints
    sizes: Ints
    places: tuple[str, ...]

    @classmethod
    def of(cls, folder: Path, rows: Iterable[tuple[str, str, int]], places: Iterable[str]) -> DomainImages:
        """Create the listing of some (path, class name, size), in any order."""
        ordered = sorted(rows)
        names = tuple(sorted({name for _, name, _ in ordered}))
        code_of = {name: code for code, name in enumerate(names)}
        codes = np.fromiter((code_of[name] for _, name, _ in ordered), np.int64, len(ordered))
        sizes = np.fromiter((size for _, _, size in ordered), np.int64, len(ordered))
        return cls(folder, tuple(path for path, _, _ in ordered), names, codes, sizes, tuple(places))

    def save(self, record: Path, begun: int) -> None:
        """Save the listing, unless a place was changed so shortly before that it may change again unnoticed.

        Args:
            record: File to write.
            begun: Time before the listing, ns since 1970.
        """
        states = _states(self.folder, self.places)
        if states is None or max(max(mtime, ctime) for mtime, ctime, _ in states) >= begun - RACY_NS:
            return
        buffer = io.BytesIO()
        paths, names, places = (
            np.frombuffer(join_names(texts), dtype=np.uint8) for texts in (self.paths, self.names, self.places)
        )
        times = np.array(states, dtype=np.int64)
        np.savez(buffer, paths=paths, names=names, places=places, codes=self.codes, sizes=self.sizes, states=times)
        write_atomically(record, buffer.getvalue())

    @classmethod
    def saved(cls, record: Path, folder: Path) -> DomainImages | None:
        """Return a saved listing; None if one of its places has changed, or the record is missing or damaged."""
        try:
            with record.open("rb") as stream, np.load(stream, allow_pickle=False) as columns:
                paths, names, places = (
                    tuple(columns[key].tobytes().decode(errors="surrogateescape").split("\0"))
                    for key in ("paths", "names", "places")
                )
                codes, sizes = columns["codes"], columns["sizes"]
                if _states(folder, places) != list(map(tuple, columns["states"].tolist())):
                    return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        fits = len(paths) == len(codes) == len(sizes) and bool((codes < len(names)).all())
        return cls(folder, paths, names, codes, sizes, places) if fits else None


def _states(folder: Path, places: Iterable[str]) -> list[tuple[int, int, int]] | None:
    """Return mtime, ctime (ns) and inode of some places, or None if one is gone."""
    try:
        found = [(folder / place).stat() for place in places]
    except OSError:
        return None
    return [(s.st_mtime_ns, s.st_ctime_ns, s.st_ino & INODE) for s in found]


def is_image(name: str) -> bool:
    """Return True if a file's name is that of an image and not hidden."""
    return name.lower().endswith(IMAGES) and not name.startswith(".")


def image_files(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield name and size, bytes, of each image that lies directly in a folder.

    Raises:
        RibError: If one is a broken link.
    """
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_image(entry.name) and entry.is_file():
                    yield entry.name, entry.stat().st_size
                elif is_image(entry.name) and entry.is_symlink() and not entry.is_dir():
                    raise RibError(f"{entry.path} is a broken symbolic link; fix or remove it")
    except PermissionError as error:
        raise RibError(f"{folder} cannot be read ({error.strerror}); change its permissions or move it away") from error


def subfolders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted, without hidden ones.

    Raises:
        RibError: If the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except PermissionError as error:
        raise RibError(f"{folder} cannot be read ({error.strerror}); change its permissions or move it away") from error
