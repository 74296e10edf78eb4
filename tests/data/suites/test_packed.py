"""Domains whose images are no files: tar shards and Python entry points are unpacked once, whole or not at all."""

from __future__ import annotations

import errno
import io
import subprocess
import sys
import tarfile
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from rib.data.scan import scan
from rib.data.suites import entry_point as entry_points
from rib.data.suites.suite_file import load_suite
from rib.data.tree import ImageTree
from rib.errors import RibError
from tests.support.suites import photo

pytestmark = pytest.mark.usefixtures("no_progress")

CLASSES = ("dog", "cat", "mug")


def images_of(root: Path, domain: dict[str, object], **options) -> ImageTree:
    file = root / "suite.yaml"
    file.write_text(yaml.safe_dump({"name": "pets", "classes": list(CLASSES), "domains": {"one": domain}}))
    return scanned(file, **options)


def scanned(file: Path, **options) -> ImageTree:
    """Return the images of the domain of a suite's file."""
    suite = load_suite(file)
    return scan(suite.catalog(None, file.parent / "cache")["one"], suite.root, **options)


def jpeg(number: int) -> bytes:
    buffer = io.BytesIO()
    photo(number % 3, 0, number).save(buffer, "JPEG")
    return buffer.getvalue()


def shard(file: Path, members: list[tuple[str, bytes]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w:gz" if file.suffix == ".gz" else "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def pairs(first: int, count: int) -> list[tuple[str, bytes]]:
    """Images with their classes, in turn by name and by number, and files that are neither."""
    found = []
    for i in range(first, first + count):
        label = CLASSES[i % 3] if i % 2 else str(i % 3)
        found += [(f"{i:03}.json", b"{}"), (f"{i:03}.jpg", jpeg(i)), (f"{i:03}.cls", f"{label}\n".encode())]
    return found


def unpacked(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "cache/suites/pets").glob("*one-*"))


def test_shards_are_unpacked_once(tmp_path, capsys, monkeypatch):
    shard(tmp_path / "tars/a-0.tar", pairs(0, 6))
    shard(tmp_path / "tars/a-1.tar.gz", pairs(0, 3))  # keys that begin again
    tree = images_of(tmp_path, {"shards": "tars/*"})
    assert len(tree) == 9
    assert np.bincount(tree.labels).tolist() == [3, 3, 3]
    assert {(tree.folder / path).read_bytes() for path in tree.paths} == {jpeg(i) for i in range(6)}
    assert "unpacking one (once, 2 shards, " in capsys.readouterr().err
    monkeypatch.setattr("rib.data.suites.unpack._publish", None)
    again = images_of(tmp_path, {"shards": "tars/*"})
    assert (again.folder, again.digest) == (tree.folder, tree.digest)
    assert capsys.readouterr().err == ""


def test_shards_of_other_content_are_unpacked_anew(tmp_path):
    shard(tmp_path / "a-000.tar", pairs(0, 3))
    first = images_of(tmp_path, {"shards": "a-{000..000}.tar"})
    time.sleep(0.02)
    shard(tmp_path / "a-000.tar", pairs(3, 3))
    second = images_of(tmp_path, {"shards": "a-{000..000}.tar"})
    assert first.folder != second.folder
    assert first.digest != second.digest
    with pytest.raises(RibError, match=r"expected the shards a-\{000..001\}.tar .* found no a-001.tar"):
        images_of(tmp_path, {"shards": "a-{000..001}.tar"})


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([("1.jpg", b"x")], "1 has no class (.cls)"),
        ([("1.cls", b"0"), ("2.jpg", b"x"), ("2.cls", b"0")], "1 has no image"),
        ([("1.jpg", b"x"), ("1.png", b"x"), ("1.cls", b"0")], "expected one image for each key, got two for 1"),
        ([("1.jpg", b"x"), ("1.cls", b"a/b")], "expected a class name that a folder can have, got 'a/b'"),
        ([("1.jpg", b"x"), ("1.cls", b"0"), ("2.jpg", b"x"), ("2.cls", b"0"), ("1.jpg", b"x"), ("1.cls", b"0")],
         "expected each image once, got 0/a-1.jpg twice"),
        ([("1.jpg", b"x"), ("1.cls", b"wolf")], "wolf"),
        ([("1.txt", b"x")], "expected images, found none of a.tar"),
    ],
)  # fmt: skip
def test_a_shard_that_is_not_right_is_one_sentence_and_leaves_nothing_behind(tmp_path, members, said):
    shard(tmp_path / "a.tar", members)
    with pytest.raises(RibError) as error:
        images_of(tmp_path, {"shards": "a.tar"})
    assert said in str(error.value)
    assert [name for name in unpacked(tmp_path) if name.startswith(".")] == []


