"""``python -m rib.data`` on a suite: the table of its domains, images that two of them share, and init as a command."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from PIL import Image
from rich.console import Console

from rib.config import compose
from rib.config.command_schema import DataCommandConfig
from rib.data import __main__ as command
from rib.data import worlds
from rib.data.check import survey
from rib.data.scan import scan
from rib.data.sheet import contact_sheet
from rib.data.suites.duplicates import shared_images
from rib.data.suites.suite_file import load_suite
from rib.data.worlds import find_data
from rib.errors import RibError
from tests.support.suites import make_photo_suite

pytestmark = pytest.mark.usefixtures("no_progress")


@pytest.fixture
def suite(tmp_path):
    """Three domains of four classes, one of which lacks two."""
    lacks = {"sketch": ["mug", "camel"]}
    return make_photo_suite(
        tmp_path / "photos", ("photo", "sketch", "toy"), ["bear", "camel", "dog", "mug"], 2, lacks=lacks
    )


def config_of(tmp_path, suite, action="check", **data) -> DataCommandConfig:
    found = compose(f"paths.runs={tmp_path / 'runs'}", f"paths.cache={tmp_path / 'cache'}")
    return DataCommandConfig(action, replace(found.data, suite=str(suite), **data), found.paths, None, None, False)


def rows_of(statuses) -> list[list[str]]:
    return [list(row.cells) for row in command.status_table("", statuses).rows]


def test_check_counts_each_domain_and_says_what_it_lacks(tmp_path, suite, capsys):
    loaded = load_suite(suite)
    statuses = survey(loaded.catalog(), loaded.root)
    assert rows_of(statuses) == [
        ["Photo", "8", "-", "4", "4", "", ""],
        ["Sketch", "4", "-", "2", "4", "camel and mug", ""],
        ["Toy", "8", "-", "4", "4", "", ""],
    ]
    assert capsys.readouterr().err == ""  # the table says it
    command.check(config_of(tmp_path, suite))
    assert capsys.readouterr().out.startswith(f"Domains under {tmp_path / 'photos'} (Drawn photographs)\n")


def test_check_says_what_is_wrong_and_goes_on(tmp_path, suite):
    (suite.parent / "photo" / "mug").rename(suite.parent / "photo" / "mugs")
    shutil.rmtree(suite.parent / "toy")
    loaded = load_suite(suite)
    photo, sketch, toy = survey(loaded.catalog(), loaded.root)
    assert photo.fault is not None
    assert "did you mean mug?" in photo.fault
    assert (photo.num_images, photo.num_classes, photo.absent) == (6, 3, ["mug"])
    assert (sketch.fault, toy.num_images) == (None, 0)
    with pytest.raises(RibError, match="2 of 3 datasets are not complete"):
        command.check(config_of(tmp_path, suite))


def test_images_that_two_domains_share_are_told(suite, monkeypatch):
    shutil.copy(suite.parent / "photo" / "dog" / "000.jpg", suite.parent / "toy" / "mug" / "copied.jpg")
    loaded = load_suite(suite)
    trees = [scan(spec, loaded.root) for spec in loaded.catalog().specs.values()]
    (said,) = shared_images(trees)
    assert said.startswith("Photo and Toy share 1 image (")
    assert "photo/dog/000.jpg is" in said
    assert shared_images(trees[:2]) == []
    monkeypatch.setattr("rib.data.suites.duplicates.MOST", 1000)
    assert "would have to be read" in shared_images(trees)[0]


def test_the_sheet_has_a_row_for_each_domain_and_a_name_above_each_class(suite):
    loaded = load_suite(suite)
    catalog = loaded.catalog()
    trees = {name: scan(spec, loaded.root) for name, spec in catalog.specs.items()}
    sheet = contact_sheet(trees, catalog)
    assert sheet.size == (132 + 4 * 76, 20 + 3 * 76)
    blank = Image.new("RGB", (72, 72), "white")
    columns = sorted(range(4), key=lambda i: i in (1, 3))  # the classes that all domains have come first
    for column, label in enumerate(columns):
        left, top = 132 + column * 76, 20 + 76
        found = sheet.crop((left, top, left + 72, top + 72))
        assert (found.tobytes() == blank.tobytes()) == (label in (1, 3))
    assert sheet.crop((132, 0, 436, 20)).getextrema()[0][0] < 100  # something is written there


def test_the_root_is_the_files_unless_another_is_given(tmp_path, suite):
    catalog, root = find_data(config_of(tmp_path, suite))
    assert (catalog.kind, root) == ("photos", suite.parent)
    assert worlds.catalog_of("photos") is catalog
    assert worlds.title_of("toy", "photos") == "Toy"
    moved = tmp_path / "moved"
    shutil.copytree(suite.parent, moved)
    assert find_data(config_of(tmp_path, suite, root=str(moved)))[1] == moved
    shutil.rmtree(suite.parent / "photo")
    suite.write_text(suite.read_text() + "root: elsewhere\n")
    with pytest.raises(RibError, match=r"there is no folder .*/elsewhere; expected the folder that holds the suite's"):
        find_data(config_of(tmp_path, suite))


def test_packed_images_go_to_the_cache_of_the_config(tmp_path, suite):
    catalog, _ = find_data(config_of(tmp_path, suite))
    domain = catalog["photo"].domain
    assert domain is not None
    assert domain.unpack_to == tmp_path / "cache" / "suites" / "photos"


def test_init_prints_what_it_found_and_the_next_commands(tmp_path, suite):
    suite.unlink()
    program = [sys.executable, "-m", "rib.data", "action=init", f"folder={suite.parent}"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == f"{suite}: 3 domains, 4 classes and 20 images (folders DOMAIN/CLASS)"
    assert "sketch  sketch       4        2  camel and mug" in lines
    assert f"  python -m rib.data suite={suite}   # check it; action=sheet draws it" in lines
    assert load_suite(suite).sources == ("photo", "sketch", "toy")


def test_init_needs_a_folder(tmp_path, suite):
    with pytest.raises(RibError, match=r"expected a folder of images, as in python -m rib.data init FOLDER, got none"):
        command.init(config_of(tmp_path, suite, "init"))


def test_the_table_of_init_says_what_was_ignored(tmp_path, suite):
    from rib.data.suites.inspect_folder import inspect_folder

    (suite.parent / "notes.txt").write_text("x")
    console = Console(width=120, record=True)
    console.print(command.found_table(inspect_folder(suite.parent), suite))
    assert "ignored: 1 other file (notes.txt)" in console.export_text()
