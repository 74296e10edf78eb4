"""Domains that are files on disk: class folders, patterns and manifests give the right labels, or say what is wrong."""

from __future__ import annotations

import csv
import json
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from rib.data.scan import scan
from rib.data.suites.scan_domain import say_absent_classes
from rib.data.suites.suite import Suite
from rib.data.suites.suite_file import load_suite
from rib.data.tree import ImageTree
from rib.errors import MissingDatasetError, RibError
from rib.runtime import console
from tests.data.trees import replaced_in_place

pytestmark = pytest.mark.usefixtures("no_progress")


def suite_of(root: Path, domain: object, classes: tuple[str, ...] = ("dog", "cat", "mug")) -> Suite:
    """A suite with one domain, ``one``."""
    file = root / "suite.yaml"
    file.write_text(yaml.safe_dump({"name": "pets", "classes": list(classes), "domains": {"one": domain}}))
    return load_suite(file)


def images_of(root: Path, domain: object, classes: tuple[str, ...] = ("dog", "cat", "mug"), **options) -> ImageTree:
    suite = suite_of(root, domain, classes)
    return scan(suite.catalog()["one"], suite.root, **options)


def put(root: Path, *paths: str) -> None:
    """Files that only look like images, each of another size."""
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(bytes(10 + number))


def labels(tree: ImageTree) -> dict[str, str]:
    return {path: tree.spec.classes[label] for path, label in zip(tree.paths, tree.labels.tolist(), strict=True)}


def test_labels_follow_the_suite_and_not_the_order_of_folders(tmp_path):
    put(tmp_path, "x/cat/1.jpg", "x/dog/2.PNG", "x/dog/1.webp", "x/mug/1.bmp")
    tree = images_of(tmp_path, {"folder": "x"})
    assert tree.paths == ("cat/1.jpg", "dog/1.webp", "dog/2.PNG", "mug/1.bmp")
    assert tree.labels.tolist() == [1, 0, 0, 2]
    assert tree.folder == tmp_path / "x"
    assert tree.sizes is not None
    assert tree.sizes.tolist() == [10, 12, 11, 13]
    assert (tree.found, tree.incomplete, tree.identity) == (4, None, "content")


def test_what_is_no_image_is_ignored(tmp_path):
    put(tmp_path, "x/dog/1.jpg", "x/cat/1.jpg", "x/mug/1.jpg", "x/readme.txt", "x/dog/Thumbs.db", "x/dog/notes.txt")
    put(tmp_path, "x/dog/._1.jpg", "x/.cache/1.jpg", "x/empty/list.csv", "x/__MACOSX/._dog.jpg", "x/dog/more/2.jpg")
    assert len(images_of(tmp_path, {"folder": "x"})) == 3


def test_a_class_without_an_image_stays_in_the_label_space_and_is_said_once(tmp_path, capsys):
    console.say_once.cache_clear()
    put(tmp_path, "x/mug/1.jpg")
    for _ in range(2):
        tree = images_of(tmp_path, {"folder": "x"}, ("a", "b", "c", "d", "mug"))
        say_absent_classes(tree)
    assert tree.labels.tolist() == [4]
    assert len(tree.spec.groups) == 5
    said = "one has no image of a, b and 2 more classes; accuracy is over the images it has\n"
    assert capsys.readouterr().err == said


def test_an_unknown_class_is_refused_with_the_nearest_one(tmp_path):
    put(tmp_path, "x/dog/1.jpg", "x/cat/1.jpg", "x/mugs/1.jpg", "x/tree/1.jpg")
    with pytest.raises(RibError, match=r"one: mugs \(.*/x/mugs/1.jpg\) is none of .* 3 classes \(2 such classes\); did "
                       r"you mean mug\?; add it to classes, rename it with class_names: \{mugs: \.\.\.\}"):  # fmt: skip
        images_of(tmp_path, {"folder": "x"})
    assert labels(images_of(tmp_path, {"folder": "x"}, allow_incomplete=True)) == {
        "cat/1.jpg": "cat",
        "dog/1.jpg": "dog",
    }
    renamed = {"folder": "x", "class_names": {"mugs": "mug", "tree": None}}
    found = images_of(tmp_path, renamed)
    assert labels(found) == {"cat/1.jpg": "cat", "dog/1.jpg": "dog", "mugs/1.jpg": "mug"}
    assert found.sizes is not None
    assert len(found.sizes) == 3


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        ((), "expected the folder {}/x, which does not exist"),
        (("xx/dog/1.jpg",), "which does not exist; did you mean xx?"),
        (("x/dog/a.txt",), "expected images in class folders in {}/x, found none; put one folder a class there"),
        (("x/1.jpg",), "found none, but images without one; put them into one folder a class, or use glob"),
        (("x/train/dog/1.jpg",), 'they seem to lie deeper, which glob: "x/**/*" finds'),
    ],
)
def test_a_domain_without_images_is_missing(tmp_path, paths, said):
    put(tmp_path, *paths)
    with pytest.raises(MissingDatasetError) as error:
        images_of(tmp_path, {"folder": "x"})
    assert said.format(tmp_path) in str(error.value)


