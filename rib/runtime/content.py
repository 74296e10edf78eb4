"""Digests of file contents, stored on disk so that unchanged files are not read again.

A file is identified by its content, never by a time: copied, touched or moved files are
the same files. A stored digest is *valid* while the file's size, mtime, ctime and inode are unchanged; otherwise the
file is read again, and its digest changes only if its bytes did. On a network file system only the files' folders are
checked (`is_network`), since each file would be a request to another machine.

A record holds a few long columns instead of one object per file, as `rib.data.listing` does, because there may be
millions of files. Records are a cache: a damaged one is ignored, and where none can be written none is kept. This
module does not import torch.
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
"""Nanoseconds. A file changed less than this before it was read may have changed again with the same timestamp."""

NETWORK = (
    *("nfs", "nfs3", "nfs4", "cifs", "smbfs", "smb2", "smb3", "lustre", "gpfs", "beegfs", "beegfs_nodev", "ceph"),
    *("9p", "afs", "glusterfs", "pvfs2", "orangefs", "panfs", "wekafs", "davfs", "ncpfs", "coda"),
)
"""Network file systems, as the mount table names them; all FUSE file systems (``fuse.NAME``) count as well."""

WIDTH = 16
"""Bytes stored of each SHA-256."""

INODE = 2**63 - 1
"""Mask of the bits of an inode number that fit into int64; some file systems use 64 bits."""

LARGE = 2**22
"""Bytes above which a file is read in pieces instead of at once."""

CHUNK = 256
"""Number of files that a thread takes at a time."""

SAVE_SECONDS = 60.0
"""Seconds between two saves of the record while files are read, so that an interrupted process loses little."""

Ints = NDArray[np.int64]

Digests = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class _Record:
    """Digests of N files in one folder, as stored on disk.

    Attributes:
        paths: Paths, relative to the record's folder.
        states: Size, mtime_ns, ctime_ns and inode of each file when it was read, (N, 4).
        digests: First bytes of each SHA-256, (N, 16).
        read: Time when each file was read, ns since 1970, (N,).
    """

    paths: list[str]
    states: Ints
    digests: Digests
    read: Ints

    def rows(self, paths: Sequence[str]) -> Ints:
        """Return each path's index in the record, -1 for a path that is not in it."""
        # The usual case, an unchanged folder: comparing a million names takes 0.1 s, a dictionary of them 1.5 s.
        if len(paths) == len(self.paths) and all(map(str.__eq__, paths, self.paths)):
            return np.arange(len(paths))
        row_of = {path: row for row, path in enumerate(self.paths)}
        return np.fromiter((row_of.get(path, -1) for path in paths), np.int64, len(paths))

    def without(self, paths: Sequence[str]) -> _Record:
        """Return a copy of the record without the given files."""
        dropped = set(paths)
        keep = np.array([row for row, path in enumerate(self.paths) if path not in dropped], dtype=np.int64)
        return _Record([self.paths[i] for i in keep], self.states[keep], self.digests[keep], self.read[keep])


def files_digest(
    folder: Path, paths: Sequence[str], record: Path | None, title: str, since: int = 0, by_folder: bool = False
) -> Digests:
    """Return the digest of each file's content, reading only files without a valid stored digest.

    Args:
        folder: Folder that the paths are relative to.
        paths: N relative paths, each once.
        record: Npz file that stores the digests of these and of other files of the folder; None stores nothing.
        title: Name of the files, for the progress bar.
        since: Files read before this time (ns since 1970) are read again; the time of the command reads all.
        by_folder: Detect changes by the states of the files' folders alone, for network file systems.

    Returns:
        The first 16 bytes of each SHA-256, uint8, shape (N, 16).

    Raises:
        RibError: If a file is gone or cannot be read.
    """
    states = _folder_states(folder, paths) if by_folder else file_states(folder, paths)
    digests, read = _valid_digests(record, paths, states, since)
    if read.all():
        return digests
    # One process reads the files, the others wait for its record: ten cells of a grid would read the disk ten times.
    with nullcontext() if record is None else hold_while_making(record):
        digests, read = _valid_digests(record, paths, states, since)  # another process may have read them meanwhile
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
    """Return the first 16 hex digits of a file's SHA-256, reading it only without a valid stored digest.

    Args:
        file: The file; links are followed.
        records: Folder that stores digests; None stores nothing.

    Raises:
        RibError: If the file is gone or cannot be read.
    """
    file = file.resolve()
    record = None if records is None else records / f"file-{digest_of(str(file))}.npz"
    digest: bytes = files_digest(file.parent, [file.name], record, file.name)[0].tobytes()
    return digest.hex()[:16]


def folder_digest_of(folder: Path, records: Path | None) -> str:
    """Return a digest of the names and contents of all files in a folder and its subfolders, 16 hex digits.

    Args:
        folder: The folder; its own name and location do not count.
        records: Folder that stores digests; None stores nothing.

    Raises:
        RibError: If a file is gone or cannot be read.
    """
    folder = folder.resolve()
    paths = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    record = None if records is None else records / f"folder-{digest_of(str(folder))}.npz"
    return columns_digest(join_names(paths), files_digest(folder, paths, record, folder.name).tobytes())


def columns_digest(*columns: bytes) -> str:
    """Return a single digest of several byte strings, 16 hex digits."""
    return digest_of([hashlib.sha256(column).hexdigest() for column in columns])


