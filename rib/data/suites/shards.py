"""Read a domain that is tar shards in webdataset's layout: ``key.jpg`` and ``key.cls``, side by side."""

from __future__ import annotations

import lzma
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.filesize import decimal

from rib.data.suites.images import is_image
from rib.data.suites.unpack import VERSION, Packed, Source
from rib.errors import RibError
from rib.runtime.content import file_digest_of
from rib.runtime.counting import plural
from rib.runtime.files import digest_of

RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
"""webdataset's way to name several shards: ``shard-{000..009}.tar``."""


LONGEST = 240
"""Largest length of the name of an unpacked file, bytes; a longer one is replaced by its digest."""


def shard_files(root: Path, pattern: str, title: str) -> list[Path]:
    """Return the shards that a pattern names, sorted.

    Args:
        root: The suite's root.
        pattern: Path relative to the root with wildcards, or with a range ``{000..009}``.
        title: The domain's title, for messages.

    Raises:
        RibError: If there is none, or one of a range is missing.
    """
    if match := RANGE.search(pattern):
        first, last = match[1], match[2]
        names = [
            pattern[: match.start()] + f"{i:0{len(first)}}" + pattern[match.end() :]
            for i in range(int(first), int(last) + 1)
        ]
        files = [root / name for name in names]
        if missing := next((file for file in files if not file.is_file()), None):
            raise RibError(
                f"{title}: expected the shards {pattern} in {root}, found no {missing.name}; correct the range"
            )
        return files
    files = sorted(file for file in root.glob(pattern) if file.is_file())
    if not files:
        raise RibError(f"{title}: expected tar shards {pattern} in {root}, found none; correct the pattern")
    return files


def shards_digest(files: list[Path], records: Path | None) -> str:
    """Return a digest of the names and contents of some shards, from which the name of their folder is made.

    Args:
        files: The shards.
        records: Folder that stores the digests of files; None stores nothing.
    """
    return digest_of([VERSION, [(file.name, file_digest_of(file, records)) for file in files]])


def shards_source(files: list[Path], title: str) -> Source:
    """Return what there is to unpack in some shards."""
    size = sum(file.stat().st_size for file in files)
    words = f"{plural(len(files), 'shard')}, {decimal(size)}"

    def images(advance: Callable[[int], object]) -> Iterator[Packed]:
        for file, name in zip(files, _names(files), strict=True):
            yield from _images_of(file, name, title)
            advance(1)

    return Source(title, words, len(files), "shards", images)


def class_names_in(files: list[Path], title: str) -> Iterator[str]:
    """Yield the class of each image in some shards, as their .cls files give it, without reading the images."""
    for file in files:
        for _, _, label in _pairs_of(file, title, with_images=False):
            yield label


def _names(files: list[Path]) -> list[str]:
    """Return a name for each shard, by which images of the same key in two shards differ."""
    names = [file.name.partition(".")[0] for file in files]
    return (
        names
        if len({*names}) == len(names)
        else [f"{file.parent.name}-{name}" for file, name in zip(files, names, strict=True)]
    )


def _images_of(file: Path, shard: str, title: str) -> Iterator[Packed]:
    for name, content, label in _pairs_of(file, title, with_images=True):
        # Keys often begin again in each shard, and may hold folders.
        yield Packed(label, _file_name(f"{shard}-{name.replace('/', '-')}"), content)


def _file_name(name: str) -> str:
    """Return a name that a file can have, of at most 255 bytes."""
    if len(name.encode()) <= LONGEST:
        return name
    stem, _, ending = name.rpartition(".")
    return f"{digest_of(stem)}.{ending}"


def _pairs_of(file: Path, title: str, with_images: bool) -> Iterator[tuple[str, bytes, str]]:
    """Yield (file name, content, class) of each image of a shard; the members of one key lie side by side."""
    key: str | None = None
    image: tuple[str, bytes] | None = None
    label: str | None = None

    def pair() -> tuple[str, bytes, str] | None:
        if image is None and label is None:
            return None  # a key of other files
        if image is None or not label:
            lacks = "image" if image is None else "class (.cls)"
            raise RibError(
                f"{title}: expected key.jpg and key.cls side by side in {file}, but {key} has no {lacks}; write "
                "the shard again"
            )
        return *image, label

    try:
        with tarfile.open(file, "r:*") as archive:
            for member in archive:
                folder, _, name = member.name.rpartition("/")
                stem, _, ending = name.partition(".")
                if not member.isfile() or not stem:
                    continue
                if (own := f"{folder}/{stem}".lstrip("/")) != key:
                    if found := pair():
                        yield found
                    key, image, label = own, None, None
                if ending.lower() == "cls":
                    label = _content(archive, member).decode(errors="replace").strip()
                elif is_image(name):
                    if image is not None:
                        raise RibError(f"{title}: expected one image for each key, got two for {key} in {file}")
                    image = f"{own}.{ending}", _content(archive, member) if with_images else b""
            _check_end(archive)
            if found := pair():
                yield found
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        why = "it is no tar file" if "opened successfully" in str(error) else " ".join(str(error).split())
        raise RibError(f"{title}: {file} cannot be read as a tar file ({why}); write or fetch it again") from error


def _check_end(archive: tarfile.TarFile) -> None:
    """Raise an error if there is no block of zeros at the end, without which a cut file looks whole."""
    stream = archive.fileobj
    assert stream is not None  # it was opened by name
    stream.seek(archive.offset)
    if len(block := stream.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE or any(block):
        raise tarfile.ReadError("it is cut short")
    while stream.read(2**20):  # a compressed file has its check sum at its end
        pass


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(member)
    return b"" if stream is None else stream.read()
