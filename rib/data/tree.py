"""The images of one dataset as a sorted list of paths and labels, and parts of such a list."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rib.data.catalog import DatasetSpec
from rib.data.identity import Telling, contents_digest
from rib.errors import RibError
from rib.runtime.content import Ints, columns_digest, file_states, join_names
from rib.runtime.files import digest_of


@dataclass(frozen=True, eq=False)
class ImageTree:
    """The images of one dataset, or of a part of it, in path order.

    Attributes:
        spec: What the catalog says.
        folder: Where the paths begin.
        paths: Relative, with forward slashes, sorted.
        labels: Class of each image, 0..C-1, shape (N,).
        drawn: Digest of what was drawn, with the rules that chose a part of it; None: the files tell.
        incomplete: Images and classes found and expected, where some are missing on disk; None where none is.
        sizes: Bytes of each file when its folder was listed, (N,).
        telling: How the files tell.
        found: Images on disk, before a part of them is taken, where releases differ in their number; else None.
    """

    spec: DatasetSpec
    folder: Path
    paths: tuple[str, ...]
    labels: Ints
    drawn: str | None = None
    incomplete: Mapping[str, int | None] | None = None
    sizes: Ints | None = None
    telling: Telling = field(default_factory=Telling)
    found: int | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def identity(self) -> str:
        """By what these images are told from others: ``pixels`` (drawn), ``content`` or ``listing`` (sizes)."""
        return self.telling.kind if self.drawn is None else "pixels"

    @cached_property
    def digest(self) -> str:
        """Sixteen hex digits that change with these images or their labels; reads files that were not read before.

        Raises:
            RibError: If a file is gone or cannot be read.
        """
        return self._told() if self.drawn is None else self.drawn

    def on_disk(self) -> str:
        """Changes when any byte of these images may have; what is made of them holds for as long as it does not.

        Raises:
            RibError: If they are not those any more that the digest tells.
        """
        if self.identity == "pixels":
            return contents_digest(self.telling.contents(self.folder, self.paths, self.spec.title))
        if self._told() != self.digest:
            raise RibError(
                f"{self.spec.title}: images in {self.folder} were changed after this command began; run it again"
            )
        return self.digest if self.identity == "content" else self.states()

    def states(self) -> str:
        """Changes when size, times or inode of any file do; of the sizes alone on a network file system."""
        if self.telling.network:
            return self._told()
        return columns_digest(file_states(self.folder, self.paths).tobytes())

    def _told(self) -> str:
        column = self.telling.column(self.folder, self.paths, self.sizes, self.spec.title)
        columns = columns_digest(join_names(self.paths), column, self.labels.astype("<i8").tobytes())
        return digest_of([self.spec.name, self.identity, columns])

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
            return self.part(np.sort(order[:count]), f"limit {count} across cells")
        order = np.lexsort((dice, _rank_within(self.labels, dice)))
        return self.part(np.sort(order[:count]), f"limit {count}")

    def images_per_class(self, count: int, seed: int) -> ImageTree:
        """``count`` images of each class (all, where there are fewer); a smaller count selects a part of a larger one.

        Raises:
            RibError: If none would be left.
        """
        if count < 1:
            raise RibError(f"data.images_per_class: expected at least 1 image, got {count}")
        rank = _rank_within(self.labels, _dice(self.paths, f"images_per_class {seed}"))
        return self.part(np.flatnonzero(rank < count), f"images_per_class {count} seed {seed}")

    def shuffled_labels(self, seed: int) -> ImageTree:
        """The same images with one another's labels: a control that nothing can be learnt from but by heart."""
        order = np.argsort(_dice(self.paths, f"shuffled_labels {seed}"))
        return replace(self, labels=self.labels[order], drawn=self._drawn_by(f"shuffled_labels seed {seed}"))

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
        return self.part(np.flatnonzero(~held), f"without {rule}"), self.part(np.flatnonzero(held), rule)

    def sample(self, count: int, seed: int) -> Ints:
        """Places of ``count`` images (all, where there are fewer) in a seeded random order that paths alone decide."""
        return np.argsort(_dice(self.paths, f"sample {seed}"), kind="stable")[:count]

    def part(self, index: Ints, rule: str) -> ImageTree:
        """The images in some places, rising; what was drawn is told by its rule, all else by the images chosen."""
        if len(index) == len(self):
            return self
        paths, sizes = tuple(self.paths[i] for i in index), None if self.sizes is None else self.sizes[index]
        return replace(self, paths=paths, labels=self.labels[index], sizes=sizes, drawn=self._drawn_by(rule))

    def _drawn_by(self, rule: str) -> str | None:
        return None if self.drawn is None else digest_of([self.drawn, rule])


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