def join_names(names: Sequence[str]) -> bytes:
    """Encode file names as one byte string, separated by zero bytes, which no file name contains."""
    return "\0".join(names).encode(errors="surrogateescape")


def file_states(folder: Path, paths: Sequence[str]) -> Ints:
    """Return size, mtime_ns, ctime_ns and inode of each file; a change of the file changes at least one of them.

    Args:
        folder: Folder that the paths are relative to.
        paths: N relative paths.

    Returns:
        int64, shape (N, 4).

    Raises:
        RibError: If a file is gone.
    """
    # ctime is included since no program can set it back. Text paths and one flat array take less than half the time of
    # Path objects and tuples, which counts for a million files.
    states, base, stat = array("q"), f"{folder}/", os.stat
    try:
        for path in paths:
            s = stat(base + path)
            states.extend((s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino & INODE))
    except OSError as error:
        raise _unreadable(error) from error
    return np.frombuffer(states, dtype=np.int64).reshape(-1, 4)


def is_network(folder: Path) -> bool:
    """Return True if a folder is on a network file system, according to the mount table."""
    import psutil

    folder = folder.resolve()
    kinds = {Path(mount.mountpoint): mount.fstype.lower() for mount in psutil.disk_partitions(all=True)}
    kind = next((kinds[above] for above in (folder, *folder.parents) if above in kinds), "")
    return kind in NETWORK or kind.startswith("fuse.")


def _folder_states(folder: Path, paths: Sequence[str]) -> Ints:
    """Return the size, mtime_ns, ctime_ns and inode of each file's folder, shape (N, 4)."""
    row_of: dict[str, int] = {}
    rows = [row_of.setdefault(path.rpartition("/")[0], len(row_of)) for path in paths]
    states: Ints = file_states(folder, list(row_of))[rows]
    return states


def _valid_digests(record: Path | None, paths: Sequence[str], states: Ints, since: int) -> tuple[Digests, Ints]:
    """Return the valid stored digest of each file, (N, 16), and the time it was read, (N,), 0 without a digest."""
    digests = np.zeros((len(paths), WIDTH), dtype=np.uint8)
    read = np.zeros(len(paths), dtype=np.int64)
    stored = _load(record)
    if stored.paths:
        rows = stored.rows(paths)
        changed = np.maximum(stored.states[:, 1], stored.states[:, 2])
        valid = (rows >= 0) & (stored.states[rows] == states).all(axis=1)
        valid &= ((stored.read > changed + RACY_NS) & (stored.read >= since))[rows]
        digests[valid], read[valid] = stored.digests[rows[valid]], stored.read[rows[valid]]
    return digests, read


def _read_all(folder: Path, paths: Sequence[str], digests: Digests, read: Ints, title: str) -> Iterator[None]:
    """Read all files whose ``read`` is 0, fill in their digests and read times, and yield after each chunk of files."""
    missing = np.flatnonzero(read == 0).tolist()

    def read_chunk(first: int) -> int:
        chunk = missing[first : first + CHUNK]
        for row in chunk:
            begun = time.time_ns()  # before reading: a change during it must count as later
            digests[row] = np.frombuffer(_digest(Path(folder, paths[row])), np.uint8)
            read[row] = begun
        return len(chunk)

    pool = ThreadPoolExecutor(cores())
    try:
        with progress(f"reading {title}", len(missing), "files") as advance:
            for done in pool.map(read_chunk, range(0, len(missing), CHUNK)):
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
        f"{error.filename} cannot be read ({error.strerror}); repair or replace it, then run the same command again"
    )


def _load(record: Path | None) -> _Record:
    """Read stored digests from an npz file; an absent or damaged file gives an empty record."""
    empty = _Record([], np.zeros((0, 4), np.int64), np.zeros((0, WIDTH), np.uint8), np.zeros(0, np.int64))
    if record is None:
        return empty
    try:
        with record.open("rb") as stream, np.load(stream, allow_pickle=False) as columns:
            paths = columns["paths"].tobytes().decode(errors="surrogateescape").split("\0")
            stored = _Record(paths, columns["states"], columns["digests"], columns["read"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return empty
    expected: tuple[tuple[NDArray[Any], str, tuple[int, ...]], ...]
    expected = ((stored.states, "int64", (4,)), (stored.digests, "uint8", (WIDTH,)), (stored.read, "int64", ()))
    fits = all(column.dtype.name == kind and column.shape == (len(paths), *each) for column, kind, each in expected)
    return stored if fits else empty


def _save(record: Path | None, paths: Sequence[str], states: Ints, digests: Digests, read: Ints) -> None:
    """Write the digests known so far to an npz file, keeping those of other files in it; errors are ignored."""
    if record is None:
        return
    others = _load(record).without(paths)
    known = np.flatnonzero(read)
    names = [paths[row] for row in known.tolist()]
    buffer = io.BytesIO()
    np.savez(
        buffer,
        paths=np.frombuffer(join_names([*names, *others.paths]), dtype=np.uint8),
        states=np.concatenate([states[known], others.states]),
        digests=np.concatenate([digests[known], others.digests]),
        read=np.concatenate([read[known], others.read]),
    )
    with suppress(RibError, OSError):
        write_atomically(record, buffer.getvalue())
