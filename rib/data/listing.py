"""List the files in a dataset's class folders, and save the listing so that the next start only checks the folders.

ImageNet-C has 3.75 million files in 75,000 folders, so names and sizes are held as columns, not as one object per file.
"""

from __future__ import annotations

import io
import os
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np

from rib.data.catalog import DatasetSpec
from rib.errors import RibError
from rib.runtime.content import INODE, RACY_NS, Ints, join_names
from rib.runtime.files import digest_of, write_atomically
from rib.runtime.progress import progress

SUFFIXES = (".jpg", ".jpeg", ".png")
"""Suffixes of image files, in any case; other files in a class folder are ignored."""

ARCHIVES = ("noise", "blur", "weather", "digital", "extra")
"""Top folders of ImageNet-C's archives (noise/gaussian_noise/..., blur/...), which a copy may have or not."""

FLAT = ""
"""Folder name in a `Listing` for images that lie directly in the dataset's folder, without class folders."""

State = tuple[int, int, int]
"""A folder's mtime and ctime in ns, and its inode; unlike mtime, ctime cannot be set back by a user."""


@dataclass(frozen=True, eq=False)
class Listing:
    """All images in a dataset's class folders, in path order.

    Attributes:
        folders: F folder paths relative to the dataset's folder, sorted.
        counts: Images in each folder, shape (F,).
        names: N file names, folder by folder.
        sizes: Size of each file when its folder was listed, bytes, shape (N,).
    """

    folders: tuple[str, ...]
    counts: Ints
    names: list[str]
    sizes: Ints

    def only(self, wanted: Callable[[str], bool]) -> Listing:
        """Return the listing restricted to the folders for which ``wanted`` is true."""
        keep = np.array([wanted(folder) for folder in self.folders], dtype=bool)
        if keep.all():
            return self
        keep_file = np.repeat(keep, self.counts)
        names = [name for name, used in zip(self.names, keep_file.tolist(), strict=True) if used]
        folders = tuple(folder for folder, used in zip(self.folders, keep.tolist(), strict=True) if used)
        return Listing(folders, self.counts[keep], names, self.sizes[keep_file])

    def paths(self) -> tuple[str, ...]:
        """Return the path of every image relative to the dataset's folder, N in all."""
        if self.folders == (FLAT,):
            return tuple(self.names)
        ends = accumulate(self.counts.tolist(), initial=0)
        ranges = zip(self.folders, pairwise(ends), strict=True)
        return tuple(f"{folder}/{name}" for folder, (i, j) in ranges for name in self.names[i:j])


def list_folder(spec: DatasetSpec, folder: Path, records: Path | None = None, rescan: bool = False) -> Listing:
    """List the images in each class folder of a dataset, or load the saved listing if no folder has changed since.

    Args:
        spec: The dataset's catalog entry.
        folder: The dataset's folder, from `rib.data.folders.find_folder`.
        records: Folder for saved listings, or None to save none.
        rescan: List again even if no folder has changed.

    Raises:
        RibError: If a file is a broken link.
    """
    # Sorted with the slash, so that folders come in the order of the paths of their images ("a-b/" before "a/").
    states = dict(sorted(_class_folders(spec, folder), key=lambda pair: f"{pair[0]}/"))
    name = f"{spec.name}-{digest_of([str(folder.resolve()), spec.rule, spec.cells])}.npz"
    record = None if records is None else records / name
    saved = None if record is None or rescan else _read(record, states)
    if saved is not None:
        return saved
    begun = time.time_ns()
    counts, names, sizes = [], [], []
    with progress(f"listing {spec.title}", len(states), "folders") as advance:
        for name in states:
            files = _image_files(folder / name)
            counts.append(len(files))
            names += [file for file, _ in files]
            sizes += [size for _, size in files]
            advance(1, "")
    listing = Listing(tuple(states), np.array(counts, dtype=np.int64), names, np.array(sizes, dtype=np.int64))
    # A folder changed within the clock's resolution of the listing could change again without a new mtime: not saved.
    if record is not None and max((modified for modified, _, _ in states.values()), default=0) < begun - RACY_NS:
        _write(record, listing, states)
    return listing


def subfolders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted, without hidden ones."""
    return sorted(entry.name for entry in _entries(folder))


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:  # unlike Path.iterdir, tells folders from files without a stat each
        yield from (e for e in entries if e.is_dir() and not e.name.startswith("."))


def _class_folders(spec: DatasetSpec, folder: Path) -> Iterator[tuple[str, State]]:
    """Yield the relative path of each folder that holds images, and its `State`, by which changes are detected."""
    if spec.rule == "corruption":
        for cell in spec.cells:
            candidates = [cell, *(f"{archive}/{cell}" for archive in ARCHIVES)]
            parent = next((p for p in candidates if (folder / p).is_dir()), None)
            if parent is not None:
                yield from ((f"{parent}/{e.name}", _state(e.stat())) for e in _entries(folder / parent))
        return
    folders = [(e.name, _state(e.stat())) for e in _entries(folder)]
    if not folders and spec.synset_files:
        folders = [(FLAT, _state(folder.stat()))]
    yield from folders


def _state(status: os.stat_result) -> State:
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino & INODE


def _image_files(folder: Path) -> list[tuple[str, int]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(
                (e.name, e.stat().st_size)
                for e in entries
                if e.name.lower().endswith(SUFFIXES) and not e.name.startswith(".")
            )
    except FileNotFoundError as error:
        raise RibError(f"{error.filename} is a broken symbolic link; fix or remove it") from error


def _write(record: Path, listing: Listing, states: dict[str, State]) -> None:
    buffer = io.BytesIO()
    # Names as one block of bytes: NumPy's string arrays pad every name to the longest, at 4 bytes a character.
    np.savez(
        buffer,
        folders=np.frombuffer(join_names(listing.folders), dtype=np.uint8),
        states=np.array(list(states.values()), dtype=np.int64),
        counts=listing.counts,
        names=np.frombuffer(join_names(listing.names), dtype=np.uint8),
        sizes=listing.sizes,
    )
    write_atomically(record, buffer.getvalue())


def _read(record: Path, states: dict[str, State]) -> Listing | None:
    """Load a saved listing; return None if a folder has changed since, or the file is missing or damaged."""
    try:
        with record.open("rb") as stream, np.load(stream, allow_pickle=False) as columns:
            if list(map(tuple, columns["states"].tolist())) != list(states.values()):
                return None
            folders, names = (
                columns[column].tobytes().decode(errors="surrogateescape").split("\0")
                for column in ("folders", "names")
            )
            listing = Listing(tuple(folders), columns["counts"], names, columns["sizes"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    fits = listing.folders == tuple(states) and int(listing.counts.sum()) == len(names) == len(listing.sizes)
    return listing if fits else None
