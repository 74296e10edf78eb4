"""Where a dataset lies, and which of its folders mean which class. No torch."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from rib.data.catalog import DatasetSpec
from rib.errors import RibError

VAL_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})(?!\d)")
"""In the name of an image of val, which images it is."""


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
        f"{expected}; unpack its archive there, give the right data.root, or go on without it with "
        "data.allow_incomplete=true"
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
        mapping = json.loads(file.read_text())
        if not isinstance(mapping, dict) or not all(isinstance(title, str) for title in mapping.values()):
            raise ValueError("expected a title for each folder")
    except ValueError as error:
        raise RibError(f"{spec.title}: {file} is no JSON file ({error}); unpack its archive again") from error
    label_of = {mapping[name]: label for name, label in known.items() if name in mapping}
    if len(label_of) < sum(name in mapping for name in known):
        raise RibError(f"{spec.title}: {file} gives two classes one title; unpack its archive again")
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
        names = _names_by_number(spec, folder, file, images)
    unknown = next((name for name in names if name not in spec.classes), None)
    if unknown is not None:
        raise RibError(f"{spec.title}: {file} names {unknown!r}, which is no class of it; take another file")
    return names


def _names_by_number(spec: DatasetSpec, folder: Path, file: Path, images: Sequence[str]) -> list[str]:
    """A line for each image of the release, in the order of their numbers, whichever of them are there."""
    lines = file.read_text().split()
    if len(lines) != spec.num_images:
        raise RibError(
            f"{spec.title}: expected a line in {file} for each of the {spec.num_images:,} images of the release, "
            f"found {len(lines):,}; unpack the archive again, or take another file"
        )
    numbers = [int(found[1]) if (found := VAL_NUMBER.match(image)) else 0 for image in images]
    for image, number in zip(images, numbers, strict=True):
        if not 0 < number <= len(lines):
            raise RibError(
                f"{spec.title}: expected images ILSVRC2012_val_00000001 to {len(lines):08} in {folder}, found {image}, "
                f"of which no line in {file} is certain; move it away, or sort the images into class folders"
            )
    return [lines[number - 1] for number in numbers]


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a folder that may not be looked into
        return False
