"""The split of a source: balanced, seeded, and no image on both sides under another name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rib.data.catalog import DatasetSpec
from rib.data.probe_split import split_for_probe
from rib.data.tree import ImageTree
from rib.errors import RibError

CLASSES = ("bear", "camel", "mug")
SPEC = DatasetSpec("photo", "Photo", ("photo",), "wnid", ((0,), (1,), (2,)), CLASSES, None)


@pytest.fixture
def tree(tmp_path) -> ImageTree:
    """20, 9 and 3 images of different content."""
    paths = [f"{name}/{i:02}.jpg" for name, count in zip(CLASSES, (20, 9, 3), strict=True) for i in range(count)]
    for number, path in enumerate(paths):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(f"image {number}".encode())
    labels = np.repeat(np.arange(3), (20, 9, 3))
    return ImageTree(SPEC, tmp_path, tuple(paths), labels)


def contents(tree: ImageTree) -> set[bytes]:
    return {(tree.folder / path).read_bytes() for path in tree.paths}


def test_it_takes_the_share_of_every_class_and_leaves_the_rest(tree):
    probe, rest = split_for_probe(tree, 0.3, 0)
    assert np.bincount(probe.labels).tolist() == [6, 3, 1]
    assert sorted((*probe.paths, *rest.paths)) == sorted(tree.paths)
    assert probe.digest != rest.digest != tree.digest
    assert len(split_for_probe(tree, 0.01, 0)[0]) == 3  # one of each class


def test_it_depends_on_the_seed_alone(tree):
    one, again, other = (split_for_probe(tree, 0.3, seed)[0].paths for seed in (0, 0, 1))
    assert one == again != other
    fewer = replace(tree, paths=tree.paths[:-1], labels=tree.labels[:-1])
    assert set(split_for_probe(fewer, 0.3, 0)[0].paths) >= {p for p in one if not p.startswith("mug")}


def test_copies_of_an_image_are_on_one_side(tree):
    # Copies within a class, and of a class in another; half of all images are some other's copy.
    for number, path in enumerate(tree.paths):
        (tree.folder / path).write_bytes(f"image {number % 16}".encode())
    for seed in range(5):
        probe, rest = split_for_probe(tree, 0.3, seed)
        assert contents(probe).isdisjoint(contents(rest))
        assert set(probe.labels.tolist()) == {0, 1, 2} and len(rest)


def test_by_listing_only_names_count(tree):
    listed = replace(tree, file_identity=replace(tree.file_identity, kind="listing"))
    assert split_for_probe(listed, 0.3, 0)[0].paths == split_for_probe(tree, 0.3, 0)[0].paths


def test_a_class_with_one_image_gives_it_to_the_probe_and_nothing_left_is_refused(tree):
    single = tree.part(np.array([0, 1, 2, 20, 29]), "few")
    probe, rest = split_for_probe(single, 0.3, 0)
    assert np.bincount(probe.labels).tolist() == [1, 1, 1] and np.bincount(rest.labels).tolist() == [2]
    with pytest.raises(RibError, match="all 3 images of Photo would train the probe"):
        split_for_probe(tree.part(np.array([0, 20, 29]), "one each"), 0.3, 0)