def test_a_broken_link_is_named(tmp_path):
    put(tmp_path, "x/dog/1.jpg")
    (tmp_path / "x/dog/2.jpg").symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(RibError, match=r"x/dog/2.jpg is a broken symbolic link"):
        images_of(tmp_path, {"folder": "x"})


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ({"glob": "s/**/*.png"}, {"a/dog/1.png": "dog", "b/c/cat/1.png": "cat", "mug/1.png": "mug"}),
        ({"glob": "s/*/*"}, {"mug/1.png": "mug", "mug/2.jpg": "mug"}),
        ({"glob": "s/[!m]*/*/*", "class_from": "parent"}, {"a/dog/1.png": "dog", "a/dog/2.jpg": "dog"}),
        ({"glob": "s/mug/*"}, {"1.png": "mug", "2.jpg": "mug"}),
        ({"glob": "s/**/?.png", "class_from": "s/.*?(?P<class>dog|cat|mug)"},
         {"a/dog/1.png": "dog", "b/c/cat/1.png": "cat", "mug/1.png": "mug"}),
        ({"glob": "?/**/*.png"}, {"s/a/dog/1.png": "dog", "s/b/c/cat/1.png": "cat", "s/mug/1.png": "mug"}),
        ({"glob": "flat/*", "class_from": "stem"}, {"cat.jpg": "cat", "dog (3).jpg": "dog", "dog-01.jpg": "dog",
                                                    "mug_1.png": "mug", "mug2.png": "mug"}),
    ],
)  # fmt: skip
def test_a_pattern_finds_images_and_their_class(tmp_path, domain, expected):
    put(
        tmp_path,
        "s/a/dog/1.png",
        "s/a/dog/2.jpg",
        "s/b/c/cat/1.png",
        "s/mug/1.png",
        "s/mug/2.jpg",
        "s/.hidden/dog/1.png",
    )
    put(
        tmp_path,
        *(f"flat/{name}" for name in ("cat.jpg", "dog (3).jpg", "dog-01.jpg", "mug_1.png", "mug2.png", "x.txt")),
    )
    tree = images_of(tmp_path, domain)
    assert labels(tree) == expected
    assert list(tree.paths) == sorted(tree.paths)
    assert tree.sizes is not None
    assert tree.sizes.tolist() == [(tree.folder / path).stat().st_size for path in tree.paths]


def test_an_image_without_a_class_by_the_rule_is_named(tmp_path):
    put(tmp_path, "s/dog/1.jpg", "s/other/1.jpg")
    with pytest.raises(
        RibError, match=r"expected class_from=.* to find the class of each image, found none in .*other/1"
    ):
        images_of(tmp_path, {"glob": "s/*/*", "class_from": "s/(?P<class>dog)/"})


def test_a_link_to_a_folder_above_ends(tmp_path):
    put(tmp_path, "s/dog/1.jpg")
    (tmp_path / "s/dog/up").symlink_to(tmp_path / "s")
    assert len(images_of(tmp_path, {"glob": "s/**/*"})) == 1


ROWS = [
    ("p/1.jpg", "dog", "photo"),
    ("p/2.jpg", "cat", "photo"),
    ("./s//1.jpg", "mug", "sketch"),
    ("s/2.jpg", "0", "sketch"),
]
"""Rows of a manifest; the last label is the number of a class."""


def write_rows(file: Path, rows: list[tuple[str, ...]], columns: tuple[str, ...] = ("path", "label", "domain")) -> None:
    objects = [dict(zip(columns, row, strict=True)) for row in rows]
    match file.suffix:
        case ".json":
            file.write_text(json.dumps(objects))
        case ".jsonl":
            file.write_text("\n".join(map(json.dumps, objects)) + "\n")
        case ending:
            with file.open("w", newline="", encoding="utf-8-sig") as stream:
                writer = csv.writer(stream, delimiter="\t" if ending == ".tsv" else ",")
                writer.writerows([columns, *rows])


@pytest.mark.parametrize("name", ["web.csv", "web.tsv", "web.json", "web.jsonl", "inner/web.csv"])
def test_a_manifest_gives_paths_labels_and_domains(tmp_path, name):
    put(tmp_path, "p/1.jpg", "p/2.jpg", "s/1.jpg", "s/2.jpg")
    (tmp_path / "inner").mkdir()
    write_rows(tmp_path / name, ROWS)
    assert labels(images_of(tmp_path, {"manifest": name})) == {
        "p/1.jpg": "dog",
        "p/2.jpg": "cat",
        "s/1.jpg": "mug",
        "s/2.jpg": "dog",
    }
    assert labels(images_of(tmp_path, {"manifest": name, "domain": "photo"})) == {"p/1.jpg": "dog", "p/2.jpg": "cat"}


