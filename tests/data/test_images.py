"""Scanning of folders: the pitfalls of each release on a small tree, and the messages."""

from __future__ import annotations

import itertools
import os
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from rib.data.catalog import real, with_label_rule
from rib.data.scan import scan
from rib.errors import MissingDatasetError, RibError
from tests.data.trees import age, few, fill

NOISY = ("gaussian_noise/1", "gaussian_noise/2", "fog/1", "fog/2")


def labels_by_folder(tree):
    return {path.rsplit("/", 2)[-2]: int(label) for path, label in zip(tree.paths, tree.labels, strict=True)}


def told(spec, root, **options) -> str:
    """Return the message for the user: one sentence, the dataset first."""
    with pytest.raises(RibError) as caught:
        scan(spec, root, **options)
    message = str(caught.value)
    assert message.startswith(f"{spec.title}: ")
    assert "\n" not in message
    return message


def val(root, classes=3, each=2):
    spec = few("imagenet_val", classes, each)
    fill(root / "imagenet/val", spec.classes, each)
    return spec


def test_folder_10_of_v2_is_class_10(tmp_path):
    spec = few("imagenet_v2", 12)
    fill(tmp_path / spec.folders[0], map(str, range(12)), ending=".jpeg")
    assert labels_by_folder(scan(spec, tmp_path)) == {str(i): i for i in range(12)}


def test_v2_repacked_under_wordnet_ids_has_the_same_labels(tmp_path):
    spec = few("imagenet_v2", 12)
    fill(tmp_path / spec.folders[1], spec.classes, ending=".jpeg")
    assert labels_by_folder(scan(spec, tmp_path)) == {name: i for i, name in enumerate(spec.classes)}


@pytest.mark.parametrize("name", ["imagenet_a", "imagenet_r"])
def test_a_readme_in_the_root_and_spaces_in_file_names_do_no_harm(tmp_path, name):
    spec = few(name)
    folder = fill(tmp_path / name.replace("_", "-"), spec.classes, each=1)
    (folder / "README.txt").write_text("not a class")
    for wnid in spec.classes:
        (folder / wnid / "0.000116_digital clock _ digital clock_0.865662.jpg").write_bytes(b"x")
    tree = scan(spec, tmp_path)
    assert len(tree) == 6
    assert sum(" " in path for path in tree.paths) == 3


@pytest.mark.parametrize("name", ["imagenet_a", "imagenet_r"])
def test_labels_follow_the_catalog_and_not_the_folders_that_are_there(tmp_path, name):
    spec = real()[name]
    there = [spec.classes[i] for i in (150, 3, 77)]
    fill(tmp_path / spec.folders[0], there)
    tree = scan(spec, tmp_path, allow_incomplete=True)
    assert labels_by_folder(tree) == {spec.classes[i]: i for i in (3, 77, 150)}


def test_sketch_without_the_classes_that_share_a_name_keeps_the_labels_of_the_others(tmp_path):
    """Some copies hold 998 folders: one crane and one maillot overwrote the other."""
    spec = real()["imagenet_sketch"]
    lost = (134, 638)
    fill(tmp_path / "imagenet-sketch", [name for i, name in enumerate(spec.classes) if i not in lost], each=1)
    assert f"expected 1000 classes with images in {tmp_path / 'imagenet-sketch'}, found 998" in told(spec, tmp_path)
    tree = scan(spec, tmp_path, allow_incomplete=True)
    assert labels_by_folder(tree) == {name: i for i, name in enumerate(spec.classes) if i not in lost}


def test_objectnet_labels_go_through_the_mapping_and_other_folders_are_left_out(tmp_path):
    spec = real()["objectnet"]
    strangers = ("air_freshener", "baking_sheet", "zzz")
    fill(tmp_path / "objectnet-1.0/images", [*spec.classes, *strangers], each=1, ending=".png")
    tree = scan(spec, tmp_path, allow_incomplete=True)
    assert labels_by_folder(tree) == {name: j for j, name in enumerate(spec.classes)}
    naive = {name: j for j, name in enumerate(sorted([*spec.classes, *strangers]))}
    assert sum(naive[name] != j for name, j in labels_by_folder(tree).items()) > 100
    assert not any(path.startswith(strangers) for path in tree.paths)


