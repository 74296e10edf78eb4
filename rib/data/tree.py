"""The images of one dataset: a sorted list of paths and labels, with random subsets and a digest that identifies it."""

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
from rib.data.identity import FileIdentity
from rib.errors import RibError
from rib.runtime.content import WIDTH, Ints, columns_digest, file_states, join_names
from rib.runtime.files import digest_of


@dataclass(frozen=True, eq=False)
class ImageTree:
    """The images of one dataset, or of a subset of it, in path order.

    Attributes:
        spec: The dataset's catalog entry.
        folder: Folder that the paths are relative to.
        paths: N relative paths with forward slashes, sorted.
        labels: Class of each image, 0..C-1, shape (N,).
        drawn: For images drawn by rib, the digest of their pixels and of the rules that chose a subset; else None.
        incomplete: Numbers of images and classes found and expected, if some are missing on disk; else None.
        sizes: Size of each file when its folder was listed, bytes, shape (N,).
        file_identity: How the files are identified if they were not drawn by rib.
        found: Number of images on disk before a subset is taken; None if all releases have the same number.
    """

    spec: DatasetSpec
    folder: Path
    paths: tuple[str, ...]
    labels: Ints
    drawn: str | None = None
    incomplete: Mapping[str, int | None] | None = None
    sizes: Ints | None = None
    file_identity: FileIdentity = field(default_factory=FileIdentity)
    found: int | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def identity(self) -> str:
        """Source of `digest`: ``pixels`` (images drawn by rib), file ``content``, or ``listing`` (paths and sizes)."""
        return self.file_identity.kind if self.drawn is None else "pixels"

    @cached_property
    def digest(self) -> str:
        """Digest of the images and their labels, 16 hex digits; reads files whose digest is not saved.

        Raises:
            RibError: If a file is gone or cannot be read.
        """
        return self._files_digest() if self.drawn is None else self.drawn

    def image_keys(self) -> list[bytes]:
        """Return a key of each image's present file, by which decoded images are found again: N texts of 16 bytes.

        The key is the digest of the file's content or, where files are identified by their listing, of its path, size,
        times and inode.

        Raises:
            RibError: If the images have changed since `digest` was computed.
        """
        if self.identity == "listing":
            self.check_unchanged()
            states = file_states(self.folder, self.paths)
            return [_state_key(path, state) for path, state in zip(self.paths, states, strict=True)]
        contents = self.file_identity.contents(self.folder, self.paths, self.spec.title)
        if self.identity == "content" and self._files_digest(contents.tobytes()) != self.digest:
            raise self.changed()
        keys: list[bytes] = contents.view(f"V{WIDTH}").ravel().tolist()
        return keys

    def image_key(self, position: int, content: bytes) -> bytes:
        """Return the key, as in `image_keys`, of an image whose file has just been read.

        Args:
            position: Of the image in ``paths``.
            content: The bytes that were read.

        Raises:
            RibError: If the file is gone.
        """
        if self.identity != "listing":
            return hashlib.sha256(content).digest()[:WIDTH]
        path = self.paths[position]
        return _state_key(path, file_states(self.folder, [path])[0])

    def check_unchanged(self) -> None:
        """Check that the images are still those of `digest`, if they are identified by their files.

        Raises:
            RibError: If one was changed.
        """
        # `digest` is cached and already part of the run's key; files that differ now would be scored under a wrong key.
        if self.identity != "pixels" and self._files_digest() != self.digest:
            raise self.changed()

    def changed(self) -> RibError:
        """Return the error that images are no longer those that this command began with."""
        again = "run it again with data.rescan=true" if self.file_identity.network else "run it again"
        return RibError(f"{self.spec.title}: images in {self.folder} were changed after this command began; {again}")

    def states(self) -> str:
        """Return one digest of the sizes, times and inodes of all files, used to detect changes.

        On a network file system times and inodes are left out.
        """
        if self.file_identity.network:
            return self._files_digest()
        return columns_digest(file_states(self.folder, self.paths).tobytes())

    def _files_digest(self, column: bytes | None = None) -> str:
        if column is None:
            column = self.file_identity.column(self.folder, self.paths, self.sizes, self.spec.title)
        columns = columns_digest(join_names(self.paths), column, self.labels.astype("<i8").tobytes())
        return digest_of([self.spec.name, self.identity, columns])

    def limit(self, count: int) -> ImageTree:
        """Return a subset of at most ``count`` images, spread evenly over classes (and ImageNet-C's corruptions).

        Raises:
            RibError: If ``count`` is less than 1.
        """
        if count < 1:
            raise RibError(f"data.limit: expected at least 1 image, got {count}")
        if count >= len(self):
            return self
        hashes = path_hashes(self.paths, "limit")
        if self.spec.cells:
            order = _balanced_order([path.rsplit("/", 2)[0] for path in self.paths], self.labels, hashes)
            return self.part(np.sort(order[:count]), f"limit {count} across cells")
        # By rank within the class first: one image of each class, then a second of each, ...
        order = np.lexsort((hashes, _rank_within(self.labels, hashes)))
        return self.part(np.sort(order[:count]), f"limit {count}")

    def images_per_class(self, count: int, seed: int) -> ImageTree:
        """Return a random subset with ``count`` images of each class, or all of a class that has fewer.

        With the same seed, the images for a smaller count are a subset of those for a larger one.

        Raises:
            RibError: If ``count`` is less than 1.
        """
        if count < 1:
            raise RibError(f"data.images_per_class: expected at least 1 image, got {count}")
        rank = _rank_within(self.labels, path_hashes(self.paths, f"images_per_class {seed}"))
        return self.part(np.flatnonzero(rank < count), f"images_per_class {count} seed {seed}")

    def shuffled_labels(self, seed: int) -> ImageTree:
        """Return the same images with their labels permuted at random, a control in which no class can be learnt."""
        order = np.argsort(path_hashes(self.paths, f"shuffled_labels {seed}"))
        return replace(self, labels=self.labels[order], drawn=self._derived_digest(f"shuffled_labels seed {seed}"))

    def holdout(self, fraction: float, seed: int) -> tuple[ImageTree, ImageTree]:
        """Split the images into a training set and a held-out set with a fraction of each class.

        Args:
            fraction: Share of each class to hold out, 0..1, rounded; every class keeps at least one training image.
            seed: Seed of the choice.

        Returns:
            The training images and the held-out images.

        Raises:
            RibError: If either set would be empty.
        """
        rank = _rank_within(self.labels, path_hashes(self.paths, f"holdout {seed}"))
        size = np.bincount(self.labels)[self.labels]
        held = rank < np.minimum(np.round(fraction * size), size - 1)  # never a class's last image
        if not held.any() or held.all():
            raise RibError(
                f"data.holdout: expected a fraction that leaves images to train on and to hold out, got {fraction} of "
                f"{len(self)} images of {self.spec.title}"
            )
        rule = f"holdout {fraction} seed {seed}"
        return self.part(np.flatnonzero(~held), f"without {rule}"), self.part(np.flatnonzero(held), rule)

    def sample(self, count: int, seed: int) -> Ints:
        """Return the positions of up to ``count`` randomly chosen images; the choice depends only on paths and seed."""
        return np.argsort(path_hashes(self.paths, f"sample {seed}"), kind="stable")[:count]

    def part(self, index: Ints, rule: str) -> ImageTree:
        """Return the subset of the images at the given positions.

        Args:
            index: Positions, ascending.
            rule: Description of the choice, which enters the digest of drawn images; for all other images the digest
                is computed from the chosen files themselves.
        """
        if len(index) == len(self):
            return self  # the whole dataset keeps its digest
        paths, sizes = tuple(self.paths[i] for i in index), None if self.sizes is None else self.sizes[index]
        return replace(self, paths=paths, labels=self.labels[index], sizes=sizes, drawn=self._derived_digest(rule))

    def _derived_digest(self, rule: str) -> str | None:
        return None if self.drawn is None else digest_of([self.drawn, rule])


