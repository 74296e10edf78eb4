"""From a folder to a sorted list of (path, label), checked against the catalog; and parts of such a list.

The commonest complaint about every peer is a wrong root, a half-unpacked archive or a class that is missing. So
folders only *select* images: what the classes are is the catalog's, and whatever is not as it should be is said
before anything trains. No torch.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rib.data.catalog import DatasetSpec
from rib.data.folders import (
    MissingDatasetError,
    class_name,
    class_names,
    class_of_folder,
    find_folder,
    flat_names,
)
from rib.data.layout import another_set, expected_images, layout_fault
from rib.data.listing import FLAT, Ints, Listing, list_folder
from rib.errors import RibError
from rib.memo import digest_of

DIGESTS = "digests.json"
"""In a root whose images are drawn: {dataset: digest of pixels}, used instead of names and sizes."""


@dataclass(frozen=True, eq=False)
class ImageTree:
    """The images of one dataset, or of a part of it, in path order.

    Attributes:
        spec: What the catalog says.
        folder: Where the paths begin.
        paths: Relative, with forward slashes, sorted.
        labels: Class of each image, 0..C-1, shape (N,).
        digest: Changes when an image, a label's folder or the selection does.
        incomplete: Images and classes found and expected, where some are missing on disk; None where none is.
        found: Images on disk, before a part of them is taken, where releases differ in their number; else None.
    """

    spec: DatasetSpec
    folder: Path
    paths: tuple[str, ...]
    labels: Ints
    digest: str
    incomplete: Mapping[str, int | None] | None = None
    found: int | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def limit(self, count: int) -> ImageTree:
        """At most ``count`` images, spread evenly over classes (and the cells of ImageNet-C).

        Raises:
            RibError: If none would be left.
        """
        if count < 1:
            raise RibError(f"data.limit: expected at least 1 image, got {count}")
        if count >= len(self):
            return self
        dice = _dice(self.paths, "limit")
        if self.spec.cells:
            order = _across_cells([path.rsplit("/", 2)[0] for path in self.paths], self.labels, dice)
            return self._select(np.sort(order[:count]), f"limit {count} across cells")
        order = np.lexsort((dice, _rank_within(self.labels, dice)))
        return self._select(np.sort(order[:count]), f"limit {count}")

    def images_per_class(self, count: int, seed: int) -> ImageTree:
        """``count`` images of each class (all, where there are fewer); a smaller count selects a part of a larger one.

        Raises:
            RibError: If none would be left.
        """
        if count < 1:
            raise RibError(f"data.images_per_class: expected at least 1 image, got {count}")
        rank = _rank_within(self.labels, _dice(self.paths, f"images_per_class {seed}"))
        return self._select(np.flatnonzero(rank < count), f"images_per_class {count} seed {seed}")

    def shuffled_labels(self, seed: int) -> ImageTree:
        """The same images with one another's labels: a control that nothing can be learnt from but by heart."""
        order = np.argsort(_dice(self.paths, f"shuffled_labels {seed}"))
        digest = digest_of([self.digest, f"shuffled_labels seed {seed}"])
        return replace(self, labels=self.labels[order], digest=digest)

    def holdout(self, fraction: float, seed: int) -> tuple[ImageTree, ImageTree]:
        """What remains for training, and a fraction of each class kept out of it (rounded; a class keeps one image).

        Raises:
            RibError: If the fraction leaves nothing on either side.
        """
        rank = _rank_within(self.labels, _dice(self.paths, f"holdout {seed}"))
        size = np.bincount(self.labels)[self.labels]
        held = rank < np.minimum(np.round(fraction * size), size - 1)
        if not held.any() or held.all():
            raise RibError(f"data.holdout: {fraction} of {len(self)} images of {self.spec.title} leaves one side empty")
        rule = f"holdout {fraction} seed {seed}"
        return self._select(np.flatnonzero(~held), f"without {rule}"), self._select(np.flatnonzero(held), rule)

    def sample(self, count: int, seed: int) -> Ints:
        """Places of ``count`` images (all, where there are fewer) in a seeded random order that paths alone decide."""
        return np.argsort(_dice(self.paths, f"sample {seed}"), kind="stable")[:count]

    def _select(self, index: Ints, rule: str) -> ImageTree:
        if len(index) == len(self):
            return self
        paths = tuple(self.paths[i] for i in index)
        return replace(self, paths=paths, labels=self.labels[index], digest=digest_of([self.digest, rule]))


def scan(
    spec: DatasetSpec,
    root: Path,
    records: Path | None = None,
    rescan: bool = False,
    allow_incomplete: bool = False,
) -> ImageTree:
    """List a dataset's images and check them against the catalog.

    Args:
        spec: From the catalog.
        root: The data root.
        records: Folder to keep listings in, or None.
        rescan: List again although no folder's time has changed.
        allow_incomplete: Go on with what is there; folders that are no class are left out.

    Raises:
        MissingDatasetError: If its folder is not there, or has no image.
        RibError: If classes or images are missing or unknown, in one sentence.
    """
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
    # What was drawn is told by its pixels, unless something of it is gone.
    drawn = _drawn_digest(spec, root) if fault is None else None
    digest = drawn or kept.digest(spec.name)
    if spec.labels:
        digest = digest_of([digest, spec.labels])
    if flat:
        digest = digest_of([digest, labels.tolist()])
    found = len(labels) if spec.num_images is None else None
    return ImageTree(spec, folder, paths, labels, digest, counts(spec, labels) if short else None, found)


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


def _drawn_digest(spec: DatasetSpec, root: Path) -> str | None:
    file = root / DIGESTS
    return json.loads(file.read_text()).get(spec.name) if file.is_file() else None


def _dice(paths: Iterable[str], salt: str) -> NDArray[np.uint64]:
    """A number for each path that depends on nothing else."""
    hashes = (hashlib.blake2b(f"{salt}\0{path}".encode(), digest_size=8).digest() for path in paths)
    return np.frombuffer(b"".join(hashes), dtype=">u8").astype(np.uint64)


def _across_cells(cells: Iterable[str], labels: Ints, dice: NDArray[np.uint64]) -> Ints:
    """An order whose every beginning is spread over cells and classes: cells take turns, each from another class on."""
    _, cell = np.unique(np.asarray(list(cells)), return_inverse=True)
    classes, label = np.unique(labels, return_inverse=True)
    first = np.arange(cell.max() + 1) * len(classes) // (cell.max() + 1)
    turn = (_shuffled(len(classes))[label] - first[cell]) % len(classes)
    round_of_class = _rank_within(cell * len(classes) + label, dice)
    by_cell = np.lexsort((turn, round_of_class, cell))
    place = np.empty(len(cell), dtype=np.int64)
    place[by_cell] = np.arange(len(cell)) - np.searchsorted(cell[by_cell], cell[by_cell])
    return np.lexsort((_shuffled(cell.max() + 1)[cell], place))


def _shuffled(count: int) -> Ints:
    """0..count-1 in an order that looks random and never changes."""
    return np.argsort(_dice(map(str, range(count)), "shuffled"))


def _rank_within(groups: Any, dice: NDArray[np.uint64]) -> Ints:
    """Place of each element among those of its group, by rising dice."""
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    order = np.lexsort((dice, group))
    sorted_groups = group[order]
    first = np.r_[True, sorted_groups[1:] != sorted_groups[:-1]]
    starts = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - starts
    return rank


__all__ = ["ImageTree", "MissingDatasetError", "counts", "scan"]
