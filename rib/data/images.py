"""From a folder to a sorted list of (path, label), checked against the catalog.

The commonest complaint about every peer is a wrong root, a half-unpacked archive or a class that is missing. So
folders only *select* images: what the classes are is the catalog's, and whatever is not as it should be is said
before anything trains. A listing is kept as a record; while no folder's time has changed a second start stats
folders and does not walk 50,000 files again. No torch.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rib.data.catalog import DatasetSpec
from rib.errors import RibError
from rib.memo import digest_of

SUFFIXES = (".jpg", ".jpeg", ".png")
"""Image files, whatever the case of their ending; everything else in a class folder is ignored."""

DIGESTS = "digests.json"
"""In a root whose images are drawn: {dataset: digest of pixels}, used instead of names and sizes."""

Ints = NDArray[np.int64]


class MissingDatasetError(RibError):
    """The folder of a dataset is not there at all."""


@dataclass(frozen=True, eq=False)
class ImageTree:
    """The images of one dataset, or of a part of it, in path order.

    Attributes:
        spec: What the catalog says.
        folder: Where the paths begin.
        paths: Relative, with forward slashes, sorted.
        labels: Class of each image, 0..C-1, shape (N,).
        digest: Changes when an image, a label's folder or the selection does.
    """

    spec: DatasetSpec
    folder: Path
    paths: tuple[str, ...]
    labels: Ints
    digest: str

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
        cells = [path.rsplit("/", 2)[0] if self.spec.cells else "" for path in self.paths]
        groups = [f"{cell}:{label}" for cell, label in zip(cells, self.labels, strict=True)]
        dice = _dice(self.paths, "limit")
        order = np.lexsort((dice, _rank_within(groups, dice)))
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

    def _select(self, index: Ints, rule: str) -> ImageTree:
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
        MissingDatasetError: If its folder is not there.
        RibError: If classes or images are missing or unknown, in one sentence.
    """
    folder = _find(spec, root)
    listing = _listing(spec, folder, records, rescan)
    known = {name: label for label, name in _class_names(spec)}
    unknown = sorted({name for name in map(_class_folder, listing) if name not in known})
    if unknown and not (allow_incomplete or spec.more_folders):
        raise RibError(
            f"{spec.title}: {folder / unknown[0]} is no class of it ({len(unknown)} such folders); "
            "move it away, or go on with data.allow_incomplete=true"
        )
    rows = sorted(
        (f"{name}/{file}", known[_class_folder(name)], size)
        for name, files in listing.items()
        if _class_folder(name) in known
        for file, size in files
    )
    labels = np.array([label for _, label, _ in rows], dtype=np.int64)
    if not allow_incomplete or not rows:
        _check_complete(spec, folder, labels)
    drawn = _drawn_digest(spec, root)
    digest = drawn or digest_of([spec.name, *((path, size) for path, _, size in rows)])
    if spec.labels:
        digest = digest_of([digest, spec.labels])
    return ImageTree(spec, folder, tuple(path for path, _, _ in rows), labels, digest)


def _class_folder(name: str) -> str:
    """The class in a folder's relative name: ``fog/3/n01440764`` -> ``n01440764``."""
    return name.rpartition("/")[2]


def _class_names(spec: DatasetSpec) -> Iterator[tuple[int, str]]:
    """Every (label, folder name) that the rule accepts."""
    labels = spec.labels or tuple(range(len(spec.classes)))
    for label, name in zip(labels, spec.classes, strict=True):
        yield label, name
        if spec.rule == "number":  # the release numbers its folders by output id; repacks name them by WordNet id
            yield label, str(spec.groups[label][0])


def _find(spec: DatasetSpec, root: Path) -> Path:
    for place in spec.folders:
        if (root / place).is_dir():
            return root / place
    expected = f"{spec.title}: expected the folder {root / spec.folders[0]}, which is not there"
    for place in spec.folders:
        top = Path(place).parts[0]
        if root.name == top:
            raise MissingDatasetError(f"{expected}; data.root is one level too deep, give {root.parent}")
        inner = next((p for p in sorted(root.iterdir()) if p.is_dir() and (p / place).is_dir()), None)
        if inner is not None:
            raise MissingDatasetError(f"{expected}; data.root is one level too high, give {inner}")
    raise MissingDatasetError(
        f"{expected}; unpack its archive there, or go on without it with data.allow_incomplete=true"
    )


