"""What files hold, told by a digest, and when a digest that was kept still holds.

Two different things. *Identity*, which goes into keys, is the content and never a time: files that are copied, touched
or moved are the same files. *Validity* of a kept digest is the file's size, times and inode: where any of them has
changed, the file is read again, and its digest changes only if its bytes did. ``ctime`` is among them since nobody
can put it back. On a network file system only the folders of the files are looked at (`is_network`).

Records are long columns and not objects a file, as in `rib.data.listing`. They can always be made again: a damaged one
is as if it were not there, and where none can be written none is kept. No torch.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
import zipfile
from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rib.errors import RibError
from rib.runtime.files import digest_of, write_atomically
from rib.runtime.locks import hold_while_making
from rib.runtime.memory import cores
from rib.runtime.progress import progress

RACY_NS = 2_000_000_000
"""What changed less than this before it was read may have changed again within one tick of its clock."""

NETWORK = (
    *("nfs", "nfs3", "nfs4", "cifs", "smbfs", "smb2", "smb3", "lustre", "gpfs", "beegfs", "beegfs_nodev", "ceph"),
    *("9p", "afs", "glusterfs", "pvfs2", "orangefs", "panfs", "wekafs", "davfs", "ncpfs", "coda"),
)
"""File systems where looking at a file is a message to another machine; so is whatever FUSE calls ``fuse.NAME``."""

WIDTH = 16
"""Bytes kept of each SHA-256."""

INODE = 2**63 - 1
"""Bits of an inode's number that a column holds; some file systems use one more."""

LARGE = 2**22
"""Bytes of a file that is read in pieces."""

CHUNK = 256
"""Files that a thread takes at a time."""

SAVE_SECONDS = 60.0
"""How often what was read is put into the record, so that who is stopped need not read it again."""

Ints = NDArray[np.int64]

Digests = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class _Record:
    """What is known of some files: names, states (N, 4), digests (N, 16), and when each was read, ns since 1970."""

    paths: list[str]
    states: Ints
    digests: Digests
    read: Ints

    def rows(self, paths: Sequence[str]) -> Ints:
        """The row of each path, or -1."""
        if len(paths) == len(self.paths) and all(map(str.__eq__, paths, self.paths)):
            return np.arange(len(paths))
        row_of = {path: row for row, path in enumerate(self.paths)}
        return np.fromiter((row_of.get(path, -1) for path in paths), np.int64, len(paths))

    def but(self, paths: Sequence[str]) -> _Record:
        """What it knows of other files than these."""
        gone = set(paths)
        keep = np.array([row for row, path in enumerate(self.paths) if path not in gone], dtype=np.int64)
        return _Record([self.paths[i] for i in keep], self.states[keep], self.digests[keep], self.read[keep])


def files_digest(
    folder: Path, paths: Sequence[str], record: Path | None, title: str, since: int = 0, by_folder: bool = False
) -> Digests:
    """The digest of each file's content, read only where no kept one holds.

    Args:
        folder: Where the paths begin.
        paths: Relative to it, each once.
        record: The npz file that keeps digests, of these and other files of the folder; None keeps none.
        title: Of the files, for the progress bar.
        since: Read again what was read before this time, ns since 1970 (to look at all: the time of the command).
        by_folder: Look at the folders of the files alone to see what has changed, for network file systems.

    Returns:
        The first 16 bytes of each SHA-256, (N, 16).

    Raises:
        RibError: If a file is gone or cannot be read.
    """
    states = _folder_states(folder, paths) if by_folder else file_states(folder, paths)
    digests, read = _kept(record, paths, states, since)
    if read.all():
        return digests
    # One process reads the files, the others wait for its record.
    with nullcontext() if record is None else hold_while_making(record):
        digests, read = _kept(record, paths, states, since)  # another process may have read them meanwhile
        saved = time.monotonic()
        try:
            for _ in _read_all(folder, paths, digests, read, title):
                if time.monotonic() - saved > SAVE_SECONDS:
                    _save(record, paths, states, digests, read)
                    saved = time.monotonic()
        finally:
            _save(record, paths, states, digests, read)
    return digests


def file_digest_of(file: Path, records: Path | None) -> str:
    """The first 16 hex digits of a file's SHA-256, read only where no kept digest holds.

    Args:
        file: Links are followed.
        records: Folder that keeps digests, or None.
    """
    file = file.resolve()
    record = None if records is None else records / f"file-{digest_of(str(file))}.npz"
    found: bytes = files_digest(file.parent, [file.name], record, file.name)[0].tobytes()
    return found.hex()[:16]


def folder_digest_of(folder: Path, records: Path | None) -> str:
    """Sixteen hex digits of the names and the content of all files in a folder and its folders.

    Args:
        folder: Where they lie; its own name and place do not count.
        records: Folder that keeps digests, or None.
    """
    folder = folder.resolve()
    paths = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    record = None if records is None else records / f"folder-{digest_of(str(folder))}.npz"
    return columns_digest(joined(paths), files_digest(folder, paths, record, folder.name).tobytes())


def columns_digest(*columns: bytes) -> str:
    """Sixteen hex digits that change when any of the columns does."""
    return digest_of([hashlib.sha256(column).hexdigest() for column in columns])


