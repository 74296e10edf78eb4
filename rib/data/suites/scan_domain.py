"""Scan a domain of a user's suite into an `ImageTree`, checking its classes against the suite's."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from rib.data.catalog import DatasetSpec
from rib.data.identity import FileIdentity
from rib.data.suites.images import DomainImages, is_image, subfolders
from rib.data.suites.read import read_domain
from rib.data.tree import ImageTree
from rib.errors import MissingDatasetError, RibError, nearest
from rib.runtime.console import say_once
from rib.runtime.content import Ints
from rib.runtime.counting import plural

NAMED = 3
"""Classes that are named in a message; of more, the number is given."""


def scan_domain(
    spec: DatasetSpec,
    root: Path,
    records: Path | None = None,
    rescan: bool = False,
    allow_incomplete: bool = False,
    identity: str | None = None,
) -> ImageTree:
    """List the images of a domain, and give each the number of its class in the suite.

    Args:
        spec: The catalog entry of a suite's domain.
        root: The suite's root.
        records: Folder for saved listings and file digests, or None to save none.
        rescan: List and read all files again, even if they look unchanged.
        allow_incomplete: Leave out images of unknown classes, and images of a manifest that are missing.
        identity: How images are identified, ``content`` (also None) or ``listing`` (file sizes).

    Returns:
        The images with their labels, in path order. Classes that the domain lacks stay in the label space.

    Raises:
        MissingDatasetError: If the folder does not exist, or holds no image of a class.
        RibError: If a class is unknown.
    """
    begun = time.time_ns()  # with rescan, digests saved before this time are computed again
    images = read_domain(spec, root, records, rescan, allow_incomplete)
    paths, labels, sizes = _labelled(spec, images, allow_incomplete)
    if not len(labels):
        raise MissingDatasetError(_nothing_found(spec, images))
    file_identity = FileIdentity.of(spec, images.folder, identity, records, begun if rescan else 0)
    return ImageTree(spec, images.folder, paths, labels, None, None, sizes, file_identity, len(labels))


def say_absent_classes(tree: ImageTree) -> None:
    """Print which of a user's suite's classes a domain has no image of, if there are some."""
    if tree.spec.domain is not None and (absent := absent_classes(tree.spec, tree.labels)):
        lacks = named(absent, "class", "classes")
        say_once(f"{tree.spec.title} has no image of {lacks}; accuracy is over the images it has")


def absent_classes(spec: DatasetSpec, labels: Ints) -> list[str]:
    """Return the suite's classes of which a domain has no image, in label order."""
    present = np.bincount(labels, minlength=len(spec.classes)) > 0
    return [name for name, there in zip(spec.classes, present.tolist(), strict=True) if not there]


def named(names: list[str], noun: str, several: str) -> str:
    """Format some names, of which at most three are written out: ``mug``, ``mug, cat and 2 more classes``."""
    shown = names if len(names) <= NAMED else names[: NAMED - 1]
    if len(shown) == len(names):
        return ", ".join(shown[:-1]) + " and " + shown[-1] if len(shown) > 1 else shown[0]
    return f"{', '.join(shown)} and {plural(len(names) - len(shown), f'more {noun}', f'more {several}')}"


def _labelled(spec: DatasetSpec, images: DomainImages, allow_incomplete: bool) -> tuple[tuple[str, ...], Ints, Ints]:
    """Return the paths, labels and sizes of the images that belong to one of the suite's classes."""
    label_of = [_label(spec, name) for name in images.names]
    unknown = [name for name, label in zip(images.names, label_of, strict=True) if label is None]
    if unknown and not allow_incomplete:
        example = images.paths[int(np.argmax(images.codes == images.names.index(unknown[0])))]
        hint = nearest(unknown[0], spec.classes) or f"; known: {named(list(spec.classes), 'class', 'classes')}"
        raise RibError(
            f"{spec.title}: {unknown[0]} ({images.folder / example}) is none of the suite's {len(spec.classes)} "
            f"classes ({plural(len(unknown), 'such class', 'such classes')}){hint}; add it to classes, rename it with "
            f"class_names: {{{unknown[0]}: ...}}, or leave its images out with class_names: {{{unknown[0]}: null}} or "
            "data.allow_incomplete=true"
        )
    by_code = np.array([-1 if label is None else label for label in label_of], dtype=np.int64)
    labels = by_code[images.codes] if len(by_code) else np.zeros(0, dtype=np.int64)
    keep = labels >= 0
    if keep.all():
        return images.paths, labels, images.sizes
    paths = tuple(path for path, used in zip(images.paths, keep.tolist(), strict=True) if used)
    return paths, labels[keep], images.sizes[keep]


def _label(spec: DatasetSpec, name: str) -> int | None:
    """Return the label of a class by a domain's name of it, -1 for one that is left out, None for an unknown one."""
    renamed = {} if spec.domain is None else spec.domain.class_names
    meant = renamed.get(name, name)
    if meant is None:
        return -1
    if meant in spec.classes:
        return spec.classes.index(meant)
    packed = spec.domain is not None and spec.domain.form != "folder" and spec.domain.form != "glob"
    number = int(meant) if packed and meant.isdecimal() else len(spec.classes)  # tables and shards may number classes
    return number if number < len(spec.classes) else None


def _nothing_found(spec: DatasetSpec, images: DomainImages) -> str:
    """Return a sentence on a domain without images, and where they probably are."""
    place = spec.domain.place if spec.domain is not None else ""
    found = f"{spec.title}: expected images in class folders in {images.folder}, found none"
    if spec.domain is None or spec.domain.form != "folder":
        return (
            f"{spec.title}: expected images, found none of {place} in {images.folder}; correct it in the suite's file"
        )
    for inner in subfolders(images.folder):
        if any(subfolders(images.folder / inner)):
            return f'{found}; they seem to lie deeper, which glob: "{place}/**/*" finds'
    if any(is_image(file.name) for file in images.folder.iterdir()):
        return f"{found}, but images without one; put them into one folder a class, or use glob with class_from: stem"
    return f"{found}; put one folder a class there"
