"""Damaged JPEGs that can still be decoded: named, counted or refused."""

from __future__ import annotations

import io
import random
from dataclasses import replace

import pytest
import torch

from rib.data import damage
from rib.data.damage import find_damage, report_damage
from rib.data.transform import Transform, read_image
from rib.errors import RibError
from tests.data.trees import picture, pictures

pytestmark = pytest.mark.usefixtures("no_progress")

HALF = (0.5, 0.5, 0.5)
T = Transform(32, 1.0, "bicubic", HALF, HALF)


def jpeg(number: int = 0, **options) -> bytes:
    stream = io.BytesIO()
    picture(number, 160, 200).save(stream, "JPEG", quality=90, **options)
    return stream.getvalue()


def scan_of(content: bytes) -> range:
    """Places of the bytes inside the last scan."""
    return range(content.rfind(b"\xff\xda") + 64, len(content) - 64)


def zeroed(content: bytes, count: int = 2000) -> bytes:
    middle = scan_of(content)[len(scan_of(content)) // 3]
    return content[:middle] + bytes(count) + content[middle + count :]


def cut(content: bytes) -> bytes:
    middle = scan_of(content)[len(scan_of(content)) // 2]
    return content[:middle] + content[middle + 1000 :]


def ended(content: bytes) -> bytes:
    return content[: len(content) // 2] + content[-2:]


def stuffed(content: bytes) -> bytes:
    return content[:-2] + bytes(10) + content[-2:]


def restarted(content: bytes) -> bytes:
    """One stretch between restart markers goes, and the marker that ends it."""
    first, last = content.index(b"\xff\xd2"), content.index(b"\xff\xd4")
    return content[:first] + content[last:]


DAMAGES = {
    "zeros": (zeroed, {}, "extraneous bytes before marker 0xd9"),
    "cut": (cut, {}, "premature end of data segment"),
    "ended early": (ended, {}, "premature end of data segment"),
    "stuffed": (stuffed, {}, "extraneous bytes before marker 0xd9"),
    "progressive, ended early": (ended, {"progressive": True}, "premature end of data segment"),
    "a stretch between restart markers": (restarted, {"restart_marker_rows": 1}, "instead of RST"),
}


@pytest.fixture
def tree(tmp_path):
    tree = pictures(tmp_path / "images", 8)
    for number, path in enumerate(tree.paths):
        (tree.folder / path).write_bytes(jpeg(number))
    return tree


@pytest.fixture(autouse=True)
def anew():
    damage._say_once.cache_clear()


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_is_read_with_a_gap_is_named_with_libjpegs_reason(tree, kind):
    change, options, why = DAMAGES[kind]
    file = tree.folder / tree.paths[5]
    file.write_bytes(change(jpeg(5, **options)))
    assert read_image(file, T).shape == (3, 32, 32), "nothing tells whoever reads it"
    found = find_damage([tree])
    assert list(found) == [file]
    assert why in found[file]


@pytest.mark.parametrize("backend", ["torchvision", "pil"])
def test_what_libjpeg_makes_up_is_no_picture_of_the_file(tree, backend):
    file = tree.folder / tree.paths[0]
    whole = read_image(file, T, backend)
    file.write_bytes(cut(file.read_bytes()))
    assert not torch.equal(read_image(file, T, backend), whole)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 0}])
def test_no_fault_is_found_with_sound_files_of_any_kind(tree, options):
    for number, path in enumerate(tree.paths):
        (tree.folder / path).write_bytes(jpeg(number, **options))
    picture(1).convert("CMYK").save(tree.folder / tree.paths[1], "JPEG")
    picture(2).convert("L").save(tree.folder / tree.paths[2], "JPEG")
    picture(3).save(tree.folder / tree.paths[3], "PNG")
    picture(4).save(tree.folder / tree.paths[4], "MPO", save_all=True, append_images=[picture(5)])
    (tree.folder / tree.paths[5]).write_bytes(jpeg(5) + bytes(100))  # what follows the end is nobody's
    assert find_damage([tree]) == {}


def test_what_cannot_be_read_at_all_is_named_too(tree):
    file = tree.folder / tree.paths[2]
    file.write_bytes(jpeg()[:3000])
    assert find_damage([tree]) == {file: "unreadable: it is truncated"}


def test_empty_files_others_and_half_a_png_are_named_before_a_run_reads_them(tree, capsys):
    whole = io.BytesIO()
    picture(3).save(whole, "PNG")
    contents = (b"", b"a page of text", whole.getvalue()[:-200])
    files = [tree.folder / path for path in tree.paths[:3]]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    found = find_damage([tree])
    assert [*found] == files
    assert found[files[0]] == "unreadable: it is empty" and found[files[1]] == "unreadable: unknown image format"
    report_damage([tree], None)
    assert "(a run stops where it reads an unreadable one)" in capsys.readouterr().err


