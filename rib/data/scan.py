"""Scan a dataset's folder into an `ImageTree`, checking its classes and number of images against the catalog."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rib.data.catalog import DatasetSpec
from rib.data.folders import (
    class_name,
    class_names,
    class_of_folder,
    find_folder,
    flat_names,
)
from rib.data.identity import CONTENTS, DIGESTS, RECORDS, FileIdentity, contents_digest, drawn_digests
from rib.data.layout import expected_images, layout_fault, wrong_images_fault
from rib.data.listing import FLAT, Listing, list_folder
from rib.data.suites.scan_domain import scan_domain
from rib.data.tree import ImageTree
from rib.errors import MissingDatasetError, RibError
from rib.runtime.console import say
from rib.runtime.content import Ints
from rib.runtime.files import digest_of


def scan(
    spec: DatasetSpec,
    root: Path,
    records: Path | None = None,
    rescan: bool = False,
    allow_incomplete: bool = False,
    identity: str | None = None,
) -> ImageTree:
    """List a dataset's images and check them against the catalog.

    Args:
        spec: The dataset's catalog entry.
        root: The data root.
        records: Folder for saved listings and file digests, or None to save none.
        rescan: List and read all files again, even if they look unchanged.
        allow_incomplete: Accept missing images and classes; folders that are not a class are ignored.
        identity: How images not drawn by rib are identified, ``content`` or ``listing`` (file sizes). None:
            ``listing`` for ImageNet-C, ``content`` for all others.

    Returns:
        The images with their labels, in path order.

    Raises:
        MissingDatasetError: If the folder does not exist, or holds no image.
        RibError: If classes or images are missing or unknown.
    """
    if spec.domain is not None:
        return scan_domain(spec, root, records, rescan, allow_incomplete, identity)
    begun = time.time_ns()  # with rescan, digests saved before this time are computed again
    folder = find_folder(spec, root)
    listing = list_folder(spec, folder, records, rescan)
    label_of, other_folders = class_of_folder(spec, folder)
    flat = listing.folders == (FLAT,) and len(listing.names) > 0
    if flat:
        chosen = listing
        labels = np.array([label_of[name] for name in flat_names(spec, folder, listing.names)], dtype=np.int64)
    else:
        chosen = listing.only(lambda name: class_name(spec, name) in label_of)
        folder_labels = np.array([label_of[class_name(spec, name)] for name in chosen.folders], dtype=np.int64)
        labels = np.repeat(folder_labels, chosen.counts)
    paths = chosen.paths()
    # Never overridden by allow_incomplete: wrong labels give plausible numbers that mean nothing.
    if wrong := wrong_images_fault(spec, folder, listing, label_of, paths, labels):
        raise RibError(wrong)
    fault = layout_fault(spec, folder, listing, label_of, other_folders)
    if fault is None and not len(labels):
        raise MissingDatasetError(
            f"{spec.title}: expected class folders with images in {folder}, found no image; "
            "unpack its archive there, or continue without it with data.allow_incomplete=true"
        )
    short = _count_fault(spec, folder, listing, labels)
    fault = fault or short
    if fault is not None and not (allow_incomplete and len(labels)):
        raise RibError(fault)
    file_identity = FileIdentity.of(spec, folder, identity, records, begun if rescan else 0)
    incomplete = counts(spec, labels) if short else None
    found = len(labels) if spec.num_images is None else None  # recorded where a complete copy has no fixed size
    tree = ImageTree(spec, folder, paths, labels, None, incomplete, chosen.sizes, file_identity, found)
    # An incomplete copy is identified by its files: the pixel digest covers the whole dataset.
    return _with_pixel_digest(tree, root) if fault is None else tree


def counts(spec: DatasetSpec, labels: Sequence[int] | Ints = ()) -> dict[str, int | None]:
    """Return the actual and expected numbers of images and classes (the smallest, where releases differ)."""
    return {
        "images": len(labels),
        "expected": spec.num_images if spec.between is None else spec.between[0],
        "classes": len(np.unique(labels)),
        "expected_classes": len(spec.groups),
    }


def _count_fault(spec: DatasetSpec, folder: Path, listing: Listing, labels: Ints) -> str | None:
    """Return an error message if images, classes or folders are missing; None if the dataset is complete."""
    go_on = "unpack its archive again, or continue with the images found with data.allow_incomplete=true"
    if spec.cells and (fault := _cell_fault(spec, listing)):
        return f"{spec.title}: {fault} in {folder}; {go_on}"
    wanted = set(spec.labels or range(len(spec.classes)))
    empty = sorted(wanted - set(np.unique(labels).tolist()))
    if empty:
        name = next(name for label, name in class_names(spec) if label == empty[0])
        return (
            f"{spec.title}: expected {len(wanted)} classes with images in {folder}, found {len(wanted) - len(empty)} "
            f"({name} has none); {go_on}"
        )
    least = spec.num_images if spec.between is None else spec.between[0]
    if least is not None and len(labels) < least:
        return f"{spec.title}: expected {expected_images(spec)} images in {folder}, found {len(labels):,}; {go_on}"
    if spec.balanced and least is not None and len(each := np.unique(np.bincount(labels))) > 1:
        return (
            f"{spec.title}: expected equally many images of each class in {folder}, found {each[0]} to {each[-1]}; "
            f"{go_on}"
        )
    return None


def _cell_fault(spec: DatasetSpec, listing: Listing) -> str | None:
    """Return what is wrong if a ``corruption/severity`` folder of ImageNet-C lacks images, else None."""
    count_of = Counter[str]()
    for name, count in zip(listing.folders, listing.counts.tolist(), strict=True):
        count_of["/".join(name.split("/")[-3:-1])] += count
    empty = [cell for cell in spec.cells if not count_of[cell]]
    if empty:
        num_found = len(spec.cells) - len(empty)
        return (
            f"expected {len(spec.cells)} corruption/severity folders with images, found {num_found} "
            f"({empty[0]} has none)"
        )
    each = None if spec.num_images is None else spec.num_images // len(spec.cells)
    wrong = next((cell for cell in spec.cells if each is not None and count_of[cell] != each), None)
    return wrong and f"expected {each:,} images in {wrong}, found {count_of[wrong]:,}"


def _with_pixel_digest(tree: ImageTree, root: Path) -> ImageTree:
    """Return a dataset, identified by its pixels if rib drew it and its files are unchanged, else as it was given.

    JPEG encoders differ between machines, so the files of mini do too while its pixels before encoding do not: only
    the digest of pixels gives a run the same key (hash in the store) on every machine.
    """
    spec, digests = tree.spec, drawn_digests(root)
    if digests is None or spec.name not in digests[DIGESTS]:
        return tree
    identity = FileIdentity.of(spec, tree.folder, "content", root / RECORDS, tree.file_identity.since)
    if contents_digest(identity.contents(tree.folder, tree.paths, spec.title)) != digests[CONTENTS].get(spec.name):
        say(
            f"{spec.title}: images in {tree.folder} have changed since they were drawn; runs use the changed images "
            f"and are stored separately (delete {root} to draw all images again)"
        )
        return tree
    drawn = digests[DIGESTS][spec.name]
    if spec.labels:  # the pixel digest does not cover labels, which data.label_rule=authors changes
        drawn = digest_of([drawn, spec.labels])
    return replace(tree, drawn=drawn, file_identity=identity)
