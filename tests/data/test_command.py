"""``python -m rib.data`` as a user runs it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from PIL import Image

from rib.data.mini import catalog
from tests.data.trees import few, fill, photograph

pytestmark = pytest.mark.usefixtures("no_progress")


def run(tmp_path, *arguments):
    command = [sys.executable, "-m", "rib.data", f"paths.runs={tmp_path / 'runs'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_check_of_mini_finds_every_dataset_complete(tmp_path, cache):
    done = run(tmp_path, "action=check", "data.root=null", f"paths.cache={cache}")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for spec in catalog().specs.values():
        (row,) = (line for line in done.stdout.splitlines() if line.startswith(f"{spec.title}  "))
        assert re.split(" {2,}", row.rstrip()) == [
            spec.title,
            *[f"{spec.num_images:,}"] * 2,
            *[str(len(spec.groups))] * 2,
        ]
    assert "toy data (mini)" in done.stdout.splitlines()[0]


def test_check_of_a_broken_root_shows_the_table_and_fails(tmp_path):
    fill(tmp_path / "data/imagenet-r", few("imagenet_r").classes)
    done = run(tmp_path, "action=check", f"data.root={tmp_path / 'data'}")
    assert done.returncode == 1
    assert "expected 200 classes with images" in done.stdout.replace("\n", " ")
    assert "ImageNet-Sketch" in done.stdout
    assert done.stderr.strip() == "rib: 10 of 10 datasets are not complete; the table says what to do for each"


@pytest.mark.slow
def test_look_names_every_damaged_jpeg_and_fails(tmp_path):
    spec = few("imagenet_r")
    fill(tmp_path / "data/imagenet-r", spec.classes, write=photograph)
    sound = run(tmp_path, "action=look", f"data.root={tmp_path / 'data'}")
    assert (sound.returncode, sound.stdout) == (0, "none of 6 images is damaged\n"), sound.stderr
    damaged = sorted((tmp_path / "data/imagenet-r" / spec.classes[1]).iterdir())
    for file in damaged:
        content = file.read_bytes()
        file.write_bytes(content[:-200] + content[-2:])
    done = run(tmp_path, "action=look", f"data.root={tmp_path / 'data'}", "data.rescan=true")
    assert [line.partition(": ")[0] for line in done.stdout.splitlines()] == [str(file) for file in damaged]
    assert done.returncode == 1
    assert done.stderr == "rib: 2 of 6 images are damaged; replace them from the archive\n"


def test_sheet_draws_what_is_there(tmp_path):
    for name, folder in (("imagenet_r", "imagenet-r"), ("imagenet_val", "imagenet/val")):
        fill(tmp_path / "data" / folder, few(name).classes, write=photograph)
    done = run(tmp_path, "action=sheet", f"data.root={tmp_path / 'data'}", f"out={tmp_path / 'out/sheet.png'}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "out/sheet.png")
    with Image.open(tmp_path / "out/sheet.png") as image:
        assert image.format == "PNG"
        assert len(image.getcolors(2**20)) > 1000


@pytest.mark.slow
def test_what_is_wrong_is_one_sentence(tmp_path):
    (tmp_path / "data").mkdir()
    for arguments, said in (
        (("action=sheet", f"data.root={tmp_path / 'data'}"), "found none of them"),
        (("data.root=/nowhere/at/all",), "there is no folder /nowhere/at/all"),
        (("action=sheet", "data.root=null", "out=sheet"), "out: expected an image file name such as sheet.png"),
        (("action=draw", "data.root=null"), "expected one of check, look, sheet, init, got 'draw'"),
    ):
        done = run(tmp_path, *arguments)
        assert done.returncode == 1
        assert said in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
