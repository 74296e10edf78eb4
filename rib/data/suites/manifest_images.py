"""Read a domain that is a table of images: CSV, TSV, JSON, JSON lines or parquet, with a path and a label a row."""

from __future__ import annotations

import csv
import json
import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import Any

from rib.data.suites.images import DomainImages
from rib.errors import RibError, nearest
from rib.runtime.progress import progress

COLUMNS = ("path", "label", "domain")
"""Columns of a manifest; ``domain`` may be missing, and others are ignored."""

ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Manifest:
    """The columns of a manifest, one entry a row.

    Attributes:
        paths: Paths as they are written.
        labels: Class names as they are written; numbers as text.
        domains: Values of the column ``domain``, or None without one.
    """

    paths: list[str]
    labels: list[str]
    domains: list[str] | None


def read_manifest(root: Path, file: Path, select: str | None, title: str, skip_missing: bool = False) -> DomainImages:
    """List the images of a manifest's rows.

    Args:
        root: The suite's root. Paths are relative to the manifest's folder, or to the root if the first row's image is
            not there.
        file: The manifest.
        select: Value of the column ``domain`` whose rows to take; None takes all.
        title: The domain's title, for messages.
        skip_missing: Leave out images that do not exist.

    Returns:
        Its images.

    Raises:
        RibError: If the manifest is damaged, has no such column or value, or an image is missing, there twice, or
            outside the root.
    """
    rows = rows_of(file, select)
    base = base_of(root, file, select)
    label_of: dict[str, str] = {}
    for number, path, label in rows:
        path = _relative(path, base, root, f"{title}: {file}, row {number}")
        if path in label_of:
            raise RibError(f"{title}: {file}, row {number}: expected each image once, got {path} again; remove the row")
        label_of[path] = label
    sizes = _sizes(base, list(label_of), title, skip_missing)
    found = ((path, label_of[path], size) for path, size in sizes.items())
    folders = sorted({posixpath.dirname(path) for path in label_of})
    places = [os.path.relpath(file, base), *(folder or os.curdir for folder in folders)]
    return DomainImages.of(base, found, [place for place in places if (base / place).exists()])


def manifest_of(file: Path) -> Manifest:
    """Read a manifest; a file is read once per process, unless it changes.

    Raises:
        RibError: If it is missing or damaged, has a suffix that is none of `ENDINGS`, or lacks a column.
    """
    try:
        status = file.stat()
    except OSError as error:
        raise RibError(f"there is no manifest {file}; correct its path in the suite's file") from error
    return _read(file, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4)  # the domains of a suite usually share one
def _read(file: Path, size: int, mtime_ns: int) -> Manifest:
    ending = file.suffix.lower()
    if ending not in ENDINGS:
        raise RibError(f"{file}: expected a manifest with the ending {', '.join(ENDINGS)}, got {ending or 'none'}")
    try:
        if ending in (".csv", ".tsv"):
            rows = _table(file, "," if ending == ".csv" else "\t")
        elif ending == ".parquet":
            rows = _parquet(file)
        else:
            rows = _objects(file, lines=ending == ".jsonl")
        columns, values = next(rows), list(rows)
    except (ValueError, OSError, csv.Error) as error:
        raise RibError(f"{file} cannot be read as {ending[1:]} ({error}); write it again") from error
    for column in COLUMNS[:2]:
        if column not in columns:
            got = ", ".join(columns) or "none"
            raise RibError(f"{file}: expected the columns path and label, got {got}; name the columns so")
    index = [columns.index(column) for column in COLUMNS if column in columns]
    texts: list[list[str]] = [[_text(row, i, columns, number, file) for number, row in values] for i in index]
    return Manifest(texts[0], texts[1], texts[2] if len(texts) > 2 else None)


def _table(file: Path, delimiter: str) -> Iterator[Any]:
    """Yield a table's column names, and then (number, values) of each row; the first row below them is row 1."""
    with file.open(newline="", encoding="utf-8-sig") as stream:
        lines = csv.reader(stream, delimiter=delimiter)
        yield [name.strip().lower() for name in next(lines, [])]
        yield from enumerate(([text.strip() for text in row] for row in lines if row), 1)  # "a.jpg, dog"


def _objects(file: Path, lines: bool) -> Iterator[Any]:
    text = file.read_text(encoding="utf-8-sig")
    objects = [json.loads(line) for line in text.splitlines() if line.strip()] if lines else json.loads(text)
    if not isinstance(objects, list) or not all(isinstance(one, dict) for one in objects):
        raise ValueError("expected objects with path and label, one a row")
    columns = [column for column in COLUMNS if any(column in one for one in objects)]
    yield columns or sorted(objects[0] if objects else [])
    yield from ((number, [one.get(column) for column in columns]) for number, one in enumerate(objects, 1))