def test_blanks_after_commas_and_capitals_in_the_names_of_columns_do_not_count(tmp_path):
    put(tmp_path, "p/1.jpg", "p/a b.jpg")
    (tmp_path / "web.csv").write_text("Path, Label\np/1.jpg, dog\n\np/a b.jpg,cat \n")
    assert labels(images_of(tmp_path, {"manifest": "web.csv"})) == {"p/1.jpg": "dog", "p/a b.jpg": "cat"}


def test_paths_that_go_up_from_the_manifest_are_to_be_relative_to_the_root(tmp_path):
    put(tmp_path, "p/1.jpg")
    (tmp_path / "inner").mkdir()
    write_rows(tmp_path / "inner/web.csv", [("../p/1.jpg", "dog")], ("path", "label"))
    with pytest.raises(RibError, match=rf"got \.\./p/1.jpg; write paths relative to {tmp_path}$"):
        images_of(tmp_path, {"manifest": "inner/web.csv"})


def test_paths_may_be_relative_to_the_manifest_or_absolute_below_the_root(tmp_path):
    put(tmp_path, "inner/p/1.jpg", "inner/p/2.jpg")
    write_rows(tmp_path / "inner/web.csv", [("p/1.jpg", "dog"), ("p/2.jpg", "cat")], ("path", "label"))
    tree = images_of(tmp_path, {"manifest": "inner/web.csv"})
    assert (tree.folder, tree.paths) == (tmp_path / "inner", ("p/1.jpg", "p/2.jpg"))
    whole = [(str(tmp_path / "inner/p/1.jpg"), "dog"), (str(tmp_path / "inner/p/2.jpg"), "cat")]
    write_rows(tmp_path / "inner/web.csv", whole, ("path", "label"))
    tree = images_of(tmp_path, {"manifest": "inner/web.csv"})
    assert (tree.folder, tree.paths) == (tmp_path, ("inner/p/1.jpg", "inner/p/2.jpg"))


