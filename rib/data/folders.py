"""Where a dataset lies, which of its folders mean which class, and what is in them. No torch.

A listing is kept as a record: while no folder's time has changed, a second start stats folders and does not walk
50,000 files again.
"""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rib.data.catalog import DatasetSpec
from rib.errors import RibError
from rib.memo import digest_of
from rib.progress import progress

SUFFIXES = (".jpg", ".jpeg", ".png")
"""Image files, whatever the case of their ending; everything else in a class folder is ignored."""

RACY_NS = 2_000_000_000
"""A folder changed less than this before it was listed may change again within one tick of its clock."""

ARCHIVES = ("noise", "blur", "weather", "digital", "extra")
"""ImageNet-C's tars unpack to noise/gaussian_noise/..., blur/..., which some keep and some flatten."""

FLAT = ""
"""Stands for the dataset's folder itself among its class folders, where images lie flat in it."""

Listing = dict[str, list[tuple[str, int]]]
"""(File name, bytes) of every image by class folder, relative to the dataset's folder."""


class MissingDatasetError(RibError):
    """A dataset is not there at all."""


def find_folder(spec: DatasetSpec, root: Path) -> Path:
    """The first of a dataset's places that is there.

    Raises:
        MissingDatasetError: If none is, with what is probably wrong about the root.
    """
    if not _is_dir(root):
        raise MissingDatasetError(
            f"expected the folder {root} to hold {spec.folders[0]}; it is not there, set data.root"
        )
    for place in spec.folders:
        if _is_dir(root / place):
            return root / place
    expected = f"{spec.title}: expected the folder {root / spec.folders[0]}, which is not there"
    above = root.absolute().parent
    for place in spec.folders:
        if _is_dir(above / place):
            raise MissingDatasetError(
                f"{expected}, but {above / place} is; data.root is one level too deep, give {above}"
            )
        inner = next((p for p in sorted(root.iterdir()) if _is_dir(p / place)), None)
        if inner is not None:
            raise MissingDatasetError(
                f"{expected}, but {inner / place} is; data.root is one level too high, give {inner}"
            )
    raise MissingDatasetError(
        f"{expected}; unpack its archive there, or go on without it with data.allow_incomplete=true"
    )


def class_of_folder(spec: DatasetSpec, folder: Path) -> tuple[dict[str, int], set[str] | None]:
    """What the names of folders mean.

    Args:
        spec: From the catalog, whose names always count.
        folder: Of the dataset; ObjectNet's mapping files, which lie beside it, add folders renamed since.

    Returns:
        The label of each name; and the names that are right but no class here, None meaning all others.

    Raises:
        RibError: If a mapping file cannot be read.
    """
    known = {name: label for label, name in class_names(spec)}
    if not spec.more_folders:
        return known, set()
    file = folder.parent / "mappings" / "folder_to_objectnet_label.json"
    if not file.is_file():
        return known, None
    try:
        mapping: dict[str, str] = json.loads(file.read_text())
    except ValueError as error:
        raise RibError(f"{spec.title}: {file} is no JSON file ({error}); unpack its archive again") from error
    label_of = {mapping[name]: label for name, label in known.items() if name in mapping}
    renamed = {name: label_of[title] for name, title in mapping.items() if title in label_of}
    return renamed | known, set(mapping) - set(renamed)


def class_names(spec: DatasetSpec) -> Iterator[tuple[int, str]]:
    """Every (label, folder name) that the rule accepts."""
    labels = spec.labels or tuple(range(len(spec.classes)))
    for label, name in zip(labels, spec.classes, strict=True):
        yield label, name
        if spec.rule == "number":  # the release numbers its folders by output id; repacks name them by WordNet id
            yield label, str(spec.groups[label][0])


def class_name(spec: DatasetSpec, name: str) -> str:
    """The class in a folder's relative name: ``fog/3/n01440764`` -> ``n01440764``, ImageNet-V2's ``0007`` -> ``7``."""
    name = name.rpartition("/")[2]
    return str(int(name)) if spec.rule == "number" and name.isdecimal() else name


def flat_names(spec: DatasetSpec, folder: Path, images: Sequence[str]) -> list[str]:
    """The WordNet id of each image of a folder without class folders, from a synset file in it or beside it.

    Args:
        spec: From the catalog.
        folder: Of the dataset.
        images: File names, sorted.

    Raises:
        RibError: If there is no such file, or it does not fit the images.
    """
    places = [place / name for name in spec.synset_files for place in (folder.parent, folder)]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise RibError(
            f"{spec.title}: the images lie flat in {folder}, and none of {', '.join(spec.synset_files)} is there or in "
            f"{folder.parent} to tell their classes; put one there, or sort the images into class folders"
        )
    if file.suffix == ".csv":
        with file.open(newline="") as lines:
            of_image = {row[0]: row[1].split(" ")[0] for row in csv.reader(lines) if len(row) > 1}
        missing = next((image for image in images if Path(image).stem not in of_image), None)
        if missing is not None:
            raise RibError(f"{spec.title}: {file} has no line for {missing} in {folder}; take the file of this release")
        names = [of_image[Path(image).stem] for image in images]
    else:
        names = file.read_text().split()
        if len(names) != len(images):
            raise RibError(
                f"{spec.title}: expected a line in {file} for each of the {len(images):,} images in {folder}, "
                f"found {len(names):,}; unpack the archive again, or take another file"
            )
    unknown = next((name for name in names if name not in spec.classes), None)
    if unknown is not None:
        raise RibError(f"{spec.title}: {file} names {unknown!r}, which is no class of it; take another file")
    return names


def list_folder(spec: DatasetSpec, folder: Path, records: Path | None = None, rescan: bool = False) -> Listing:
    """Every image by class folder.

    Args:
        spec: From the catalog.
        folder: From `find_folder`.
        records: Folder to keep listings in, or None.
        rescan: List again although no folder's time has changed.

    Raises:
        RibError: If a file is a link to nowhere.
    """
    times = {name: (folder / name).stat().st_mtime_ns for name in _class_folders(spec, folder)}
    name = f"{spec.name}-{digest_of([str(folder.resolve()), spec.rule, spec.cells])}.json"
    record = None if records is None else records / name
    kept = None if record is None or rescan else _read(record, times)
    if kept is not None:
        return kept
    begun = time.time_ns()
    listing = {}
    with progress(f"listing {spec.title}", len(times), "folders") as advance:
        for name in times:
            listing[name] = _image_files(folder / name)
            advance(1, "")
    if record is not None and max(times.values(), default=0) < begun - RACY_NS:
        record.parent.mkdir(parents=True, exist_ok=True)
        temporary = record.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps({"times": times, "files": listing}))
        os.replace(temporary, record)
    return listing


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def _class_folders(spec: DatasetSpec, folder: Path) -> list[str]:
    """Relative names of the folders that hold images."""
    if spec.rule != "corruption":
        return subfolders(folder) or ([FLAT] if spec.synset_files else [])
    found = []
    for cell in spec.cells:
        places = [cell, *(f"{archive}/{cell}" for archive in ARCHIVES)]
        place = next((p for p in places if (folder / p).is_dir()), None)
        if place is not None:
            found += [f"{place}/{name}" for name in subfolders(folder / place)]
    return found


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


def _read(record: Path, times: dict[str, int]) -> Listing | None:
    """What a record holds, unless it is of folders with other times, or damaged."""
    try:
        kept = json.loads(record.read_text())
        files = {name: [(str(file), int(size)) for file, size in kept["files"][name]] for name in times}
        return files if kept["times"] == times else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a folder that may not be looked into
        return False
