"""Scan a dataset's folder for images, and check their number against the catalog."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rib.data.catalog import DatasetSpec
from rib.data.folders import (
    MissingDatasetError,
    class_name,
    class_names,
    class_of_folder,
    find_folder,
    flat_names,
)
from rib.data.identity import CONTENTS, DIGESTS, RECORDS, Telling, contents_digest, drawn_digests
from rib.data.layout import another_set, expected_images, layout_fault
from rib.data.listing import FLAT, Listing, list_folder
from rib.data.tree import ImageTree
from rib.errors import RibError
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
        spec: From the catalog.
        root: The data root.
        records: Folder to keep listings in, or None.
        rescan: List again although no folder has changed, and read again what was read before.
        allow_incomplete: Go on with what is there; folders that are no class are left out.
        identity: How images are told that were not drawn; None: by ``content``, those of ImageNet-C by ``listing``.

    Raises:
        MissingDatasetError: If its folder is not there, or has no image.
        RibError: If classes or images are missing or unknown, in one sentence.
    """
    begun = time.time_ns()
    folder = find_folder(spec, root)
    listing = list_folder(spec, folder, records, rescan)
    known, strangers = class_of_folder(spec, folder)
    flat = listing.folders == (FLAT,) and len(listing.names) > 0
    if flat:
        kept = listing
        labels = np.array([known[name] for name in flat_names(spec, folder, listing.names)], dtype=np.int64)
    else:
        kept = listing.only(lambda name: class_name(spec, name) in known)
        of_folder = np.array([known[class_name(spec, name)] for name in kept.folders], dtype=np.int64)
        labels = np.repeat(of_folder, kept.counts)
    paths = kept.paths()
    if wrong := another_set(spec, folder, listing, known, paths, labels):
        raise RibError(wrong)
    fault = layout_fault(spec, folder, listing, known, strangers)
    if fault is None and not len(labels):
        raise MissingDatasetError(
            f"{spec.title}: expected class folders with images in {folder}, found no image; "
            "unpack its archive there, or go on without it with data.allow_incomplete=true"
        )
    short = _count_fault(spec, folder, listing, labels)
    fault = fault or short
    if fault is not None and not (allow_incomplete and len(labels)):
        raise RibError(fault)
    telling = Telling.of(spec, folder, identity, records, begun if rescan else 0)
    incomplete = counts(spec, labels) if short else None
    found = len(labels) if spec.num_images is None else None
    tree = ImageTree(spec, folder, paths, labels, None, incomplete, kept.sizes, telling, found)
    return _as_drawn(tree, root) if fault is None else tree


def counts(spec: DatasetSpec, labels: Sequence[int] | Ints = ()) -> dict[str, int | None]:
    """Images and classes there, beside what the catalog expects (of images the fewest, where releases differ)."""
    return {
        "images": len(labels),
        "expected": spec.num_images if spec.between is None else spec.between[0],
        "classes": len(np.unique(labels)),
        "expected_classes": len(spec.groups),
    }


def _count_fault(spec: DatasetSpec, folder: Path, listing: Listing, labels: Ints) -> str | None:
    """What is missing from a dataset, and what to do."""
    go_on = "unpack its archive again, or go on with what is there with data.allow_incomplete=true"
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
            f"{spec.title}: expected as many images in {folder} of each class, found {each[0]} to {each[-1]}; {go_on}"
        )
    return None


def _cell_fault(spec: DatasetSpec, listing: Listing) -> str | None:
    """The cells of ImageNet-C that lack images."""
    found = Counter[str]()
    for name, count in zip(listing.folders, listing.counts.tolist(), strict=True):
        found["/".join(name.split("/")[-3:-1])] += count
    empty = [cell for cell in spec.cells if not found[cell]]
    if empty:
        found_cells = len(spec.cells) - len(empty)
        return (
            f"expected {len(spec.cells)} corruption/severity folders with images, found {found_cells} (not {empty[0]})"
        )
    each = None if spec.num_images is None else spec.num_images // len(spec.cells)
    wrong = next((cell for cell in spec.cells if each is not None and found[cell] != each), None)
    return wrong and f"expected {each:,} images in {wrong}, found {found[wrong]:,}"


def _as_drawn(tree: ImageTree, root: Path) -> ImageTree:
    """A whole dataset that was drawn is told by its pixels, as long as its files hold what was written then."""
    spec, digests = tree.spec, drawn_digests(root)
    if digests is None or spec.name not in digests[DIGESTS]:
        return tree
    telling = Telling.of(spec, tree.folder, "content", root / RECORDS, tree.telling.since)
    if contents_digest(telling.contents(tree.folder, tree.paths, spec.title)) != digests[CONTENTS].get(spec.name):
        say(
            f"{spec.title}: images in {tree.folder} are not those that were drawn there; results are of the images as "
            f"they are, and no others' (delete {root} to have all drawn anew)"
        )
        return tree
    drawn = digests[DIGESTS][spec.name]
    if spec.labels:
        drawn = digest_of([drawn, spec.labels])
    return replace(tree, drawn=drawn, telling=telling)
