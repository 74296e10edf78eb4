"""Split of a source in two: images for the probe that models start from, and images for fine-tuning."""

from __future__ import annotations

import numpy as np

from rib.data.tree import ImageTree, path_hashes
from rib.errors import RibError


def split_for_probe(tree: ImageTree, share: float, seed: int) -> tuple[ImageTree, ImageTree]:
    """Split images, class by class, into those that train the probe and those that fine-tuning gets.

    Images with the same content are on one side, whatever their names and classes, where images are identified by
    content.

    Args:
        tree: The source's images.
        share: Fraction of each class for the probe, 0..1, rounded; at least one image of each class.
        seed: Seed of the choice, which depends on the images' paths and on nothing else.

    Returns:
        The probe's images, and the rest.

    Raises:
        RibError: If the rest is empty.
    """
    hashes = path_hashes(tree.paths, f"probe {seed}")
    unit = _units(tree)
    # A unit comes in the place of the first of its images.
    place = np.full(unit.max() + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(place, unit, hashes)
    order = np.lexsort((unit, place[unit], tree.labels))
    size = np.bincount(tree.labels)
    begin = np.cumsum(size) - size
    wanted = np.maximum(1, np.round(share * size))
    # A unit is the probe's if, in the order of one of its classes, it begins before that class has what it is to get.
    label, own = tree.labels[order], unit[order]
    begins = np.r_[True, (own[1:] != own[:-1]) | (label[1:] != label[:-1])]
    chosen = begins & (np.arange(len(order)) - begin[label] < wanted[label])
    for_probe = np.isin(unit, own[chosen])
    if for_probe.all():
        raise RibError(
            f"head.share: all {len(tree)} images of {tree.spec.title} would train the probe, which gets one of each "
            f"class or more; give a share below {share}, or a dataset of its own for the probe as head.reference"
        )
    rule = f"probe {share} seed {seed}"
    return tree.part(np.flatnonzero(for_probe), rule), tree.part(np.flatnonzero(~for_probe), f"without {rule}")


def _units(tree: ImageTree) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return a number for each image, the same for images of the same content."""
    if tree.identity != "content":
        return np.arange(len(tree))
    contents = tree.file_identity.contents(tree.folder, tree.paths, tree.spec.title)
    return np.unique(contents, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
