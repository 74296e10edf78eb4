"""ImageNet val as a flat folder: labels come from a file and equal those of class folders."""

from __future__ import annotations

import os

import numpy as np
import pytest

from rib.data.scan import scan
from rib.errors import MissingDatasetError, RibError
from rib.metrics import originals_of
from tests.data.trees import age, few

SPEC = few("imagenet_val")
LABELS = [2, 0, 1, 1, 0, 2]
NAMES = [SPEC.classes[label] for label in LABELS]
STEMS = [f"ILSVRC2012_val_{i:08}" for i in range(1, 7)]
KAGGLE = ["ImageId,PredictionString", *(f"{s},{n} 1 2 3 4 {n} 5 6 7 8 " for s, n in zip(STEMS, NAMES, strict=True))]


@pytest.fixture
def flat(tmp_path):
    folder = tmp_path / "imagenet/val"
    folder.mkdir(parents=True)
    for i, stem in enumerate(STEMS):
        (folder / f"{stem}.JPEG").write_bytes(bytes(i + 1))
    return folder


def write(file, lines):
    file.write_text("\n".join(lines) + "\n")


def told(root, **options) -> str:
    with pytest.raises(RibError) as caught:
        scan(SPEC, root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("inside", [False, True], ids=["beside", "inside"])
@pytest.mark.parametrize("name", SPEC.synset_files)
def test_labels_and_originals_are_those_of_class_folders(flat, tmp_path, name, inside):
    write((flat if inside else flat.parent) / name, KAGGLE if name.endswith(".csv") else NAMES)
    tree = scan(SPEC, tmp_path)
    assert tree.paths == tuple(f"{stem}.JPEG" for stem in STEMS)
    assert all((tree.folder / path).is_file() for path in tree.paths)
    assert tree.labels.tolist() == LABELS

    for stem, wnid in zip(STEMS, NAMES, strict=True):
        place = tmp_path / "sorted/imagenet/val" / wnid
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{stem}.JPEG").write_bytes(b"x")
    usual = scan(SPEC, tmp_path / "sorted")
    pairs = [dict(zip(originals_of(t.paths).tolist(), t.labels.tolist(), strict=True)) for t in (tree, usual)]
    assert pairs[0] == pairs[1]


def test_kaggles_table_may_be_in_any_order_and_cover_more_images(flat, tmp_path):
    write(flat.parent / SPEC.synset_files[0], KAGGLE[::-1])
    (flat / f"{STEMS[0]}.JPEG").unlink()
    assert scan(SPEC, tmp_path, allow_incomplete=True).labels.tolist() == LABELS[1:]
    assert "expected 6 images" in told(tmp_path)


def test_other_labels_are_another_digest(flat, tmp_path):
    file = flat.parent / "val_synsets.txt"
    write(file, NAMES)
    one, same = scan(SPEC, tmp_path), scan(SPEC, tmp_path)
    write(file, [*NAMES[1:], NAMES[0]])
    assert one.digest == same.digest != scan(SPEC, tmp_path).digest


def test_a_second_scan_does_not_list_again_until_an_image_is_added(flat, tmp_path, monkeypatch):
    write(flat.parent / "val_synsets.txt", NAMES)
    age(tmp_path)
    records = tmp_path / "records"
    tree = scan(SPEC, tmp_path, records)
    walked = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: walked.append(str(folder)) or scandir(folder))
    again = scan(SPEC, tmp_path, records)
    assert walked == [str(flat)], "to see that there are no class folders"
    assert (again.paths, again.digest) == (tree.paths, tree.digest)
    assert np.array_equal(again.labels, tree.labels)
    (flat / "added.JPEG").write_bytes(b"x")
    assert f"in {flat}, found added.JPEG" in told(tmp_path, records=records)


@pytest.mark.parametrize("allow", [False, True])
def test_without_a_file_both_ways_out_are_told(flat, tmp_path, allow):
    message = told(tmp_path, allow_incomplete=allow)
    assert message.startswith(
        f"ImageNet val: {flat} holds images but no class folders; expected a list of their classes, one of LOC_val"
    )
    assert all(name in message for name in SPEC.synset_files)
    assert message.endswith("sort the images into class folders")


@pytest.mark.parametrize("names", [NAMES[:-1], [*NAMES, NAMES[0]], []], ids=["fewer", "more", "none"])
def test_another_number_of_lines_is_an_error(flat, tmp_path, names):
    write(flat.parent / "synset_labels.txt", names)
    message = told(tmp_path, allow_incomplete=True)
    assert f"each of the 6 images of the release, found {len(names)}" in message


@pytest.mark.parametrize("name", SPEC.synset_files[:2])
def test_an_unknown_class_is_an_error(flat, tmp_path, name):
    lines = KAGGLE if name.endswith(".csv") else NAMES
    write(flat.parent / name, [line.replace(SPEC.classes[1], "n99999999") for line in lines])
    assert f"{flat.parent / name} names 'n99999999', which is not one of its" in told(tmp_path, allow_incomplete=True)


def test_an_image_that_kaggles_table_lacks_is_named(flat, tmp_path):
    write(flat.parent / "LOC_val_solution.csv", KAGGLE[:-1])
    assert f"has no line for {STEMS[-1]}.JPEG" in told(tmp_path)


def test_other_datasets_have_no_flat_layout(tmp_path):
    spec = few("imagenet_sketch")
    (tmp_path / "imagenet-sketch").mkdir()
    (tmp_path / "imagenet-sketch/sketch_0.JPEG").write_bytes(b"x")
    with pytest.raises(MissingDatasetError, match="expected class folders with images"):
        scan(spec, tmp_path)
