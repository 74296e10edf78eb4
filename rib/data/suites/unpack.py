"""Unpack images that are no files of their own (tar shards, a Python entry point) into the cache, once.

Everything is written into a temporary folder that is renamed at the end, so an existing folder is complete. A lock
makes a second process wait; where no lock can be written, both unpack and the first rename wins.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rib.errors import RibError
from rib.runtime.console import say
from rib.runtime.locks import hold_while_making
from rib.runtime.progress import progress

DONE = ".rib-unpacked"
"""Hidden file in a complete folder, which holds the number of its images."""

VERSION = 1
"""Version of the folder's layout, part of its digest."""

STALE_SECONDS = 86_400
"""Age above which an unfinished folder is taken as abandoned if there is no lock to say so, seconds."""


@dataclass(frozen=True)
class Packed:
    """An image on its way into the cache.

    Attributes:
        label: Name of its class's folder.
        name: File name.
        content: Its bytes.
    """

    label: str
    name: str
    content: bytes


@dataclass(frozen=True)
class Source:
    """Images to unpack.

    Attributes:
        title: The domain's title.
        size: How much it is, in words for a message: ``1.2 GB``.
        total: Units of work in all, and what they are called.
        unit: Name of the units.
        images: Returns the images; it is given a function to call as units of work get done.
    """

    title: str
    size: str
    total: int
    unit: str
    images: Callable[[Callable[[int], object]], Iterable[Packed]]


def unpack(folder: Path, source: Source) -> Path:
    """Unpack images into class folders in a folder, unless they are there already, and return the folder.

    Args:
        folder: The folder to make; its name has the digest of what is unpacked.
        source: The images.

    Raises:
        RibError: If an image has a name that no file can have, the disk is full, or images were removed afterwards.
    """
    if is_unpacked(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with hold_while_making(folder) as locked:
            if not is_unpacked(folder):  # else another process unpacked it while this one waited
                _clear(folder, everything=locked)
                say(f"unpacking {source.title} (once, {source.size}) into {folder}")
                _publish(folder, source)
    except OSError as error:
        raise RibError(
            f"cannot unpack {source.title} ({source.size}) into {folder}: {error.strerror or error}; make room there, "
            "or choose another disk with paths.cache"
        ) from error
    return folder


def is_unpacked(folder: Path) -> bool:
    """Return True if a folder was unpacked to its end."""
    return (folder / DONE).is_file()


def check_count(folder: Path, found: int, title: str) -> None:
    """Check that an unpacked folder still has all of its images.

    Raises:
        RibError: If it has fewer or more.
    """
    with suppress(OSError, ValueError):
        if found != (expected := int((folder / DONE).read_text())):
            raise RibError(
                f"{title}: expected {expected:,} unpacked images in {folder}, found {found:,}; delete that folder, and "
                "rib unpacks them again"
            )


def _clear(folder: Path, everything: bool) -> None:
    """Remove unfinished folders of killed processes: all if this process holds the lock, else only old ones."""
    for partial in folder.parent.glob(f".{folder.name}.partial-*"):
        with suppress(OSError):
            if everything or time.time() - partial.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(partial)
    if folder.exists():
        shutil.rmtree(folder)


def _publish(folder: Path, source: Source) -> None:
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}-{os.urandom(4).hex()}")
    try:
        partial.mkdir()
        count = 0
        with progress(f"unpacking {source.title}", source.total, source.unit) as advance:
            for image in source.images(lambda done: advance(done, "")):
                _write(partial, image, source.title)
                count += 1
        (partial / DONE).write_text(str(count))
        try:
            partial.rename(folder)
        except OSError:
            if not is_unpacked(folder):  # else another process was faster, and its images are the same
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(folder: Path, image: Packed, title: str) -> None:
    if not re.fullmatch(r"[^./\0][^/\0]*", image.label) or len(image.label.encode()) > 200:
        raise RibError(f"{title}: expected a class name that a folder can have, got {image.label!r}; rename the class")
    place = folder / image.label
    place.mkdir(exist_ok=True)
    try:
        with (place / image.name).open("xb") as stream:
            stream.write(image.content)
    except FileExistsError as error:
        raise RibError(f"{title}: expected each image once, got {image.label}/{image.name} twice") from error
