"""What is in a dataset's class folders, kept as a record so that a second start stats folders and walks no files.

ImageNet-C is 3.75 million files in 75,000 folders: names and sizes are kept as long columns, not as objects a file.
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
"""Image files, whatever the case of their ending; everything else in a class folder is ignored."""

ARCHIVES = ("noise", "blur", "weather", "digital", "extra")
"""ImageNet-C's tars unpack to noise/gaussian_noise/..., blur/..., which some keep and some flatten."""

FLAT = ""
"""Stands for the dataset's folder itself among its class folders, where images lie flat in it."""

State = tuple[int, int, int]
"""Of a folder: when it was changed last, when anything about it was (nobody can put that back), and its inode."""


@dataclass(frozen=True, eq=False)
class Listing:
    """Every image of some class folders, in path order.

    Attributes:
        folders: Relative to the dataset's folder, in the order of their paths.
        counts: Images in each folder, (F,).
        names: File names, a folder's after another's, N in all.
        sizes: Bytes of each file when its folder was listed, (N,).
    """

    folders: tuple[str, ...]
    counts: Ints
    names: list[str]
    sizes: Ints

    def only(self, wanted: Callable[[str], bool]) -> Listing:
        """The part of it in folders that are wanted."""
        keep = np.array([wanted(folder) for folder in self.folders], dtype=bool)
        if keep.all():
            return self
        each = np.repeat(keep, self.counts)
        names = [name for name, kept in zip(self.names, each.tolist(), strict=True) if kept]
        folders = tuple(folder for folder, kept in zip(self.folders, keep.tolist(), strict=True) if kept)
        return Listing(folders, self.counts[keep], names, self.sizes[each])

    def paths(self) -> tuple[str, ...]:
        """Of every image, relative to the dataset's folder."""
        if self.folders == (FLAT,):
            return tuple(self.names)
        ends = accumulate(self.counts.tolist(), initial=0)
        parts = zip(self.folders, pairwise(ends), strict=True)
        return tuple(f"{folder}/{name}" for folder, (i, j) in parts for name in self.names[i:j])


def list_folder(spec: DatasetSpec, folder: Path, records: Path | None = None, rescan: bool = False) -> Listing:
    """Every image by class folder.

    Args:
        spec: From the catalog.
        folder: From `rib.data.folders.find_folder`.
        records: Folder to keep listings in, or None.
        rescan: List again although no folder has changed.

    Raises:
        RibError: If a file is a link to nowhere.
    """
    states = dict(sorted(_class_folders(spec, folder), key=lambda pair: f"{pair[0]}/"))
    name = f"{spec.name}-{digest_of([str(folder.resolve()), spec.rule, spec.cells])}.npz"
    record = None if records is None else records / name
    kept = None if record is None or rescan else _read(record, states)
    if kept is not None:
        return kept
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
    if record is not None and max((modified for modified, _, _ in states.values()), default=0) < begun - RACY_NS:
        _write(record, listing, states)
    return listing


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones."""
    return sorted(entry.name for entry in _entries(folder))


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from (e for e in entries if e.is_dir() and not e.name.startswith("."))


def _class_folders(spec: DatasetSpec, folder: Path) -> Iterator[tuple[str, State]]:
    """Relative names of the folders that hold images, and the state of each."""
    if spec.rule == "corruption":
        for cell in spec.cells:
            places = [cell, *(f"{archive}/{cell}" for archive in ARCHIVES)]
            place = next((p for p in places if (folder / p).is_dir()), None)
            if place is not None:
                yield from ((f"{place}/{e.name}", _state(e.stat())) for e in _entries(folder / place))
        return
    found = [(e.name, _state(e.stat())) for e in _entries(folder)]
    if not found and spec.synset_files:
        found = [(FLAT, _state(folder.stat()))]
    yield from found


def _state(found: os.stat_result) -> State:
    return found.st_mtime_ns, found.st_ctime_ns, found.st_ino & INODE


def _image_files(folder: Path) -> list[tuple[str, int]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(
                (e.name, e.stat().st_size)
                for e in entries
                if e.name.lower().endswith(SUFFIXES) and not e.name.startswith(".")
            )
    except FileNotFoundError as error:
        raise RibError(f"{error.filename} is a link to a file that is not there; mend or remove it") from error


def _write(record: Path, listing: Listing, states: dict[str, State]) -> None:
    buffer = io.BytesIO()
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
    """What a record holds, unless it is of folders in another state, or damaged."""
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