def test_the_authors_rule_gives_two_folders_one_label_and_another_digest(tmp_path):
    spec = replace(real()["objectnet"], between=None)
    fill(tmp_path / "objectnet-1.0/images", spec.classes, each=1, ending=".png")
    theirs = scan(with_label_rule(spec, "authors"), tmp_path)
    labels = labels_by_folder(theirs)
    assert len(set(labels.values())) == 105
    assert labels["binder_closed"] == labels["bucket"]
    assert theirs.digest != scan(spec, tmp_path).digest


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "as unpacked"])
def test_both_layouts_of_c_are_read_and_extra_corruptions_are_not(tmp_path, nested):
    spec = few("imagenet_c", cells=NOISY)
    for cell in (*NOISY, "speckle_noise/1"):
        group = {"f": "weather", "g": "noise", "s": "extra"}[cell[0]] if nested else ""
        fill(tmp_path / "imagenet-c" / group / cell, spec.classes)
    tree = scan(spec, tmp_path)
    assert len(tree) == 4 * 3 * 2
    assert labels_by_folder(tree) == {name: i for i, name in enumerate(spec.classes)}
    assert not any("speckle" in path for path in tree.paths)


@pytest.mark.parametrize("ending", [".JPEG", ".jpeg", ".jpg", ".JPG", ".png", ".PNG"])
def test_endings_may_be_written_either_way(tmp_path, ending):
    spec = few("imagenet_sketch")
    fill(tmp_path / "imagenet-sketch", spec.classes, ending=ending)
    assert len(scan(spec, tmp_path)) == 6


def test_hidden_files_hidden_folders_and_other_files_are_no_images(tmp_path):
    spec = val(tmp_path)
    folder = tmp_path / "imagenet/val"
    for name in (f"{spec.classes[0]}/._a.JPEG", f"{spec.classes[0]}/list.txt", ".DS_Store", "synsets.txt"):
        (folder / name).write_bytes(b"x")
    (folder / ".cache").mkdir()
    assert len(scan(spec, tmp_path)) == 6


def test_paths_are_sorted_whatever_the_order_of_the_file_system(tmp_path, monkeypatch):
    spec = val(tmp_path, 5)
    tree = scan(spec, tmp_path)
    real_scandir = os.scandir

    class Reversed:
        def __init__(self, folder):
            with real_scandir(folder) as entries:
                self.entries = sorted(entries, key=lambda e: e.name, reverse=True)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(os, "scandir", Reversed)
    again = scan(spec, tmp_path)
    assert again.paths == tree.paths == tuple(sorted(tree.paths))
    assert again.digest == tree.digest
    assert again.limit(7).paths == tree.limit(7).paths


# What the user is told


def test_a_missing_dataset_is_told_with_the_place_where_it_should_be(tmp_path):
    spec = few("imagenet_r")
    message = told(spec, tmp_path)
    assert f"expected the folder {tmp_path / 'imagenet-r'}, which does not exist" in message
    assert message.endswith(
        "unpack its archive there, set the right data.root, or continue without it with data.allow_incomplete=true"
    )
    with pytest.raises(MissingDatasetError):
        scan(spec, tmp_path, allow_incomplete=True)


def test_a_root_one_level_too_deep_is_told_with_the_right_one(tmp_path):
    spec = few("imagenet_r")
    fill(tmp_path / "imagenet-r", spec.classes)
    message = told(spec, tmp_path / "imagenet-r")
    assert message.endswith(f"data.root is one level too deep, use {tmp_path}")


def test_a_root_one_level_too_high_is_told_with_the_right_one(tmp_path):
    spec = few("imagenet_r")
    fill(tmp_path / "data/imagenet-r", spec.classes)
    assert told(spec, tmp_path).endswith(f"data.root is one level too high, use {tmp_path / 'data'}")