def _parquet(file: Path) -> Iterator[Any]:
    import pandas as pd

    try:
        frame = pd.read_parquet(file)
    except ImportError as error:
        raise RibError(
            f'{file}: reading parquet needs pyarrow, which is not installed; pip install "rib[parquet]", or write '
            "the table as CSV"
        ) from error
    except Exception as error:  # pyarrow has exceptions of its own for each kind of damage
        raise ValueError(" ".join(str(error).split())) from error
    yield [str(column).strip().lower() for column in frame.columns]
    yield from enumerate(frame.itertuples(index=False, name=None), 1)


def _text(row: Any, index: int, columns: list[str], number: int, file: Path) -> str:
    value: Any = row[index] if index < len(row) else None
    if isinstance(value, str) and value:
        return value
    try:
        whole = int(value)
    except (TypeError, ValueError, OverflowError):
        whole = None
    if whole is None or whole != value or isinstance(value, bool):
        raise RibError(f"{file}, row {number}: expected a {columns[index]}, got {value!r}; correct or remove the row")
    return str(whole)


def rows_of(file: Path, select: str | None) -> list[tuple[int, str, str]]:
    """Return (row, path, label) of a domain's rows; the first row below the names of the columns is row 1.

    Args:
        file: The manifest.
        select: Value of the column ``domain`` whose rows to take; None takes all.

    Raises:
        RibError: If the manifest is missing or damaged, or has no such column or value.
    """
    manifest = manifest_of(file)
    rows = list(zip(range(1, len(manifest.paths) + 1), manifest.paths, manifest.labels, strict=True))
    if select is None:
        return rows
    if manifest.domains is None:
        raise RibError(f"{file}: expected a column domain with the value {select}, got only path and label")
    if select not in manifest.domains:
        known = sorted(set(manifest.domains))
        hint = nearest(select, known) or f"; known: {', '.join(known[:20])}"
        raise RibError(f"{file}: expected rows with domain {select}, found none{hint}")
    return [row for row, domain in zip(rows, manifest.domains, strict=True) if domain == select]


def base_of(root: Path, file: Path, select: str | None) -> Path:
    """Return the folder that a manifest's paths are relative to: its own if the first image is there, else the root.

    Raises:
        RibError: If the manifest is missing, damaged, or has no such rows.
    """
    rows = rows_of(file, select)
    first = rows[0][1] if rows else ""
    return file.parent if first and not posixpath.isabs(first) and (file.parent / first).exists() else root


def _relative(path: str, base: Path, root: Path, where: str) -> str:
    """Return a path relative to the base; an absolute one must lie below the root.

    A path outside the root would make the digest of the images, and with it the keys of runs, depend on the machine.
    """
    if posixpath.isabs(path):
        inside = next(
            (top for top in (root.absolute(), root.resolve()) if PurePosixPath(path).is_relative_to(top)), None
        )
        if inside is None:
            raise RibError(
                f"{where}: expected a path below {root}, got {path}; write paths relative to the suite's root"
            )
        path = os.path.relpath(root / PurePosixPath(path).relative_to(inside), base)
    if "./" in path or "//" in path:
        path = posixpath.normpath(path)
    if path.startswith("../"):
        below = posixpath.normpath(base / path).startswith(f"{root}/")
        how = f"write paths relative to {root}" if below else "set root to a folder above all images"
        raise RibError(f"{where}: expected a path below {base}, got {path}; {how}")
    return path


def _sizes(base: Path, paths: list[str], title: str, skip_missing: bool) -> dict[str, int]:
    sizes: dict[str, int] = {}
    missing, size_of = [], _size_of  # text paths take half the time of Path objects, for a million files
    with progress(f"listing {title}", len(paths)) as advance:
        for path in paths:
            size = size_of(f"{base}/{path}")
            if size is None:
                missing.append(path)
            else:
                sizes[path] = size
            advance(1, "")
    if missing and not skip_missing:
        raise RibError(
            f"{title}: expected {len(paths):,} images of its manifest in {base}, found {len(sizes):,} ({missing[0]} is "
            "missing); correct the paths, or continue with the images found with data.allow_incomplete=true"
        )
    return sizes


def _size_of(path: str) -> int | None:
    """Return the size of a file, bytes; None if there is none at this path, or only a folder."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):  # ValueError: no path at all
        return None
    return status.st_size if S_ISREG(status.st_mode) else None
