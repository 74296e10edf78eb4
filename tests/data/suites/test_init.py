"""``python -m rib.data init FOLDER``: what it takes for domains and classes, what it ignores, what it writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from rib.data.check import survey
from rib.data.suites.found import Found
from rib.data.suites.imagenet_names import imagenet_classes
from rib.data.suites.init import init_suite, next_commands
from rib.data.suites.inspect_folder import inspect_folder
from rib.data.suites.spellings import same_classes
from rib.data.suites.suite_file import load_suite
from rib.errors import RibError
from tests.data.suites.test_domains import put, write_rows
from tests.data.suites.test_packed import pairs, shard

pytestmark = pytest.mark.usefixtures("no_progress")


def places(found: Found) -> dict[str, dict[str, str]]:
    return {name: dict(one.place) for name, one in found.domains.items()}


def checked(found: Found, file: Path, folder: Path) -> dict[str, tuple[int, int]]:
    """Images and classes of each domain as a scan by the written file finds them: those that init has counted."""
    suite = load_suite(file)
    statuses = survey(suite.catalog(None, folder / "cache"), suite.root)
    assert [status.fault for status in statuses] == [None] * len(found.domains)
    counted = {name: (sum(one.counts.values()), len(one.counts)) for name, one in found.domains.items()}
    assert {status.spec.name: (status.num_images, status.num_classes) for status in statuses} == counted
    return counted


def each(pattern: str, *parts: tuple[str, ...]) -> list[str]:
    """Paths with every combination of the parts."""
    paths = [pattern]
    for i, names in enumerate(parts):
        paths = [path.replace(f"{{{i}}}", name) for path in paths for name in names]
    return paths


@pytest.mark.parametrize(
    ("files", "expected", "layout"),
    [
        (
            each("{0}/{1}/1.jpg", ("Photo", "Real World"), ("dog", "cat", "no")),
            {"photo": {"folder": "Photo"}, "real_world": {"folder": "Real World"}},
            "folders DOMAIN/CLASS",
        ),
        (
            each("pacs/{0}/{1}/1.jpg", ("photo", "sketch"), ("dog", "cat")),
            {"photo": {"folder": "photo"}, "sketch": {"folder": "sketch"}},
            "folders DOMAIN/CLASS",
        ),
        (
            each("{0}/images/{1}/1.jpg", ("amazon", "dslr"), ("dog", "cat")),
            {"amazon": {"folder": "amazon/images"}, "dslr": {"folder": "dslr/images"}},
            "folders DOMAIN/CLASS",
        ),
        (
            each("{0}/{1}/{2}/{1}.jpg", ("photo", "sketch"), ("train", "test"), ("dog", "cat")),
            {name: {"glob": f"{name}/**/*", "class_from": "parent"} for name in ("photo", "sketch")},
            "folders DOMAIN/CLASS",
        ),
        (
            each("{0}/{1}/{1}_{2}/1.jpg", ("photo", "sketch"), ("dog", "cat"), ("a", "b")),
            {
                name: {"glob": f"{name}/*/**/*", "class_from": f"^{name}/(?P<class>[^/]+)/"}
                for name in ("photo", "sketch")
            },
            "folders DOMAIN/CLASS",
        ),
        (
            each("{0}/{1}/{2}/1.jpg", ("train", "val"), ("photo", "sketch"), ("dog", "cat")),
            {name: {"glob": f"*/{name}/*/*", "class_from": "parent"} for name in ("photo", "sketch")},
            "folders DOMAIN/CLASS in train, val",
        ),
        (
            each("{0}/{1}_{2}.jpg", ("photo", "sketch"), ("dog", "cat"), ("1", "2")),
            {name: {"glob": f"{name}/*", "class_from": "stem"} for name in ("photo", "sketch")},
            "folders DOMAIN with the class in the files' names",
        ),
        (
            each("{0}/full/{1}/1.jpg", ("Caltech", "LabelMe"), ("dog", "cat")),
            {"caltech": {"folder": "Caltech/full"}, "labelme": {"folder": "LabelMe/full"}},
            "folders DOMAIN/CLASS",
        ),
        (each("{0}/{0}_1.jpg", ("dog", "cat")), {"data": {"folder": "."}}, "folders CLASS of one domain"),
        (
            each("{0}/{1}/1.jpg", ("train", "test"), ("dog", "cat")),
            {"data": {"glob": "*/*/*", "class_from": "parent"}},
            "folders CLASS of one domain in test, train",
        ),
        (
            each("{0}_{1}.jpg", ("dog", "cat"), ("1", "2")),
            {"data": {"glob": "*", "class_from": "stem"}},
            "files of one domain with the class in their names",
        ),
    ],
)
def test_a_layout_is_recognised_and_the_file_finds_the_same_images(tmp_path, files, expected, layout):
    folder = tmp_path / "data"
    put(folder, *files)
    found, file = init_suite(folder)
    assert places(found) == expected
    assert found.layout == layout
    assert sum(images for images, _ in checked(found, file, tmp_path).values()) == len(files)
    assert any("there is one domain" in doubt for doubt in found.doubts) == (len(expected) == 1)
    assert ("rib.benchmark" in next_commands(found, file)) == (len(expected) > 1)


def test_a_manifest_is_recognised(tmp_path):
    put(tmp_path / "data", "images/1.jpg", "images/2.jpg", "images/3.jpg")
    rows = [("images/1.jpg", "dog", "photo"), ("images/2.jpg", "cat", "photo"), ("images/3.jpg", "dog", "Pencil art")]
    write_rows(tmp_path / "data" / "web.csv", rows)
    (tmp_path / "data" / "other.json").write_text("{}")
    found, file = init_suite(tmp_path / "data")
    assert places(found) == {
        "photo": {"manifest": "web.csv", "domain": "photo"},
        "pencil_art": {"manifest": "web.csv", "domain": "Pencil art"},
    }
    assert checked(found, file, tmp_path) == {"photo": (2, 2), "pencil_art": (1, 1)}


def test_tar_shards_are_recognised(tmp_path):
    shard(tmp_path / "data" / "photo" / "a-0.tar", pairs(0, 6))
    shard(tmp_path / "data" / "sketch-000.tar", [("1.jpg", b"x"), ("1.cls", b"dog")])
    shard(tmp_path / "data" / "sketch-001.tar", [("1.jpg", b"x"), ("1.cls", b"cat")])
    found = inspect_folder(tmp_path / "data")
    assert places(found) == {"sketch": {"shards": "sketch*.tar*"}, "photo": {"shards": "photo/*.tar*"}}
    assert found.domains["sketch"].counts == {"cat": 1, "dog": 1}


def test_what_was_ignored_and_what_is_lacking_is_said_in_the_file(tmp_path):
    folder = tmp_path / "My Pets"
    put(folder, *each("{0}/{1}/1.jpg", ("photo", "sketch"), ("dog", "cat", "no")), "photo/mug/1.jpg")
    put(
        folder, "readme.txt", "loose.jpg", "extra/1.jpg", "photo/1.jpg", "photo/dog/Thumbs.db", "sketch/dog/.hidden.jpg"
    )
    (folder / "empty").mkdir()
    found, file = init_suite(folder)
    assert file == folder / "my_pets.yaml"
    text = file.read_text()
    for said in (
        "# Found 2 domains, 4 classes and 7 images (folders DOMAIN/CLASS).",
        "# Ignored: 1 other file (readme.txt).",
        "# Ignored: empty/ (holds no image).",
        "# Ignored: extra/ (1 image without class folders).",
        "# Ignored: 1 image directly in My Pets/ (in no folder of a class).",
        "sketch:   # 3 classes, 3 images; no image of mug",
        "title: My Pets",
        '  "no": {name: "no"}',
    ):
        assert said in text
    assert [one.name for one in load_suite(file).classes] == found.classes == ["cat", "dog", "mug", "no"]


def test_empty_folders_are_told_wherever_they_are(tmp_path):
    put(tmp_path, "readme.txt", *each("pacs/{0}/{1}/1.jpg", ("photo", "sketch"), ("dog", "cat")))
    for empty in ("old", "pacs/new", "pacs/photo/mug"):
        (tmp_path / empty).mkdir()
    told = [
        "old/ (holds no image)",
        "1 other file (readme.txt)",
        "new/ (holds no image)",
        "photo/mug/ (holds no image)",
    ]
    assert inspect_folder(tmp_path).ignored == told


def test_a_file_that_exists_is_kept_unless_told(tmp_path):
    put(tmp_path / "data", *each("{0}/{1}/1.jpg", ("photo", "sketch"), ("dog", "cat")))
    _, file = init_suite(tmp_path / "data")
    file.write_text("mine")
    with pytest.raises(RibError, match=r"data.yaml exists and may have changes of yours; .* force=true"):
        init_suite(tmp_path / "data")
    assert file.read_text() == "mine"
    _, other = init_suite(tmp_path / "data", tmp_path / "else" / "pets.yaml")
    assert load_suite(other).root == tmp_path / "data"
    init_suite(tmp_path / "data", force=True)
    assert load_suite(file).name == "data"
    with pytest.raises(RibError, match=r"out: expected a file such as .*pets.yaml, got .*pets.csv"):
        init_suite(tmp_path / "data", tmp_path / "pets.csv")


def test_a_folder_of_all_images_is_taken_in_place_of_its_parts(tmp_path):
    put(tmp_path, *each("{0}/{1}/{2}/1.jpg", ("Caltech", "LabelMe"), ("full", "train", "test"), ("dog", "cat")))
    found = inspect_folder(tmp_path)
    assert places(found) == {"caltech": {"folder": "Caltech/full"}, "labelme": {"folder": "LabelMe/full"}}
    assert "Caltech/train/ (parts of Caltech/full/)" in found.ignored


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(
        RibError, match=r"expected images in folders DOMAIN/CLASS, .* found none \(a/ \(holds no image\)\)"
    ):
        inspect_folder(tmp_path)
    with pytest.raises(RibError, match=r"expected a folder of images, found none at .*/b"):
        inspect_folder(tmp_path / "b")


def test_folders_that_share_no_class_are_doubted(tmp_path):
    put(tmp_path, *each("animals/{0}/1.jpg", ("dog", "cat")), *each("vehicles/{0}/1.jpg", ("car", "bus")))
    assert any("no class is in two domains" in doubt for doubt in inspect_folder(tmp_path).doubts)


def test_names_that_differ_by_spelling_alone_are_proposed_as_the_same(tmp_path):
    names = {"a": ["alarm_clock", "dog"], "b": ["alarm_clock", "dog"], "c": ["Alarm-Clocks", "dog", "glass", "glasses"]}
    assert same_classes(names) == {"c": {"Alarm-Clocks": "alarm_clock"}}
    put(tmp_path, *(f"{domain}/{name}/1.jpg" for domain, own in names.items() for name in own))
    _, file = init_suite(tmp_path)
    text = file.read_text()
    assert "# class_names: {Alarm-Clocks: alarm_clock}" in text
    assert "Alarm-Clocks: {name: Alarm-Clocks}   # the same as alarm_clock?" in text
    taken = text.replace("# class_names: {", "class_names: {").replace("  Alarm-Clocks: {name: Alarm-Clocks}", "")
    file.write_text(taken)
    assert [one.name for one in load_suite(file).classes] == ["alarm_clock", "dog", "glass", "glasses"]


def test_classes_of_imagenet_get_their_outputs(tmp_path):
    assert imagenet_classes(["tabby_cat", "Great white shark"]) == {
        "tabby_cat": "n02123045",
        "Great white shark": "n01484850",
    }
    assert imagenet_classes(["n01440764", "tench"]) is None  # the same class twice
    assert imagenet_classes(["crane"]) is None  # a bird, and a machine
    assert imagenet_classes(["tench", "mug of mine"]) is None
    put(tmp_path, *each("{0}/{1}/1.jpg", ("photo", "sketch"), ("n01440764", "goldfish")))
    _, file = init_suite(tmp_path)
    assert "goldfish: {name: goldfish, imagenet: [n01443537]}" in file.read_text()
    assert [one.imagenet for one in load_suite(file).classes] == [(1,), (0,)]


def test_what_imagenet_calls_a_synset_is_no_word_for_a_sentence(tmp_path):
    put(tmp_path, *each("{0}/{1}/1.jpg", ("photo", "sketch"), ("n01440764", "n01443537")))
    _, file = init_suite(tmp_path)
    assert [one.words for one in load_suite(file).classes] == ["tench", "goldfish"]


def test_a_folder_called_none_is_a_domain_of_another_name(tmp_path):
    put(tmp_path, *each("{0}/{1}/1.jpg", ("None", "photo"), ("dog", "cat")))
    assert places(inspect_folder(tmp_path)) == {"my_none": {"folder": "None"}, "photo": {"folder": "photo"}}
    assert init_suite(tmp_path)[1].is_file()


@pytest.mark.parametrize(("name", "expected"), [("mini", "my_mini"), ("Über 9", "uber_9"), ("---", "suite")])
def test_a_suite_is_named_after_its_folder(tmp_path, name, expected):
    put(tmp_path / name, *each("{0}/{1}/1.jpg", ("photo", "sketch"), ("dog", "cat")))
    assert load_suite(init_suite(tmp_path / name)[1]).name == expected