def joined(names: Sequence[str]) -> bytes:
    """Names in one piece; no name of a file holds a zero byte."""
    return "\0".join(names).encode(errors="surrogateescape")


def file_states(folder: Path, paths: Sequence[str]) -> Ints:
    """Size, mtime_ns, ctime_ns and inode of each file, (N, 4).

    Raises:
        RibError: If one is gone.
    """
    found, base, stat = array("q"), f"{folder}/", os.stat
    try:
        for path in paths:
            s = stat(base + path)
            found.extend((s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino & INODE))
    except OSError as error:
        raise _unreadable(error) from error
    return np.frombuffer(found, dtype=np.int64).reshape(-1, 4)


def is_network(folder: Path) -> bool:
    """Whether a folder is on another machine, as far as the table of mounts tells."""
    import psutil

    place = folder.resolve()
    kinds = {Path(part.mountpoint): part.fstype.lower() for part in psutil.disk_partitions(all=True)}
    kind = next((kinds[above] for above in (place, *place.parents) if above in kinds), "")
    return kind in NETWORK or kind.startswith("fuse.")


def _folder_states(folder: Path, paths: Sequence[str]) -> Ints:
    """For each file the state of the folder it lies in."""
    row_of: dict[str, int] = {}
    rows = [row_of.setdefault(path.rpartition("/")[0], len(row_of)) for path in paths]
    states: Ints = file_states(folder, list(row_of))[rows]
    return states


def _kept(record: Path | None, paths: Sequence[str], states: Ints, since: int) -> tuple[Digests, Ints]:
    """Digests that still hold, (N, 16), and when those files were read, (N,), 0 where none holds."""
    digests = np.zeros((len(paths), WIDTH), dtype=np.uint8)
    read = np.zeros(len(paths), dtype=np.int64)
    kept = _load(record)
    if kept.paths:
        rows = kept.rows(paths)
        changed = np.maximum(kept.states[:, 1], kept.states[:, 2])
        holds = (rows >= 0) & (kept.states[rows] == states).all(axis=1)
        holds &= ((kept.read > changed + RACY_NS) & (kept.read >= since))[rows]
        digests[holds], read[holds] = kept.digests[rows[holds]], kept.read[rows[holds]]
    return digests, read


def _read_all(folder: Path, paths: Sequence[str], digests: Digests, read: Ints, title: str) -> Iterator[None]:
    """Fill in the digests of files that were not read, and when they were; yields now and then."""
    missing = np.flatnonzero(read == 0).tolist()

    def work(first: int) -> int:
        chunk = missing[first : first + CHUNK]
        for place in chunk:
            begun = time.time_ns()
            digests[place] = np.frombuffer(_digest(Path(folder, paths[place])), np.uint8)
            read[place] = begun
        return len(chunk)

    pool = ThreadPoolExecutor(cores())
    try:
        with progress(f"reading {title}", len(missing), "files") as advance:
            for done in pool.map(work, range(0, len(missing), CHUNK)):
                advance(done, "")
                yield
    finally:
        pool.shutdown(cancel_futures=True)


def _digest(file: Path) -> bytes:
    try:
        with file.open("rb", buffering=0) as stream:
            if os.fstat(stream.fileno()).st_size > LARGE:
                return hashlib.file_digest(stream, "sha256").digest()[:WIDTH]
            return hashlib.sha256(stream.readall()).digest()[:WIDTH]
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> RibError:
    return RibError(
        f"{error.filename} cannot be read ({error.strerror}); mend or replace it, then run the command again"
    )


def _load(record: Path | None) -> _Record:
    """What a record holds; nothing if it is not there, or damaged."""
    nothing = _Record([], np.zeros((0, 4), np.int64), np.zeros((0, WIDTH), np.uint8), np.zeros(0, np.int64))
    if record is None:
        return nothing
    try:
        with record.open("rb") as stream, np.load(stream, allow_pickle=False) as columns:
            paths = columns["paths"].tobytes().decode(errors="surrogateescape").split("\0")
            found = _Record(paths, columns["states"], columns["digests"], columns["read"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return nothing
    parts: tuple[tuple[NDArray[Any], str, tuple[int, ...]], ...]
    parts = ((found.states, "int64", (4,)), (found.digests, "uint8", (WIDTH,)), (found.read, "int64", ()))
    fits = all(column.dtype.name == kind and column.shape == (len(paths), *each) for column, kind, each in parts)
    return found if fits else nothing


def _save(record: Path | None, paths: Sequence[str], states: Ints, digests: Digests, read: Ints) -> None:
    """Put what is known into a record, beside what another process has put there meanwhile; never fails."""
    if record is None:
        return
    others = _load(record).but(paths)
    known = np.flatnonzero(read)
    names = [paths[place] for place in known.tolist()]
    buffer = io.BytesIO()
    np.savez(
        buffer,
        paths=np.frombuffer(joined([*names, *others.paths]), dtype=np.uint8),
        states=np.concatenate([states[known], others.states]),
        digests=np.concatenate([digests[known], others.digests]),
        read=np.concatenate([read[known], others.read]),
    )
    with suppress(RibError, OSError):
        write_atomically(record, buffer.getvalue())