def test_a_root_that_is_only_named_like_a_dataset_is_not_called_too_deep(tmp_path):
    root = tmp_path / "imagenet"
    fill(root / "imagenet-r", few("imagenet_r").classes)
    assert "too deep" not in told(few("imagenet_val"), root)


def test_an_archive_unpacked_into_a_folder_of_its_own_name_is_told(tmp_path):
    spec = few("imagenet_r")
    inner = fill(tmp_path / "imagenet-r/imagenet-r", spec.classes)
    assert str(inner) in told(spec, tmp_path)


def test_missing_classes_are_counted_and_one_is_named(tmp_path):
    spec = val(tmp_path, 4)
    shutil.rmtree(tmp_path / "imagenet/val" / spec.classes[2])
    message = told(spec, tmp_path)
    assert f"expected 4 classes with images in {tmp_path / 'imagenet/val'}, found 3 ({spec.classes[2]}" in message
    assert message.endswith("data.allow_incomplete=true")


def test_an_empty_class_is_a_missing_class(tmp_path):
    spec = val(tmp_path, 4)
    for file in (tmp_path / "imagenet/val" / spec.classes[1]).iterdir():
        file.unlink()
    assert f"found 3 ({spec.classes[1]} has none)" in told(spec, tmp_path)


def test_missing_images_are_counted(tmp_path):
    spec = val(tmp_path, 600, 2)
    next(tmp_path.rglob("*.JPEG")).unlink()
    message = told(spec, tmp_path)
    assert "expected 1,200 images" in message
    assert "found 1,199" in message


def test_a_missing_cell_of_c_is_named(tmp_path):
    spec = few("imagenet_c", cells=NOISY)
    for cell in NOISY[:3]:
        fill(tmp_path / "imagenet-c" / cell, spec.classes)
    assert NOISY[3] in told(spec, tmp_path)


def test_a_folder_that_is_no_class_is_named(tmp_path):
    spec = val(tmp_path)
    (tmp_path / "imagenet/val/n99999999").mkdir()
    message = told(spec, tmp_path)
    assert f"{tmp_path / 'imagenet/val/n99999999'} is not one of its classes" in message
    assert "move it away" in message
    assert len(scan(spec, tmp_path, allow_incomplete=True)) == 6


def test_an_empty_folder_is_a_missing_dataset_even_where_incomplete_ones_are_allowed(tmp_path):
    spec = few("imagenet_val")
    (tmp_path / "imagenet/val").mkdir(parents=True)
    for allow in (False, True):
        with pytest.raises(MissingDatasetError, match=r"found no image; unpack its archive there"):
            scan(spec, tmp_path, allow_incomplete=allow)


def test_what_is_incomplete_can_be_gone_on_with(tmp_path):
    spec = val(tmp_path, 4)
    shutil.rmtree(tmp_path / "imagenet/val" / spec.classes[0])
    tree = scan(spec, tmp_path, allow_incomplete=True)
    assert Counter(tree.labels.tolist()) == {1: 2, 2: 2, 3: 2}


def test_a_link_to_nowhere_is_told_by_its_path(tmp_path):
    spec = val(tmp_path)
    link = tmp_path / "imagenet/val" / spec.classes[0] / "gone.JPEG"
    link.symlink_to("/nowhere/gone.JPEG")
    with pytest.raises(RibError, match=f"^{link} "):
        scan(spec, tmp_path)


def test_links_to_folders_and_images_are_followed(tmp_path):
    spec = val(tmp_path / "kept")
    (tmp_path / "root/imagenet").mkdir(parents=True)
    (tmp_path / "root/imagenet/val").symlink_to(tmp_path / "kept/imagenet/val")
    assert scan(spec, tmp_path / "root").digest == scan(spec, tmp_path / "kept").digest