def test_a_damaged_shard_is_named(tmp_path):
    shard(tmp_path / "a.tar", pairs(0, 6))
    content = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(content[: len(content) // 2])
    with pytest.raises(RibError, match=r"a.tar cannot be read as a tar file"):
        images_of(tmp_path, {"shards": "a.tar"})
    assert unpacked(tmp_path) == []


def test_what_is_no_shard_and_a_damaged_compressed_one_are_one_sentence(tmp_path):
    shard(tmp_path / "a.tar.gz", pairs(0, 60))
    content = bytearray((tmp_path / "a.tar.gz").read_bytes())
    content[-8:-4] = b"\0\0\0\0"  # the check sum of what is packed
    (tmp_path / "a.tar.gz").write_bytes(bytes(content))
    (tmp_path / "b.tar").write_bytes(b"")
    for name, why in (("a.tar.gz", "CRC check failed.*"), ("b.tar", "it is no tar file")):
        with pytest.raises(
            RibError, match=rf"one: [^\n]*/{name} cannot be read as a tar file \({why}\); write or fetch"
        ):
            images_of(tmp_path, {"shards": name})


def test_keys_that_are_too_long_for_a_file_are_shortened(tmp_path):
    keys = ["ü" * 200 + number for number in "12"]
    shard(
        tmp_path / "a.tar", [(f"{key}.{end}", body) for key in keys for end, body in (("jpg", jpeg(1)), ("cls", b"0"))]
    )
    assert len(images_of(tmp_path, {"shards": "a.tar"})) == 2


def test_a_full_disk_is_one_sentence_and_leaves_nothing_behind(tmp_path, monkeypatch):
    shard(tmp_path / "a.tar", pairs(0, 6))
    written = []

    def write(folder: Path, image: object, title: str) -> None:
        written.append(image)
        if len(written) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("rib.data.suites.unpack._write", write)
    with pytest.raises(RibError, match=r"cannot unpack one \(1 shard, .*No space left on device; make room there, or"):
        images_of(tmp_path, {"shards": "a.tar"})
    assert unpacked(tmp_path) == []


def test_a_killed_attempt_leaves_nothing_that_looks_finished(tmp_path):
    shard(tmp_path / "a.tar", pairs(0, 6))
    program = """
        import os, sys
        from pathlib import Path
        from tests.data.suites import test_packed
        from rib.data.suites import unpack
        write, count = unpack._write, []
        def killed(*arguments):
            write(*arguments)
            count.append(1)
            if len(count) == 4:
                os._exit(9)
        unpack._write = killed
        test_packed.images_of(Path(sys.argv[1]), {"shards": "a.tar"})
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(tmp_path)], timeout=60, check=False)
    assert done.returncode == 9
    (partial,) = unpacked(tmp_path)
    assert partial.startswith(".one-")
    assert len(images_of(tmp_path, {"shards": "a.tar"})) == 6
    (finished,) = unpacked(tmp_path)
    assert finished.startswith("one-")


@pytest.mark.slow
def test_one_of_two_processes_unpacks_while_the_other_waits(tmp_path):
    shard(tmp_path / "a.tar", pairs(0, 60))
    program = """
        import sys, time
        from pathlib import Path
        from tests.data.suites import test_packed
        from rib.data.suites import unpack
        write = unpack._write
        def slowly(*arguments):
            time.sleep(0.01)
            write(*arguments)
        unpack._write = slowly
        print(len(test_packed.scanned(Path(sys.argv[1]))))
    """
    file = tmp_path / "suite.yaml"
    file.write_text(yaml.safe_dump({"name": "pets", "classes": list(CLASSES), "domains": {"one": {"shards": "a.tar"}}}))
    command = [sys.executable, "-c", textwrap.dedent(program), str(file)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ended = [process.communicate(timeout=60) for process in running]
    assert [out for out, _ in ended] == ["60\n", "60\n"]
    assert sum(error.count("unpacking one") for _, error in ended) == 1
    assert len(unpacked(tmp_path)) == 1


def test_shards_of_one_name_in_two_folders_do_not_mix(tmp_path):
    shard(tmp_path / "x" / "a.tar", pairs(0, 3))
    shard(tmp_path / "y" / "a.tar", pairs(3, 3))
    assert len(images_of(tmp_path, {"shards": "*/a.tar"})) == 6


def test_images_that_were_removed_from_the_cache_are_missed(tmp_path):
    shard(tmp_path / "a.tar", pairs(0, 6))
    tree = images_of(tmp_path, {"shards": "a.tar"})
    (tree.folder / tree.paths[0]).unlink()
    with pytest.raises(RibError, match=r"expected 6 unpacked images in .*, found 5; delete that folder"):
        images_of(tmp_path, {"shards": "a.tar"})


MODULE = """
    import io
    import numpy as np
    from PIL import Image

    class Photos:
        version = "1"
        ids = ["a", "b/b", 3, "d"]
        labels = ["dog", "cat", np.int64(2), "0"]

        def image(self, i):
            pixels = np.full((8, 10, 3), 10 * i, dtype=np.uint8)
            if i == 0:
                return pixels
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "JPEG")
            return Image.fromarray(pixels) if i == 1 else buffer.getvalue()

    def photos():
        return Photos()
"""


@pytest.fixture
def entry(tmp_path, monkeypatch):
    """Write a module of the user's under a name of its own; the function returns the images of a domain of it."""

    def images(text: str = MODULE, function: str = "photos") -> ImageTree:
        entry_points._called.cache_clear()
        monkeypatch.delitem(sys.modules, "own_photos", raising=False)
        (tmp_path / "own_photos.py").write_text(textwrap.dedent(text))
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        return images_of(tmp_path, {"python": f"own_photos:{function}"})

    return images


def test_an_entry_point_gives_images_in_any_form(entry, capsys):
    tree = entry()
    pixels = {}
    for path, label in zip(tree.paths, tree.labels.tolist(), strict=True):
        with Image.open(tree.folder / path) as image:
            pixels[image.getpixel((0, 0))[0]] = label
            assert image.size == (10, 8)
    assert pixels == {0: 0, 10: 1, 20: 2, 30: 0}
    assert "unpacking one (once, 4 images) into" in capsys.readouterr().err
    assert entry().digest == tree.digest
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("old", "new"), [('"1"', '"2"'), ('"d"]', '"e"]'), ('"0"]', '"1"]')])
def test_another_version_id_or_label_unpacks_anew(entry, old, new):
    assert entry().folder != entry(MODULE.replace(old, new)).folder


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("import io", "import nowhere_to_be_found", "own_photos cannot be imported (No module named 'nowhere"),
        ("import io", "1 / 0", "importing own_photos raised ZeroDivisionError: division by zero; correct it"),
        ("import io", "import (", "importing own_photos raised SyntaxError: invalid syntax"),
        ('["dog", "cat", np.int64(2), "0"]', "None", "expected labels to be a list, got NoneType"),
        ("def photos", "def fotos", "expected a function photos in own_photos, found none; did you mean Photos?"),
        ("return Photos()", "return 1 / 0", "photos() raised ZeroDivisionError: division by zero"),
        ("return Photos()", "return []", "with version, ids, labels and image(i), got list without version"),
        ('"1"', "1", "expected version to be a text, got 1"),
        ('"d"]', "]", "expected an id and a label for each image, got 3 and 4"),
        ('"d"]', '"a"]', "expected each id once, got a twice"),
        ("return pixels", "return pixels[0]", "image(0): expected a uint8 array (H, W, 3), got uint8 (10, 3)"),
        ("return pixels", "return 5", "image(0): expected a PIL image, a uint8 array (H, W, 3) or the bytes"),
        ("return pixels", 'return b"x"', "image(0): expected the bytes of an image file, got 1 others"),
        ("return pixels", 'raise KeyError("x")', "image(0) raised KeyError: 'x'; correct it"),
    ],
)
def test_a_mistake_in_an_entry_point_is_one_sentence(entry, tmp_path, old, new, said):
    assert old in MODULE
    with pytest.raises(RibError) as error:
        entry(MODULE.replace(old, new))
    assert said in str(error.value)
    assert "one: python: own_photos:photos" in str(error.value)
    assert unpacked(tmp_path) == []
