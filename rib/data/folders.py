"""Find a dataset's folder under the data root, and the class label of each of its sub-folders.

Does not import torch.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from rib.data.catalog import DatasetSpec
from rib.data.suites.read import find_domain_folder
from rib.errors import MissingDatasetError, RibError

VAL_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})(?!\d)")
"""Pattern of an ImageNet val file name; the group is the image's number, from 1."""


def find_folder(spec: DatasetSpec, root: Path) -> Path:
    """Return a dataset's folder under the data root: the first of its possible folders that exists.

    The folder of a user's domain is as its suite's file says; of a suite that is known from its results alone, it is
    unknown.

    Args:
        spec: The dataset's catalog entry.
        root: The data root.

    Raises:
        MissingDatasetError: If none exists; the message says what is probably wrong with the root.
    """
    if spec.domain is not None:
        return find_domain_folder(spec, root)
    if not spec.folders:
        raise MissingDatasetError(f"{spec.title}: expected the suite's file to find its images; give suite=FILE.yaml")
    if not _is_dir(root):
        raise MissingDatasetError(
            f"expected a folder {root} that holds {spec.folders[0]}, but {root} does not exist; set data.root"
        )
    for name in spec.folders:
        if _is_dir(root / name):
            return root / name
    # A root one level off is the commonest mistake, so look on both sides before asking for a download.
    expected = f"{spec.title}: expected the folder {root / spec.folders[0]}, which does not exist"
    above = root.absolute().parent
    for name in spec.folders:
        if _is_dir(above / name):
            raise MissingDatasetError(
                f"{expected}, but {above / name} does; data.root is one level too deep, use {above}"
            )
        inner = next((p for p in sorted(root.iterdir()) if _is_dir(p / name)), None)
        if inner is not None:
            raise MissingDatasetError(
                f"{expected}, but {inner / name} does; data.root is one level too high, use {inner}"
            )
    raise MissingDatasetError(
        f"{expected}; unpack its archive there, set the right data.root, or continue without it with "
        "data.allow_incomplete=true"
    )


def class_of_folder(spec: DatasetSpec, folder: Path) -> tuple[dict[str, int], set[str] | None]:
    """Return the class label of each folder name that a dataset may have, and the names of folders to ignore.

    Args:
        spec: The dataset's catalog entry; its folder names are always accepted.
        folder: The dataset's folder. ObjectNet's mapping files, in ``mappings`` beside it, add renamed folders.

    Returns:
        The label of each class folder, and the names of folders that belong to the release but are not a class here;
        None in place of the latter means that any other folder is accepted.

    Raises:
        RibError: If a mapping file cannot be read.
    """
    known = {name: label for label, name in class_names(spec)}
    # Numbering ObjectNet's folders in sorted order would be wrong for 41 of its 113 classes.
    if not spec.more_folders:
        return known, set()
    file = folder.parent / "mappings" / "folder_to_objectnet_label.json"
    if not file.is_file():
        return known, None  # without the mapping there is no list of the release's other 200 folders
    try:
        mapping = json.loads(file.read_text())
        if not isinstance(mapping, dict) or not all(isinstance(title, str) for title in mapping.values()):
            raise ValueError("expected a title for each folder")
    except ValueError as error:
        raise RibError(f"{spec.title}: {file} is not a valid JSON file ({error}); unpack its archive again") from error
    # The titles are stable between releases of ObjectNet while folders were renamed: go from name to title to label.
    label_of = {mapping[name]: label for name, label in known.items() if name in mapping}
    if len(label_of) < sum(name in mapping for name in known):
        raise RibError(f"{spec.title}: {file} gives two classes the same title; unpack its archive again")
    renamed = {name: label_of[title] for name, title in mapping.items() if title in label_of}
    return renamed | known, set(mapping) - set(renamed)


def class_names(spec: DatasetSpec) -> Iterator[tuple[int, str]]:
    """Yield (label, name) for every name that a class folder of the dataset may have."""
    labels = spec.labels or tuple(range(len(spec.classes)))
    for label, name in zip(labels, spec.classes, strict=True):
        yield label, name
        if spec.rule == "number":  # the release numbers its folders by output id; repacks name them by WordNet id
            yield label, str(spec.groups[label][0])


def class_name(spec: DatasetSpec, name: str) -> str:
    """Return the class name in a folder's path: ``fog/3/n01440764`` -> ``n01440764``, V2's ``0007`` -> ``7``."""
    name = name.rpartition("/")[2]
    # As integers: sorted as strings, only 12 of ImageNet-V2's 1000 folders keep their class (ImageNetV2 issues 4, 10).
    return str(int(name)) if spec.rule == "number" and name.isdecimal() else name


def flat_names(spec: DatasetSpec, folder: Path, images: Sequence[str]) -> list[str]:
    """Return the WordNet id of each image in a folder without class folders, read from a list of labels.

    Args:
        spec: The dataset's catalog entry, whose ``synset_files`` are looked for in the folder and its parent.
        folder: The dataset's folder.
        images: File names, sorted.

    Raises:
        RibError: If there is no list of labels, or it does not match the images.
    """
    candidates = [parent / name for name in spec.synset_files for parent in (folder.parent, folder)]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        raise RibError(
            f"{spec.title}: {folder} holds images but no class folders; expected a list of their classes, one of "
            f"{', '.join(spec.synset_files)}, in it or in {folder.parent}; add one, or sort the images into class "
            "folders"
        )
    if file.suffix == ".csv":
        with file.open(newline="") as lines:
            of_image = {row[0]: row[1].split(" ")[0] for row in csv.reader(lines) if len(row) > 1}
        missing = next((image for image in images if Path(image).stem not in of_image), None)
        if missing is not None:
            raise RibError(f"{spec.title}: {file} has no line for {missing} in {folder}; use the file of this release")
        names = [of_image[Path(image).stem] for image in images]
    else:
        names = _names_by_number(spec, folder, file, images)
    unknown = next((name for name in names if name not in spec.classes), None)
    if unknown is not None:
        raise RibError(f"{spec.title}: {file} names {unknown!r}, which is not one of its classes; use another file")
    return names


def _names_by_number(spec: DatasetSpec, folder: Path, file: Path, images: Sequence[str]) -> list[str]:
    """Return the WordNet id of each val image: line n of a list, where n is the number in the image's file name."""
    lines = file.read_text().split()
    if len(lines) != spec.num_images:
        raise RibError(
            f"{spec.title}: expected one line in {file} for each of the {spec.num_images:,} images of the release, "
            f"found {len(lines):,}; unpack the archive again, or use another file"
        )
    # By the number in the name, not by position in the folder: some of the images may be missing.
    numbers = [int(match[1]) if (match := VAL_NUMBER.match(image)) else 0 for image in images]
    for image, number in zip(images, numbers, strict=True):
        if not 0 < number <= len(lines):
            raise RibError(
                f"{spec.title}: expected images ILSVRC2012_val_00000001 to {len(lines):08} in {folder}, found {image}, "
                f"which has no label in {file}; move it away, or sort the images into class folders"
            )
    return [lines[number - 1] for number in numbers]


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # no permission to look into the folder above
        return False
