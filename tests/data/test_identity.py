"""Keys depend on the content of images, never on times, locations or earlier states."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from rib.data import identity
from rib.data.catalog import Catalog, real
from rib.data.identity import CONTENTS, DIGESTS, contents_digest
from rib.data.mini import catalog, digests, ensure
from rib.data.scan import scan
from rib.runs.resolve import resolve
from rib.runtime import content
from rib.runtime.files import digest_of
from tests.data.trees import age, few, fill, replaced_in_place


@pytest.fixture
def root(tmp_path):
    spec = few("imagenet_val", 3, 4)
    fill(tmp_path / "root/imagenet/val", spec.classes, 4)
    age(tmp_path / "root")
    return tmp_path / "root"


@pytest.fixture
def look(root, tmp_path):
    """A scan with records, as the next command would do it."""
    return lambda place=root, **options: scan(few("imagenet_val", 3, 4), place, tmp_path / "records", **options)


@pytest.fixture
def read(monkeypatch):
    """The files that are read; all of them count as written long before."""
    monkeypatch.setattr(content, "RACY_NS", 0)
    files = []
    digest = content._digest
    monkeypatch.setattr(content, "_digest", lambda file: files.append(file) or digest(file))
    return files


def test_a_dataset_that_is_copied_touched_or_moved_is_the_same(look, root, tmp_path):
    first = look()
    expected = [first.digest, *(part.digest for part in first.holdout(0.3, 0)), first.limit(2).digest]
    shutil.copytree(root, tmp_path / "copy")
    for file in (tmp_path / "copy").rglob("*.JPEG"):
        os.utime(file)
    root.rename(tmp_path / "moved")
    for place in ("copy", "moved"):
        tree = look(tmp_path / place)
        assert [tree.digest, *(part.digest for part in tree.holdout(0.3, 0)), tree.limit(2).digest] == expected


def test_an_image_replaced_in_place_is_seen_by_the_next_command(look, read):
    first = look()
    assert first.digest == look().digest
    replaced_in_place(first.folder / first.paths[5])
    read.clear()
    assert look().digest != first.digest
    assert read == [first.folder / first.paths[5]]
    replaced_in_place(first.folder / first.paths[5])
    assert look().digest == first.digest, "the old bytes are back"


def test_a_folder_unpacked_anew_with_the_same_names_sizes_and_times_is_seen(look, root, tmp_path, read):
    first = look()
    assert first.digest
    shutil.copytree(root, tmp_path / "new")
    changed = tmp_path / "new/imagenet/val" / first.paths[0]
    replaced_in_place(changed)
    shutil.rmtree(root)
    (tmp_path / "new").rename(root)
    assert look().paths == first.paths
    assert look().digest != first.digest


def test_names_count_as_much_as_content(look, root):
    first = look()
    assert first.digest
    one, other = (root / "imagenet/val" / path for path in first.paths[:2])
    one.rename(root / "kept")
    other.rename(one)
    (root / "kept").rename(other)
    assert look().paths == first.paths
    assert look().digest != first.digest


@pytest.mark.parametrize(
    "choose",
    [
        lambda tree: tree.limit(2),
        lambda tree: tree.images_per_class(1, 0),
        lambda tree: tree.holdout(0.3, 0)[1],
        lambda tree: tree.limit(6).images_per_class(1, 3).shuffled_labels(0),
    ],
    ids=["limit", "images_per_class", "holdout", "stacked"],
)
def test_only_images_that_take_part_are_read_and_count(look, read, choose):
    whole = look()
    part = choose(whole)
    assert read == []
    first = part.digest
    assert sorted(read) == [whole.folder / path for path in part.paths]
    assert len(part) < len(whole)
    other = next(path for path in whole.paths if path not in part.paths)
    replaced_in_place(whole.folder / other)
    assert choose(look()).digest == first
    replaced_in_place(whole.folder / part.paths[0])
    assert choose(look()).digest != first


def test_the_same_images_by_two_rules_are_one_part(look):
    tree = look()
    assert tree.limit(5).digest == tree.limit(7).limit(5).digest
    assert tree.limit(5).digest != tree.limit(6).digest


def test_shuffled_labels_are_another_digest(look):
    tree = look()
    assert tree.shuffled_labels(0).digest == tree.shuffled_labels(0).digest
    assert len({tree.digest, tree.shuffled_labels(0).digest, tree.shuffled_labels(1).digest}) == 3


def test_rescan_reads_every_image_again_once_whatever_parts_ask(look, read):
    assert look().digest
    read.clear()
    tree = look(rescan=True)
    for part in (*tree.holdout(0.3, 0), tree, tree.limit(4)):
        assert part.digest
    assert sorted(read) == [tree.folder / path for path in tree.paths]


def test_on_a_network_only_folders_are_looked_at_until_rescan(look, read, monkeypatch):
    monkeypatch.setattr(identity, "is_network", lambda folder: True)
    first = look()
    assert first.digest
    replaced_in_place(first.folder / first.paths[0])
    asked = []
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **k: asked.append(str(path)) or stat(path, **k))
    assert look().digest == first.digest
    assert not [path for path in asked if path.endswith(".JPEG")]
    assert look(rescan=True).digest != first.digest


# Names and sizes alone


def test_a_listing_reads_nothing_and_sees_another_size_but_not_other_bytes(look, read):
    first = look(identity="listing")
    assert first.digest
    assert first.identity == "listing"
    file = first.folder / first.paths[0]
    replaced_in_place(file)
    assert look(identity="listing").digest == first.digest
    file.write_bytes(b"another size")
    assert look(identity="listing").digest != first.digest
    assert read == []


def test_a_listing_and_contents_never_share_a_key(look):
    assert look(identity="listing").digest != look(identity="content").digest == look().digest


def test_imagenet_c_is_told_by_its_listing_unless_said_otherwise(tmp_path):
    spec = few("imagenet_c", 2, cells=("fog/1",))
    fill(tmp_path / "imagenet-c/fog/1", spec.classes)
    kinds = {kind: scan(spec, tmp_path, identity=kind).identity for kind in (None, "content", "listing")}
    assert kinds == {None: "listing", "content": "content", "listing": "listing"}


def test_on_a_network_a_listing_asks_for_no_file(look, monkeypatch):
    monkeypatch.setattr(identity, "is_network", lambda folder: True)
    monkeypatch.setattr(content, "file_states", lambda *_: pytest.fail("files were looked at"))
    tree = look(identity="listing")
    assert tree.digest != tree.limit(3).digest != look(identity="listing").limit(4).digest


# What is drawn


@pytest.fixture
def drawn(root, look):
    """A root whose files are said to be those that were drawn."""
    tree = look()
    whole = contents_digest(tree.file_identity.contents(tree.folder, tree.paths, ""))
    (root / DIGESTS).write_text(json.dumps({"imagenet_val": "of pixels"}))
    (root / CONTENTS).write_text(json.dumps({"imagenet_val": whole}))
    return root


def test_drawn_images_are_told_by_their_pixels_and_a_part_by_its_rule(drawn, look):
    tree = look()
    assert (tree.identity, tree.digest) == ("pixels", "of pixels")
    assert tree.limit(2).digest == digest_of(["of pixels", "limit 2"])
    assert tree.images_per_class(1, 5).digest == digest_of(["of pixels", "images_per_class 1 seed 5"])
    train, held = tree.holdout(0.25, 3)
    assert held.digest == digest_of(["of pixels", "holdout 0.25 seed 3"])
    assert train.digest == digest_of(["of pixels", "without holdout 0.25 seed 3"])
    assert held.shuffled_labels(1).digest == digest_of([held.digest, "shuffled_labels seed 1"])


def test_a_label_rule_is_part_of_what_is_drawn(drawn, tmp_path):
    spec = replace(few("imagenet_val", 3, 4), labels=(2, 0, 1))
    assert scan(spec, drawn).digest == digest_of(["of pixels", (2, 0, 1)])


@pytest.mark.parametrize("change", ["an image", "a missing one", CONTENTS, DIGESTS])
def test_drawn_images_that_are_not_as_they_were_drawn_are_told_by_content(drawn, look, capsys, change):
    tree = look()
    if change == "an image":
        replaced_in_place(drawn / "imagenet/val" / tree.paths[3])
    elif change == "a missing one":
        (drawn / "imagenet/val" / tree.paths[3]).unlink()
    else:
        (drawn / change).write_text('{"imagenet_val"')
    again = look(allow_incomplete=True)
    assert again.identity == "content"
    assert again.digest != tree.digest
    assert ("have changed since they were drawn" in capsys.readouterr().err) == (change == "an image")


def test_mini_is_told_by_the_pixels_that_the_package_names(cache):
    root = ensure(cache)
    assert {name: scan(spec, root).digest for name, spec in catalog().specs.items()} == digests()


# To the end


@pytest.fixture
def key(ask_for, tmp_path, monkeypatch):
    """The training and score keys of a command on a user's root."""
    specs = [few(name) for name in ("imagenet_a", "imagenet_r")]
    monkeypatch.setattr("rib.data.catalog.real", lambda: Catalog("user", real().outputs, {s.name: s for s in specs}))
    for spec in specs:
        fill(tmp_path / "data" / spec.folders[0], spec.classes)
    suite = ("suite.targets=[imagenet_a,imagenet_r]", "suite.reported=[]")

    def find(*overrides):
        asked = resolve(ask_for("model=mini_tiny", *suite, f"data.root={tmp_path / 'data'}", *overrides))
        return asked.training_key, asked.score_keys

    return find


def test_a_replaced_image_of_the_source_makes_another_run_and_one_of_a_target_another_score(key, tmp_path):
    trained, scored = key()
    assert key() == (trained, scored)
    replaced_in_place(next((tmp_path / "data/imagenet-a").rglob("*.JPEG")))
    same, other = key()
    assert same == trained
    assert [name for name in scored if scored[name] != other[name]] == ["imagenet_a"]
    replaced_in_place(next((tmp_path / "data/imagenet-r").rglob("*.JPEG")))
    assert key()[0] != trained


def test_how_images_are_told_is_an_option(key):
    assert key("data.identity=content") == key()
    assert key("data.identity=listing")[0] != key()[0]


def test_labels_are_part_of_the_identity(look):
    tree = look()
    other = replace(tree, labels=np.roll(tree.labels, 1))
    assert other.digest != tree.digest