def test_noise_in_a_file_never_passes_unseen(tree):
    """A marker among the noise ends the scan: torchvision gives up, PIL may go on."""
    dice = random.Random(0)
    for number, path in enumerate(tree.paths):
        content = jpeg(number)
        middle = dice.choice(scan_of(content)[:-700])
        (tree.folder / path).write_bytes(content[:middle] + dice.randbytes(600) + content[middle + 600 :])
    assert sorted(find_damage([tree])) == sorted(tree.folder / path for path in tree.paths)


def test_the_sentence_names_some_and_counts_all_once(tree, capsys):
    for path in tree.paths[:5]:
        file = tree.folder / path
        file.write_bytes(cut(file.read_bytes()))
    for _ in range(2):
        report_damage([tree], None)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"5 damaged images: {tree.folder / tree.paths[0]} (premature end of data segment), ")
    assert all(str(tree.folder / path) in line for path in tree.paths[:3])
    assert " and 2 more; replace from the archive" in line


def test_refuse_is_an_error_and_ignore_looks_at_nothing(tree, capsys, monkeypatch):
    file = tree.folder / tree.paths[0]
    file.write_bytes(cut(file.read_bytes()))
    with pytest.raises(
        RibError, match=r"^data\.damaged=refuse: 1 damaged image: .+; replace from the archive, or continue"
    ):
        report_damage([tree], None, "refuse")
    monkeypatch.setattr(damage, "_warnings_of", None)
    report_damage([tree], None, "ignore")
    assert capsys.readouterr().err == ""


def test_an_image_is_looked_at_once_whatever_the_parts_and_commands(tree, tmp_path, monkeypatch):
    file = tree.folder / tree.paths[0]
    file.write_bytes(cut(file.read_bytes()))
    looked = []
    really = damage._warnings_of
    monkeypatch.setattr(damage, "_warnings_of", lambda t, paths: looked.extend(paths) or really(t, paths))
    part = tree.limit(4)
    assert find_damage([part, tree], tmp_path / "records") == {file: "premature end of data segment"}
    assert sorted(looked) == sorted(tree.paths)
    assert find_damage([tree, part], tmp_path / "records") == {file: "premature end of data segment"}
    assert find_damage([part], tmp_path / "records").keys() <= {file}
    assert len(looked) == len(tree), "known from the record"
    file.write_bytes(jpeg())
    assert find_damage([replace(tree, drawn="of other bytes")], tmp_path / "records") == {}
    assert find_damage([tree], tmp_path / "records", again=True) == {}


@pytest.mark.parametrize("content", ["", "[]", "{", "\0"])
def test_a_damaged_record_is_made_again(tree, tmp_path, content):
    find_damage([tree], tmp_path)
    (record,) = tmp_path.glob("damage-*.json")
    record.write_text(content)
    assert find_damage([tree], tmp_path) == {}
    assert record.read_text() == "{}"


def test_large_sets_are_looked_at_only_when_asked(tree, monkeypatch):
    monkeypatch.setattr(damage, "LARGE", 7)
    file = tree.folder / tree.paths[0]
    file.write_bytes(cut(file.read_bytes()))
    monkeypatch.setattr(damage, "_say_once", lambda sentence: pytest.fail(sentence))
    report_damage([tree], None)
    with pytest.raises(RibError, match="1 damaged image"):
        report_damage([tree], None, "refuse")


def test_several_processes_look_at_a_set_together_and_rank_one_at_nothing(tree, monkeypatch, capsys):
    monkeypatch.setattr(damage, "WORTH_A_PROCESS", 2)
    monkeypatch.setattr(damage, "BATCH", 1)
    monkeypatch.setattr(damage, "cores", lambda: 2)
    for path in tree.paths[::3]:
        (tree.folder / path).write_bytes(cut(jpeg()))
    assert list(find_damage([tree])) == [tree.folder / path for path in tree.paths[::3]]
    monkeypatch.setenv("RANK", "1")
    report_damage([tree], None, "refuse")
    assert capsys.readouterr().err == ""


def test_without_a_decoder_that_speaks_refuse_says_so(tree, monkeypatch):
    monkeypatch.setattr(damage, "_can_check", lambda: False)
    report_damage([tree], None)
    with pytest.raises(RibError, match="expected a torchvision with a JPEG decoder"):
        report_damage([tree], None, "refuse")