def _listing(spec: DatasetSpec, folder: Path, records: Path | None, rescan: bool) -> dict[str, list[tuple[str, int]]]:
    """(file name, bytes) of every image by class folder, relative to the dataset's folder."""
    record = (
        records / f"{spec.name}-{digest_of([str(folder.resolve()), spec.rule, spec.cells])}.json" if records else None
    )
    folders = {name: (folder / name).stat().st_mtime_ns for name in _class_folders(spec, folder)}
    if record is not None and record.is_file() and not rescan:
        try:
            kept = json.loads(record.read_text())
        except ValueError:
            kept = {}
        if kept.get("times") == folders:
            return {name: [(file, size) for file, size in files] for name, files in kept["files"].items()}
    files = {name: _image_files(folder / name) for name in folders}
    if record is not None:
        record.parent.mkdir(parents=True, exist_ok=True)
        temporary = record.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps({"times": folders, "files": files}))
        os.replace(temporary, record)
    return files


def _class_folders(spec: DatasetSpec, folder: Path) -> list[str]:
    """Relative names of the folders that hold images."""
    if spec.rule != "corruption":
        return _subfolders(folder)
    found = []
    for cell in spec.cells:
        # The archives unpack to noise/gaussian_noise/..., blur/..., which some keep and some flatten.
        places = [cell, *(f"{group}/{cell}" for group in ("noise", "blur", "weather", "digital", "extra"))]
        place = next((p for p in places if (folder / p).is_dir()), None)
        if place is not None:
            found += [f"{place}/{name}" for name in _subfolders(folder / place)]
    return found


def _subfolders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def _image_files(folder: Path) -> list[tuple[str, int]]:
    with os.scandir(folder) as entries:
        return sorted(
            (e.name, e.stat().st_size)
            for e in entries
            if e.name.lower().endswith(SUFFIXES) and not e.name.startswith(".")
        )


def _check_complete(spec: DatasetSpec, folder: Path, labels: Ints) -> None:
    go_on = "unpack its archive again, or go on with what is there with data.allow_incomplete=true"
    if not len(labels):
        raise RibError(f"{spec.title}: expected class folders with images in {folder}, found no image; {go_on}")
    wanted = set(spec.labels or range(len(spec.classes)))
    empty = sorted(wanted - set(labels.tolist()))
    if empty:
        name = next(name for label, name in _class_names(spec) if label == empty[0])
        raise RibError(
            f"{spec.title}: expected {len(wanted)} classes with images in {folder}, found {len(wanted) - len(empty)} "
            f"({name} has none); {go_on}"
        )
    if spec.num_images is not None and len(labels) != spec.num_images:
        raise RibError(f"{spec.title}: expected {spec.num_images:,} images in {folder}, found {len(labels):,}; {go_on}")


def _drawn_digest(spec: DatasetSpec, root: Path) -> str | None:
    file = root / DIGESTS
    return json.loads(file.read_text()).get(spec.name) if file.is_file() else None


def _dice(paths: Iterable[str], salt: str) -> NDArray[np.uint64]:
    """A number for each path that depends on nothing else."""
    hashes = (hashlib.blake2b(f"{salt}\0{path}".encode(), digest_size=8).digest() for path in paths)
    return np.frombuffer(b"".join(hashes), dtype=">u8").astype(np.uint64)


def _rank_within(groups: Any, dice: NDArray[np.uint64]) -> Ints:
    """Place of each element among those of its group, by falling dice."""
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    order = np.lexsort((dice, group))
    sorted_groups = group[order]
    first = np.r_[True, sorted_groups[1:] != sorted_groups[:-1]]
    starts = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - starts
    return rank
