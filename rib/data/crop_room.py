"""Space that decoded images may take on disk: the option ``data.cache``, and the removal of old files.

This module does not import torch.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rib.errors import RibError

SUFFIX = ".crops"
"""Suffix of the files (`rib.data.crop_file`)."""

AUTO_LIMIT, AUTO_SHARE = 20 * 10**9, 0.1
"""With ``data.cache=auto`` all files take at most this many bytes, and at most this share of the disk's free space."""

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
"""Units that ``data.cache`` may have; ``G`` is ``GB``."""

SPARED_SECONDS = 3600.0
"""A file used within this time is not removed: a grid that exceeds the limit would remove what it reads next."""


@dataclass(frozen=True)
class Room:
    """The space that the files of one folder may take.

    Attributes:
        folder: Folder of the files.
        limit: Bytes that all of them may take.
    """

    folder: Path
    limit: int

    @classmethod
    def of(cls, folder: Path, limit: int | None) -> Room:
        """Return a folder's room; without a limit `AUTO_LIMIT` bytes, and at most `AUTO_SHARE` of what is free."""
        if limit is not None:
            return cls(folder, limit)
        existing = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
        taken = sum(state.st_size for state in _states(folder).values())
        return cls(folder, min(AUTO_LIMIT, int(AUTO_SHARE * (shutil.disk_usage(existing).free + taken))))

    def make(self, needed: int, keep: Path) -> bool:
        """Make room for more bytes by removing the files that were unused for longest; return True if there is room.

        Args:
            needed: Number of bytes.
            keep: File that is not removed, since it is about to grow.
        """
        states = _states(self.folder)
        total = sum(state.st_size for state in states.values())
        for file in sorted(states, key=lambda file: states[file].st_mtime_ns):
            if total + needed <= self.limit:
                break
            if file != keep and states[file].st_mtime < time.time() - SPARED_SECONDS:
                file.unlink(missing_ok=True)  # a process that reads it keeps it until it is done
                total -= states[file].st_size
        return total + needed <= self.limit


def parse_limit(limit: str | int) -> int | None:
    """Return the bytes that ``data.cache`` allows: 0 for ``off``, None for ``auto``.

    Raises:
        RibError: If it is neither, nor a number of bytes.
    """
    text = str(limit).strip().upper()
    if text == "AUTO":
        return None
    if text in ("OFF", "FALSE"):  # yaml reads off as false
        return 0
    digits = text.rstrip("BKMGT ")
    unit = text[len(digits) :].strip()
    try:
        size = int(float(digits) * UNITS[unit if unit.endswith("B") or not unit else f"{unit}B"])
    except (ValueError, KeyError, OverflowError):
        size = -1
    if size < 0:
        raise RibError(f"data.cache: expected auto, off, or a number of bytes such as 60GB, got {limit!r}")
    return size


def _states(folder: Path) -> dict[Path, os.stat_result]:
    """Return the state of each file in a folder of decoded images."""
    states = {}
    for file in folder.glob(f"*{SUFFIX}"):
        with suppress(FileNotFoundError):  # just removed by another process
            states[file] = file.stat()
    return states