def _state_key(path: str, state: Ints) -> bytes:
    """Return a digest of a file's path, size, times and inode, 16 bytes."""
    return hashlib.blake2b(state.tobytes() + path.encode(errors="surrogateescape"), digest_size=WIDTH).digest()


def path_hashes(paths: Iterable[str], salt: str) -> NDArray[np.uint64]:
    """Return a pseudo-random number for each path that depends on the path and the salt alone.

    With these in place of a generator, an image's rank does not depend on which other images are there: a dataset
    with a missing file still gives nearly the same subsets.
    """
    hashes = (hashlib.blake2b(f"{salt}\0{path}".encode(), digest_size=8).digest() for path in paths)
    # Read as big-endian so that the numbers, and with them every subset, are the same on every machine.
    return np.frombuffer(b"".join(hashes), dtype=">u8").astype(np.uint64)


def _balanced_order(cells: Iterable[str], labels: Ints, hashes: NDArray[np.uint64]) -> Ints:
    """Order ImageNet-C's images so that the first n, for any n, are spread evenly over corruptions and classes.

    A cell is a corruption at one severity. Cells take turns, and each goes through the classes from a different first
    class.
    """
    _, cell = np.unique(np.asarray(list(cells)), return_inverse=True)
    classes, label = np.unique(labels, return_inverse=True)
    first = np.arange(cell.max() + 1) * len(classes) // (cell.max() + 1)
    turn = (_fixed_permutation(len(classes))[label] - first[cell]) % len(classes)
    round_of_class = _rank_within(cell * len(classes) + label, hashes)
    by_cell = np.lexsort((turn, round_of_class, cell))
    position = np.empty(len(cell), dtype=np.int64)
    position[by_cell] = np.arange(len(cell)) - np.searchsorted(cell[by_cell], cell[by_cell])
    return np.lexsort((_fixed_permutation(cell.max() + 1)[cell], position))


def _fixed_permutation(count: int) -> Ints:
    """Return 0..count-1 in a pseudo-random order that is the same in every process and version."""
    return np.argsort(path_hashes(map(str, range(count)), "shuffled"))


def _rank_within(groups: Any, hashes: NDArray[np.uint64]) -> Ints:
    """Return the rank of each element within its group in ascending order of hashes, from 0."""
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    order = np.lexsort((hashes, group))
    sorted_groups = group[order]
    # No loop over groups: ImageNet-C has 75,000 of them (class x cell) with 3.75 million images.
    first = np.r_[True, sorted_groups[1:] != sorted_groups[:-1]]
    starts = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - starts
    return rank