@pytest.mark.parametrize(
    ("rows", "columns", "said"),
    [
        ([("/data/1.jpg", "dog")], ("path", "label"), "row 1: expected a path below"),
        ([("../1.jpg", "dog")], ("path", "label"), "set root to a folder above all images"),
        ([("p/1.jpg", "dog")], ("file", "label"), "expected the columns path and label, got file, label"),
        ([("p/1.jpg", "dog")], ("path", "lable"), "got path, lable; name the columns so"),
        ([("p", "dog"), ("p/1.jpg", "dog")], ("path", "label"), "found 1 (p is missing)"),
        ([("p/\0.jpg", "dog")], ("path", "label"), "is missing"),
        (
            [("p/1.jpg", "dog"), ("p/1.jpg", "cat")],
            ("path", "label"),
            "row 2: expected each image once, got p/1.jpg again",
        ),
        ([("p/1.jpg", "dog"), ("p/2.jpg", "")], ("path", "label"), "row 2: expected a label, got ''"),
        ([("p/1.jpg", "dog"), ("p/9.jpg", "dog")], ("path", "label"), "found 1 (p/9.jpg is missing)"),
        ([("p/1.jpg", "wolf")], ("path", "label"), "wolf"),
        ([("p/1.jpg", "7")], ("path", "label"), "7 ("),
        ([], ("path", "label"), "expected images, found none of web.csv"),
    ],
)
def test_a_mistake_in_a_manifest_is_one_sentence(tmp_path, rows, columns, said):
    put(tmp_path, "p/1.jpg", "p/2.jpg")
    write_rows(tmp_path / "web.csv", rows, columns)
    with pytest.raises(RibError) as error:
        images_of(tmp_path, {"manifest": "web.csv"})
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("web.txt", "x", "expected a manifest with the ending .csv, .tsv, .json, .jsonl, .parquet, got .txt"),
        ("web.json", "{", "cannot be read as json"),
        ("web.json", '{"path": "a"}', "expected objects with path and label"),
        ("web.jsonl", '{"path": "a", "label": 1}\nx', "cannot be read as jsonl"),
        ("web.jsonl", '{"path": "a", "label": true}', "row 1: expected a label, got True"),
        ("web.json", '[{"path": "a", "label": 1e999}]', "row 1: expected a label, got inf"),
        ("web.csv", "", "expected the columns path and label, got none"),
    ],
)
def test_a_damaged_manifest_is_one_sentence(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(RibError) as error:
        images_of(tmp_path, {"manifest": name})
    assert said in str(error.value)


def test_a_value_of_domain_that_is_not_there_is_told_by_the_nearest_one(tmp_path):
    put(tmp_path, "p/1.jpg")
    write_rows(tmp_path / "web.csv", ROWS)
    with pytest.raises(RibError, match=r"expected rows with domain photos, found none; did you mean photo\?"):
        images_of(tmp_path, {"manifest": "web.csv", "domain": "photos"})
    with pytest.raises(RibError, match=r"there is no manifest .*/wob.csv"):
        images_of(tmp_path, {"manifest": "wob.csv"})


def test_missing_images_of_a_manifest_are_left_out_where_that_is_allowed(tmp_path):
    put(tmp_path, "p/1.jpg")
    write_rows(tmp_path / "web.csv", ROWS)
    domain, records = {"manifest": "web.csv", "domain": "photo"}, tmp_path / "records"
    assert len(images_of(tmp_path, domain, allow_incomplete=True, records=records)) == 1
    with pytest.raises(RibError, match=r"p/2.jpg is missing"):
        images_of(tmp_path, domain, records=records)


def test_parquet_needs_pyarrow_and_says_so(tmp_path, monkeypatch):
    (tmp_path / "web.parquet").write_bytes(b"PAR1")

    def without_pyarrow(file: Path) -> pd.DataFrame:
        raise ImportError("Unable to find a usable engine")

    monkeypatch.setattr(pd, "read_parquet", without_pyarrow)
    with pytest.raises(RibError, match=r'pip install "rib\[parquet\]", or write the table as CSV'):
        images_of(tmp_path, {"manifest": "web.parquet"})


def test_a_table_of_parquet_is_read(tmp_path, monkeypatch):
    put(tmp_path, "p/1.jpg", "p/2.jpg")
    (tmp_path / "web.parquet").write_bytes(b"PAR1")
    frame = pd.DataFrame({"path": ["p/1.jpg", "p/2.jpg"], "label": np.array([2, 1])})
    monkeypatch.setattr(pd, "read_parquet", lambda file: frame)
    assert images_of(tmp_path, {"manifest": "web.parquet"}).labels.tolist() == [2, 1]


@pytest.mark.parametrize("domain", [{"folder": "x"}, {"glob": "x/**/*"}, {"manifest": "web.csv"}])
def test_a_listing_is_saved_and_read_only_while_nothing_has_changed(tmp_path, monkeypatch, domain):
    put(tmp_path, "x/dog/1.jpg", "x/cat/1.jpg", "x/mug/1.jpg")
    write_rows(tmp_path / "web.csv", [(f"x/{name}/1.jpg", name) for name in ("dog", "cat", "mug")], ("path", "label"))
    records = tmp_path / "records"
    monkeypatch.setattr("rib.data.suites.images.RACY_NS", 0)  # else a place that changed just now is not trusted
    time.sleep(0.02)  # a file system's clock ticks every few milliseconds
    first = images_of(tmp_path, domain, records=records)
    assert len(list(records.glob("one-*.npz"))) == 1
    with monkeypatch.context() as patched:
        patched.setattr("rib.data.suites.images.DomainImages.of", None)
        patched.setattr("rib.data.suites.read.read_folder", None)
        again = images_of(tmp_path, domain, records=records)
    assert (again.paths, again.labels.tolist(), again.digest) == (first.paths, first.labels.tolist(), first.digest)
    (tmp_path / "x/dog/1.jpg").rename(tmp_path / "x/dog/2.jpg")
    if "manifest" in domain:
        with pytest.raises(RibError, match=r"dog/1.jpg is missing"):
            images_of(tmp_path, domain, records=records)
    else:
        assert images_of(tmp_path, domain, records=records).paths != first.paths


def test_the_digest_is_of_content_and_labels_and_not_of_the_place(tmp_path):
    put(tmp_path, "x/dog/1.jpg", "x/cat/1.jpg")
    digest = images_of(tmp_path, {"folder": "x"}).digest
    os.rename(tmp_path / "x", tmp_path / "y")
    assert images_of(tmp_path, {"folder": "y"}).digest == digest
    assert images_of(tmp_path, {"folder": "y"}, ("cat", "dog", "mug")).digest != digest
    replaced_in_place(tmp_path / "y/dog/1.jpg")
    assert images_of(tmp_path, {"folder": "y"}).digest != digest


def test_limits_and_hold_outs_work_as_for_imagenet(tmp_path):
    put(tmp_path, *(f"x/{name}/{i}.jpg" for name in ("dog", "cat", "mug") for i in range(10)))
    tree = images_of(tmp_path, {"folder": "x"})
    assert np.bincount(tree.limit(6).labels).tolist() == [2, 2, 2]
    train, held_out = tree.holdout(0.3, 0)
    assert (len(train), len(held_out)) == (21, 9)
    assert not {*train.paths} & {*held_out.paths}
    assert len({tree.digest, train.digest, held_out.digest}) == 3
