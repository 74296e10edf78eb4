"""A suite's YAML file: its defaults, and one sentence with the right spelling for each mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rib.data import worlds
from rib.data.suites.suite_file import load_suite
from rib.errors import RibError
from tests.support.suites import make_photo_suite, suite_document


def write(folder: Path, **keys) -> Path:
    file = folder / "photos.yaml"
    document = suite_document(("photo", "sketch", "paint"), ("dog", "cat")) | keys
    file.write_text(
        yaml.safe_dump({key: value for key, value in document.items() if value != "left out"}, sort_keys=False)
    )
    return file


def test_what_a_file_leaves_out_has_a_default(tmp_path):
    suite = load_suite(write(tmp_path, title="left out", domains={"photo": "photos", "sketch": None}))
    assert (suite.name, suite.title, suite.root) == ("photos", "photos", tmp_path)
    assert [one.domain.place for one in suite.domains.values()] == ["photos", "sketch"]
    assert suite.sources == suite.targets == ("photo", "sketch")
    assert (suite.reported, suite.reference, suite.head, suite.templates) == ((), None, None, ())
    assert [(one.name, one.words, one.imagenet) for one in suite.classes] == [("dog", "dog", ()), ("cat", "cat", ())]


def test_a_reference_and_what_is_reported_are_no_target_and_what_may_not_be_trained_on_is_no_source(tmp_path):
    domains = {name: {"folder": name} for name in ("a", "b", "c", "d")} | {"e": {"folder": "e", "may_train": False}}
    suite = load_suite(write(tmp_path, domains=domains, reference="a", reported=["b"]))
    assert suite.sources == ("c", "d")
    assert suite.targets == ("c", "d", "e")
    assert suite.catalog().in_distribution == "b"


def test_licences_are_of_all_domains_or_of_one(tmp_path):
    domains = {"a": {"folder": "a"}, "b": {"folder": "b", "licence": "CC BY 4.0", "may_train": True}}
    found = load_suite(write(tmp_path, domains=domains, licence="research only", may_train=False)).domains
    assert [(one.licence, one.may_train) for one in found.values()] == [("research only", False), ("CC BY 4.0", True)]


def test_classes_have_words_and_outputs_of_imagenet(tmp_path):
    classes = {"dog": {"imagenet": ["n02085620", 152, 151]}, "traffic_light": {"name": "lights", "imagenet": 920}}
    suite = load_suite(write(tmp_path, classes=classes))
    assert [(one.words, one.imagenet) for one in suite.classes] == [("dog", (151, 152)), ("lights", (920,))]
    catalog = suite.catalog("subset")
    assert len(catalog.outputs) == 1000
    assert catalog["photo"].groups == ((151, 152), (920,))
    assert suite.catalog("probe")["photo"].groups == ((0,), (1,))
    assert suite.catalog().outputs == ("dog", "traffic_light")


def test_subset_needs_outputs_for_each_class(tmp_path):
    suite = load_suite(write(tmp_path, classes={"dog": {"imagenet": 151}, "cat": {}}))
    with pytest.raises(RibError, match=r"head=subset: expected outputs of ImageNet .* none for cat \(1 such"):
        suite.catalog("subset")


def test_classes_are_found_from_the_folders(tmp_path):
    file = make_photo_suite(tmp_path, ("photo", "sketch"), ["mug", "bear"], 1, lacks={"photo": ["mug"]})
    document = yaml.safe_load(file.read_text())
    del document["classes"]
    (tmp_path / "photo" / "empty").mkdir()
    (tmp_path / "sketch" / "Cups").mkdir()
    (tmp_path / "sketch" / "Cups" / "1.png").write_bytes(b"")
    document["domains"]["sketch"]["class_names"] = {"Cups": "mug"}
    file.write_text(yaml.safe_dump(document))
    assert [one.name for one in load_suite(file).classes] == ["bear", "mug"]


def test_a_file_that_has_changed_is_read_again(tmp_path):
    assert load_suite(write(tmp_path, title="One")) is load_suite(tmp_path / "photos.yaml")
    assert load_suite(write(tmp_path, title="Another")).title == "Another"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"domians": {}}, "domians: there is no such key; did you mean domains?"),
        ({"license": "x"}, "did you mean licence?"),
        ({"name": "mini"}, "name: mini is a name of rib's own; choose another, such as my_mini"),
        ({"name": "cells"}, "a name of rib's own"),
        ({"name": "Office-Home"}, "got 'Office-Home'; write office_home"),
        ({"name": True}, "expected a name, got True"),
        ({"domains": {}}, "domains: expected at least one domain"),
        ({"domains": ["photo"]}, "domains: expected names with a value each"),
        ({"domains": {"Real World": {"folder": "x"}}}, "got 'Real World'; write real_world"),
        ({"domains": {"none": "photo"}}, "domains.none: in commands none is no domain; choose another, such as my_"),
        ({"domains": {"a": {"foldr": "x"}}}, "domains.a.foldr: there is no such key; did you mean folder?"),
        (
            {"domains": {"a": {"title": "x"}}},
            "domains.a: expected one of folder, glob, manifest, shards, python, got none",
        ),
        ({"domains": {"a": {"folder": "a", "glob": "b"}}}, "got folder and glob"),
        ({"domains": {"a": {"folder": "a", "class_from": "stem"}}}, "domains.a.class_from: there is no such key"),
        ({"domains": {"a": {"glob": "*", "class_from": "("}}}, "regular expression, got '('"),
        ({"domains": {"a": {"glob": "*", "class_from": "(.*)"}}}, "with a group (?P<class>...), got '(.*)'"),
        ({"domains": {"a": {"python": "module"}}}, "expected module:function"),
        ({"domains": {"a": {"folder": "/data/a"}}}, "expected a path relative to the suite's root, got /data/a"),
        (
            {"domains": {"a": {"folder": "x"}, "b": {"folder": "./x"}}},
            "domains.b: expected images of its own, got those of a",
        ),
        ({"domains": {"a": {"folder": "a", "title": "b"}, "b": None}}, "expected a title of its own, got that of a"),
        ({"domains": {"a": {"folder": "a", "derived_from": "photo"}, "photos": None}}, "did you mean photos?"),
        (
            {"domains": {"a": {"folder": "a", "class_names": {"Hound": "dgo"}}}},
            "Hound: dgo is none of the suite's classes; did",
        ),
        ({"classes": ["dog", "cat", "dog"]}, "classes: expected each name once, got dog twice"),
        ({"classes": ["dog"]}, "expected at least two classes, got 1"),
        ({"classes": ["dog", False]}, "classes: expected a name, got False; put names like no"),
        ({"classes": ["dog", "a/b"]}, "expected names that a folder can have, got 'a/b'"),
        ({"classes": {"dog": {"imagenet": ["n99"]}, "cat": {}}}, "classes.dog.imagenet: expected WordNet ids"),
        ({"classes": {"dog": {"imagenet": ["n02085621"]}, "cat": {}}}, "got 'n02085621'; did you mean n0208562"),
        ({"classes": {"dog": {"imagenet": [1000]}, "cat": {}}}, "expected an output from 0 to 999, got 1000"),
        ({"classes": {"dog": {"imagenet": 5}, "cat": {"imagenet": 5}}}, "(output 5) belongs to dog already"),
        ({"classes": {"dog": {"wnid": "n1"}, "cat": {}}}, "classes.dog.wnid: there is no such key"),
        (
            {"templates": ["a photo"]},
            "templates: expected {} once for the class, as in 'a photo of a {}.', got 'a photo'",
        ),
        ({"templates": ["a {name} {}"]}, "expected {} once"),
        ({"head": "prob"}, "head: expected zero_shot, subset or probe, got 'prob'; did you mean probe?"),
        ({"sources": ["phot"]}, "sources: there is no domain phot; did you mean photo?"),
        ({"reference": "painting"}, "reference: there is no domain painting; did you mean paint?"),
        ({"reference": "photo", "sources": ["photo"]}, "sources: photo is the reference, which trains the probe alone"),
        ({"reported": ["photo"], "targets": ["photo"]}, "reported: photo is a target too"),
        ({"may_train": False}, "sources: expected a domain that may be trained on, got none"),
        ({"may_train": "no"}, "may_train: expected true or false, got 'no'"),
        ({"may_train": False, "sources": ["photo"]}, "sources: photo may not be trained on (may_train: false)"),
        ({"may_train": False, "reference": "photo"}, "reference: photo may not be trained on (may_train: false)"),
        ({"reported": ["photo", "sketch", "paint"], "sources": ["photo"]}, "targets: expected at least one domain"),
        ({"title": 3}, "title: expected a text, got 3"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, keys, said):
    file = write(tmp_path, **keys)
    with pytest.raises(RibError) as error:
        load_suite(file)
    assert said in str(error.value)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [", "line 1: expected YAML, got something else"),
        ("name: a\nname: b\n", "line 2: expected YAML, got something else (the key name twice)"),
        ("name: a\n? [b, c]\n: d\n", "line 2: expected YAML, got something else (a list or map as a key)"),
        ("domains:\n\tphoto: photo\n", "line 2: expected YAML, got a tab; indent with spaces"),
        ("name: 2020-13-45\n", "cannot be read as YAML (month must be in 1..12)"),
        ("- a\n", "expected keys with values"),
        ("", "expected keys with values"),
        ("\x00", "cannot be read as YAML"),
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path, text, said):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(RibError) as error:
        load_suite(file)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_told_by_the_nearest_one(tmp_path):
    write(tmp_path)
    with pytest.raises(RibError, match=r"there is no file .*/photo.yaml; did you mean photos.yaml\?"):
        load_suite(tmp_path / "photo.yaml")
    with pytest.raises(RibError, match=r"there is no file .*; python -m rib.data init FOLDER writes one"):
        load_suite(tmp_path / "nowhere" / "photo.yaml")


def test_two_domains_cannot_be_one_folder_by_a_link(tmp_path):
    (tmp_path / "photo").mkdir()
    (tmp_path / "sketch").symlink_to(tmp_path / "photo")
    with pytest.raises(RibError, match=r"domains.sketch: expected images of its own, got those of photo"):
        load_suite(write(tmp_path))


def test_reading_a_suite_does_not_wait_for_torch(tmp_path):
    code = f"""
import sys
from rib.data.suites.suite_file import load_suite
from rib.data import scan, worlds
from rib.data.suites import init
load_suite({str(write(tmp_path))!r}).catalog()
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_a_suite_is_known_by_its_name_once_it_is_loaded(tmp_path):
    file = write(tmp_path, name="just_here")
    assert worlds.kind_of(None, str(file)) == "just_here"
