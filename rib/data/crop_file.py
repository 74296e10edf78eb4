"""A file of decoded images, filled by any number of processes at once, in which an image is found by its key.

The file is a series of chunks: a table of `CHUNK` records, then as many slots of pixels. A writer reserves slots under
a lock by making the file longer and writing the images' keys, then writes pixels, and checksums last. A reader takes an
image only if its checksum, over key and pixels, is right. So nothing that a killed process, a power cut, a full disk or
another writer can leave behind is ever taken for an image; what is missing is decoded and added again.

Images are read by ``pread`` straight into the batch: a memory map costs the same copy, page faults on top, and a crash
(SIGBUS) when the disk is full or the file is cut short. All processes of a machine share the pages either way.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from io import FileIO
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rib.data.crop_room import Room

CHUNK = 1024
"""Images in a chunk."""

RECORD = np.dtype([("key", "V16"), ("checksum", "<u4")])
"""An image's key and checksum; zeros: an empty slot; a key without checksum: pixels are being written."""

FULL = -1
"""Value of `CropFile.stopped` once the limit is reached."""

Pixels = NDArray[np.uint8]


class CropFile:
    """Images of one size, by key; threads and processes may read and add to it at the same time.

    Args:
        path: The file, which need not exist.
        size: Bytes of an image.
        room: Limit of its folder.
    """

    def __init__(self, path: Path, size: int, room: Room) -> None:
        self.path = path
        self.size = size
        self.room = room
        self._stopped = mmap(-1, 4)  # shared with forked loader processes
        self._forget()

    @property
    def stopped(self) -> int:
        """Why nothing more is written, here or in a loader process: 0, `FULL`, or the ``errno`` of a failed write."""
        return int.from_bytes(self._stopped[:], "little", signed=True)

    def used(self) -> None:
        """Note that the file is in use, so that others are removed before it."""
        with suppress(OSError):
            os.utime(self.path)

    def holds(self, keys: Sequence[bytes]) -> bool:
        """Look at the file again; return True if it has an image for each key."""
        self._look()
        return all(key in self._places for key in keys)

    def read(self, keys: Sequence[bytes], out: Pixels) -> list[int]:
        """Read images.

        Args:
            keys: B keys of 16 bytes.
            out: Array for the pixels, (B, size), contiguous.

        Returns:
            Indices of the keys whose images are not in the file or damaged; their rows of ``out`` are undefined.
        """
        if self._stream is None:
            self._look()
        stream = self._stream
        return list(range(len(keys))) if stream is None else self._read(stream.fileno(), keys, out)

    def _read(self, descriptor: int, keys: Sequence[bytes], out: Pixels) -> list[int]:
        missing = []
        for i, key in enumerate(keys):
            slot, checksum = self._places.get(key, (-1, 0))
            if slot < 0:
                missing.append(i)
            elif _read_at(descriptor, out[i], self._offset(slot)) < self.size or _check(key, out[i]) != checksum:
                missing.append(i)
                self._places.pop(key, None)  # to be added again
                self._taken.discard(key)
        return missing

    def add(self, keys: Sequence[bytes], pixels: Sequence[Pixels]) -> None:
        """Add images; those that the file has already are left out. If that fails, nothing is written from then on.

        Args:
            keys: B keys of 16 bytes.
            pixels: B arrays of ``size`` bytes, contiguous.
        """
        if self.stopped:
            return
        try:
            self._write(keys, pixels)
        except OSError as error:
            self._stop(error.errno or errno.EIO)

    def _stop(self, reason: int) -> None:
        self._stopped[:] = reason.to_bytes(4, "little", signed=True)

    def _write(self, keys: Sequence[bytes], pixels: Sequence[Pixels]) -> None:
        import fcntl  # only where there are such locks

        self.path.parent.mkdir(parents=True, exist_ok=True)
        # A new description of the file each time: the lock excludes threads and forked processes, too.
        with FileIO(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+") as stream:
            descriptor = stream.fileno()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            try:
                if self._stream is None or not os.path.sameopenfile(descriptor, self._stream.fileno()):
                    self._forget()  # the file that was read from has been removed
                self._look()
                new = {key: row for key, row in zip(keys, pixels, strict=True) if key not in self._taken}
                length = os.fstat(descriptor).st_size
                first = self._count(length)
                slots = range(first, first + len(new))
                grown = self._offset(slots[-1]) + self.size if new else length
                if not self.room.make(grown - length, self.path):
                    self._stop(FULL)
                    return
                os.ftruncate(descriptor, grown)
                for slot, key in zip(slots, new, strict=True):
                    _write_at(descriptor, key + bytes(4), self._record(slot))
            finally:
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            for slot, (key, row) in zip(slots, new.items(), strict=True):
                checksum = _check(key, row)
                _write_at(descriptor, row.data, self._offset(slot))
                _write_at(descriptor, key + checksum.to_bytes(4, "little"), self._record(slot))
                self._places[key] = (slot, checksum)

    def _forget(self) -> None:
        self._stream: FileIO | None = None
        self._tables: list[NDArray[Any]] = []
        self._places: dict[bytes, tuple[int, int]] = {}  # slot and checksum of each image
        self._taken: set[bytes] = set()  # keys of these, and of the images that others are writing now

    def _look(self) -> None:
        """Open the file if there is one, and read what has changed in its tables since the last time."""
        if self._stream is None:
            try:
                self._stream = _Stream(str(self.path), "r")
            except OSError:
                return
        descriptor, first = self._stream.fileno(), not self._tables
        for chunk in range(-(-self._count(os.fstat(descriptor).st_size) // CHUNK)):
            table = np.zeros(CHUNK, RECORD)
            _read_at(descriptor, table.view(np.uint8), self._record(chunk * CHUNK))
            if chunk == len(self._tables):
                self._tables.append(np.zeros(CHUNK, RECORD))
            for i in np.flatnonzero(table != self._tables[chunk]).tolist():
                key, checksum = table[i].item()
                if checksum:
                    self._places[key] = (chunk * CHUNK + i, checksum)
                # Without a checksum at the first look: whoever began to write it may be dead, and it is added again.
                if checksum or not first:
                    self._taken.add(key)
            self._tables[chunk] = table

    def _record(self, slot: int) -> int:
        """Return the position in the file of a slot's record."""
        chunk, index = divmod(slot, CHUNK)
        return chunk * CHUNK * (RECORD.itemsize + self.size) + index * RECORD.itemsize

    def _offset(self, slot: int) -> int:
        """Return the position in the file of a slot's pixels."""
        chunk, index = divmod(slot, CHUNK)
        return (chunk + 1) * CHUNK * RECORD.itemsize + (chunk * CHUNK + index) * self.size

    def _count(self, length: int) -> int:
        """Return the number of slots in a file of some length."""
        chunk, rest = divmod(length, CHUNK * (RECORD.itemsize + self.size))
        return chunk * CHUNK + max(0, rest - CHUNK * RECORD.itemsize) // self.size

    def __getstate__(self) -> dict[str, Any]:
        """Return what a process that is started, not forked, needs; it opens the file itself."""
        return {"path": self.path, "size": self.size, "room": self.room}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make the file anew in another process."""
        self.__init__(**state)  # type: ignore[misc]


class _Stream(FileIO):
    """A file that is closed when the last thread that reads it has gone; Python would warn of that."""

    def __del__(self) -> None:
        self.close()


def _check(key: bytes, pixels: Pixels) -> int:
    """Return the checksum of an image under a key, never 0."""
    return zlib.crc32(pixels.data, zlib.crc32(key)) or 1


def _read_at(descriptor: int, buffer: Pixels, position: int) -> int:
    """Read bytes from a position of a file into a buffer; return how many there were."""
    view, done = buffer.data, 0
    with suppress(OSError):
        while done < len(view) and (count := os.preadv(descriptor, [view[done:]], position + done)):
            done += count
    return done


def _write_at(descriptor: int, content: bytes | memoryview, position: int) -> None:
    """Write all bytes of a buffer to a position of a file; raise OSError if they do not fit on the disk."""
    view = memoryview(content)
    while len(view):
        count = os.pwrite(descriptor, view, position)
        view, position = view[count:], position + count