# The record of a listing


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """A tree with a record, and a list of the folders that are walked from then on."""
    root, records = tmp_path / "root", tmp_path / "records"
    spec = val(root, 4)
    age(root)
    tree = scan(spec, root, records)
    assert list(records.iterdir())
    walked = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: walked.append(str(folder)) or scandir(folder))
    return spec, root, records, tree, walked


def test_a_second_scan_walks_no_class_folder(recorded):
    spec, root, records, tree, walked = recorded
    again = scan(spec, root, records)
    assert walked == [str(root / "imagenet/val")]
    assert (again.paths, again.digest) == (tree.paths, tree.digest)
    assert np.array_equal(again.labels, tree.labels)


def test_an_added_a_removed_and_a_renamed_file_are_noticed(recorded):
    spec, root, records, tree, _ = recorded
    complete, spec = spec, replace(spec, num_images=None)
    added = root / "imagenet/val" / spec.classes[0] / "added.JPEG"
    added.write_bytes(b"x")
    assert len(scan(spec, root, records, allow_incomplete=True)) == len(tree) + 1
    age(root)
    scan(spec, root, records, allow_incomplete=True)
    added.rename(added.with_name("renamed.JPEG"))
    assert any("renamed" in path for path in scan(spec, root, records, allow_incomplete=True).paths)
    added.with_name("renamed.JPEG").unlink()
    assert scan(complete, root, records).digest == tree.digest


def test_rescan_lists_again(recorded):
    spec, root, records, tree, walked = recorded
    file = root / "imagenet/val" / tree.paths[0]
    file.write_bytes(b"rewritten in place")
    assert scan(spec, root, records).sizes[0] == tree.sizes[0] != 18
    walked.clear()
    assert scan(spec, root, records, rescan=True).sizes[0] == 18
    assert len(walked) == 5
    assert scan(spec, root, records).sizes[0] == 18


def test_another_folder_with_the_same_time_is_listed_again(recorded):
    """Unpacking an archive anew puts the folders' times back."""
    spec, root, records, tree, _ = recorded
    folder = root / "imagenet/val" / spec.classes[0]
    times = folder.stat()
    folder.rename(root / "old")
    shutil.copytree(root / "old", folder)
    (folder / tree.paths[0].rpartition("/")[2]).rename(folder / "another.JPEG")
    os.utime(folder, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert f"{spec.classes[0]}/another.JPEG" in scan(spec, root, records).paths


@pytest.mark.parametrize("damage", ["", "{", "\xff", "cut", "no sizes", "names cut", "a folder", "a pickle"])
def test_a_damaged_record_is_ignored(recorded, damage):
    spec, root, records, tree, _ = recorded
    (record,) = records.iterdir()
    whole = record.read_bytes()
    columns = dict(np.load(record))
    if damage == "no sizes":
        del columns["sizes"]
    elif damage == "names cut":
        columns["names"] = columns["names"][:-30]
    elif damage == "a folder":
        columns["folders"] = columns["folders"][:-1]
    elif damage == "a pickle":
        columns["names"] = np.array(["x", 1], dtype=object)
    if damage in ("", "{", "\xff", "cut"):
        record.write_bytes(whole[: len(whole) // 2] if damage == "cut" else damage.encode("latin-1"))
    else:
        np.savez(record, **columns)
    again = scan(spec, root, records)
    assert (again.paths, again.digest) == (tree.paths, tree.digest)
    assert np.array_equal(again.sizes, tree.sizes)


def test_a_folder_that_may_still_be_changing_is_not_recorded(tmp_path):
    spec = val(tmp_path / "root")
    scan(spec, tmp_path / "root", tmp_path / "records")
    assert not list(tmp_path.glob("records/*"))


def test_two_roots_have_two_records(tmp_path):
    records = tmp_path / "records"
    for place, each in (("one", 2), ("two", 3)):
        spec = val(tmp_path / place, each=each)
        age(tmp_path / place)
        scan(spec, tmp_path / place, records)
    assert len(list(records.iterdir())) == 2


# Parts of a tree


@pytest.fixture
def tree(tmp_path):
    spec = replace(val(tmp_path, 5, 7), num_images=None)
    for file in list((tmp_path / "imagenet/val" / spec.classes[4]).iterdir())[2:]:
        file.unlink()
    return scan(spec, tmp_path)


def counts(part):
    return np.bincount(part.labels, minlength=5).tolist()


def test_images_per_class_is_balanced_and_nested(tree):
    parts = [tree.images_per_class(count, seed=0) for count in (1, 3, 7, 100)]
    assert [counts(part) for part in parts] == [[1] * 5, [3, 3, 3, 3, 2], [7, 7, 7, 7, 2], [7, 7, 7, 7, 2]]
    assert all(set(one.paths) <= set(two.paths) for one, two in itertools.pairwise(parts))


def test_a_part_keeps_each_images_label(tree):
    label_of = dict(zip(tree.paths, tree.labels, strict=True))
    for part in (tree.limit(9), tree.images_per_class(2, 1), *tree.holdout(0.3, 1)):
        assert part.paths == tuple(sorted(part.paths))
        assert all(label_of[path] == label for path, label in zip(part.paths, part.labels, strict=True))


def test_what_a_seed_draws_is_the_same_on_every_machine(tree):
    part = tree.images_per_class(2, seed=7)
    drawn = [path.rsplit("_", 1)[-1] for path in part.paths]
    assert drawn == [f"{number}.JPEG" for pair in ((4, 6), (5, 6), (3, 5), (2, 4), (2, 3)) for number in pair]


def test_another_seed_is_another_part_and_the_same_seed_the_same(tree):
    one, same, other = (tree.images_per_class(2, seed) for seed in (0, 0, 1))
    assert one.paths == same.paths != other.paths
    assert one.digest == same.digest != other.digest


def test_every_rule_has_a_digest_of_its_own(tree):
    train, held = tree.holdout(0.3, 0)
    parts = [tree, train, held, tree.holdout(0.3, 1)[1], tree.limit(9), tree.limit(10), tree.images_per_class(2, 0)]
    assert len({part.digest for part in parts}) == len(parts)


@pytest.mark.parametrize("count", [1, 4, 5, 9, 12, 29, 30, 99])
def test_limit_spreads_evenly_and_never_exceeds_the_count(tree, count):
    part = tree.limit(count)
    assert len(part) == min(count, len(tree))
    full = [n for n, there in zip(counts(part), counts(tree), strict=True) if n < there]
    assert max(counts(part)) - min(full, default=7) <= 1


def test_limit_of_c_spreads_over_cells_and_classes(tmp_path):
    spec = few("imagenet_c", 4, cells=NOISY)
    for cell in NOISY:
        fill(tmp_path / "imagenet-c" / cell, spec.classes)
    tree = scan(spec, tmp_path)
    for count in (4, 8, 16, 20):
        part = tree.limit(count)
        assert len(part) == count
        cells = Counter(path.rsplit("/", 2)[0] for path in part.paths)
        assert set(cells.values()) == {count // 4}
        assert max(counts(part)) - min(counts(part)[:4]) <= 1, count


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5, 0.9, 0.99])
def test_holdout_is_disjoint_complete_and_balanced_and_leaves_each_class_an_image(tree, fraction):
    train, held = tree.holdout(fraction, seed=3)
    assert not set(train.paths) & set(held.paths)
    assert sorted(train.paths + held.paths) == list(tree.paths)
    sizes = counts(tree)
    assert counts(held) == [min(round(fraction * n), n - 1) for n in sizes]
    assert min(counts(train)) >= 1


def test_a_part_without_images_is_an_error(tree):
    for ask in (lambda: tree.limit(0), lambda: tree.images_per_class(0, 0), lambda: tree.holdout(0.01, 0)):
        with pytest.raises(RibError, match=r"^data\.(limit|images_per_class|holdout): "):
            ask()
