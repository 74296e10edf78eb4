"""The cache of file digests: never outdated, and no file is read without need."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from rib.errors import RibError
from rib.runtime import content
from rib.runtime.content import file_digest_of, file_states, files_digest, folder_digest_of, is_network
from tests.data.trees import replaced_in_place

PATHS = ("a/one.JPEG", "a/two.JPEG", "b/one.JPEG", "b/two.JPEG")


@pytest.fixture
def folder(tmp_path):
    for number, path in enumerate(PATHS):
        (tmp_path / "data" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / path).write_bytes(bytes([number]) * 10)
    return tmp_path / "data"


@pytest.fixture
def record(tmp_path):
    return tmp_path / "records" / "some.npz"


@pytest.fixture
def read(monkeypatch):
    """Names of the files that are read; all of them count as written long before."""
    monkeypatch.setattr(content, "RACY_NS", 0)
    names = []
    digest = content._digest
    monkeypatch.setattr(content, "_digest", lambda file: names.append("/".join(file.parts[-2:])) or digest(file))
    return names


def told(folder, record, paths=PATHS, **options):
    return [row.tobytes() for row in files_digest(folder, paths, record, "files", **options)]


def test_they_are_the_beginnings_of_sha256(folder, record):
    expected = [hashlib.sha256((folder / path).read_bytes()).digest()[:16] for path in PATHS]
    assert told(folder, record) == told(folder, record) == told(folder, None) == expected


def test_large_files_are_read_in_pieces_to_the_same_digest(folder, monkeypatch):
    whole = told(folder, None)
    monkeypatch.setattr(content, "LARGE", 3)
    assert told(folder, None) == whole


def test_what_has_not_changed_is_not_read_again(folder, record, read):
    first = told(folder, record)
    assert sorted(read) == sorted(PATHS)
    read.clear()
    assert told(folder, record) == first
    assert told(folder, record, PATHS[::-2]) == first[::-2]
    assert read == []


def test_a_file_replaced_in_place_is_seen_though_size_and_time_are_put_back(folder, record, read):
    first = told(folder, record)
    read.clear()
    before = (folder / PATHS[1]).stat()
    replaced_in_place(folder / PATHS[1])
    after = (folder / PATHS[1]).stat()
    assert (before.st_size, before.st_mtime_ns, before.st_ino) == (after.st_size, after.st_mtime_ns, after.st_ino)
    again = told(folder, record)
    assert [a == b for a, b in zip(first, again, strict=True)] == [True, False, True, True]
    assert read == [PATHS[1]]


def test_another_file_moved_into_its_place_is_seen(folder, record, read):
    first = told(folder, record)
    other = folder / "other"
    other.write_bytes(b"x" * 10)
    times = (folder / PATHS[0]).stat()
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(folder / PATHS[0])
    assert told(folder, record)[0] != first[0]


def test_a_touched_file_is_read_again_and_is_the_same(folder, record, read):
    first = told(folder, record)
    read.clear()
    os.utime(folder / PATHS[2], (1, 1))
    assert told(folder, record) == first
    assert read == [PATHS[2]]


def test_a_file_that_was_written_a_moment_ago_is_not_trusted(folder, record, monkeypatch):
    told(folder, record)
    read = []
    digest = content._digest
    monkeypatch.setattr(content, "_digest", lambda file: read.append(file) or digest(file))
    told(folder, record)
    assert len(read) == len(PATHS)
    monkeypatch.setattr(content, "RACY_NS", 0)
    told(folder, record)
    assert len(read) == len(PATHS)


def test_a_part_reads_itself_alone_and_the_whole_the_rest(folder, record, read):
    told(folder, record, PATHS[1:2])
    assert read == [PATHS[1]]
    told(folder, record)
    assert sorted(read) == sorted(PATHS)
    read.clear()
    told(folder, record)
    assert read == []


def test_all_are_read_again_that_were_read_before_a_time_but_once(folder, record, read):
    told(folder, record)
    read.clear()
    begun = time.time_ns()
    told(folder, record, PATHS[:3], since=begun)
    told(folder, record, since=begun)
    assert sorted(read) == sorted(PATHS)


def test_by_folder_a_file_replaced_in_place_is_seen_when_all_are_read_again_alone(folder, record, read):
    first = told(folder, record, by_folder=True)
    replaced_in_place(folder / PATHS[0])
    read.clear()
    assert told(folder, record, by_folder=True) == first
    assert read == []
    assert told(folder, record, by_folder=True, since=time.time_ns())[0] != first[0]


def test_by_folder_a_changed_folder_is_read_again(folder, record, read):
    first = told(folder, record, by_folder=True)
    time.sleep(0.02)
    (folder / PATHS[0]).unlink()
    (folder / PATHS[0]).write_bytes(b"x" * 10)
    read.clear()
    assert [a == b for a, b in zip(first, told(folder, record, by_folder=True), strict=True)] == [
        False,
        True,
        True,
        True,
    ]
    assert sorted(read) == sorted(PATHS[:2])


@pytest.mark.parametrize(
    "damage", ["", "{", "cut", "no digests", "paths cut", "digests cut", "other numbers", "a pickle", "a folder"]
)
def test_a_damaged_record_is_as_if_it_were_not_there(folder, record, read, damage):
    first = told(folder, record)
    whole, columns = record.read_bytes(), dict(np.load(record))
    if damage == "no digests":
        del columns["digests"]
    elif damage == "paths cut":
        columns["paths"] = columns["paths"][:-11]
    elif damage == "digests cut":
        columns["digests"] = columns["digests"][:, :8]
    elif damage == "other numbers":
        columns["read"] = columns["read"].astype(float)
    elif damage == "a pickle":
        columns["paths"] = np.array(["x", 1], dtype=object)
    if damage == "a folder":
        record.unlink()
        record.mkdir()
    elif damage in ("", "{", "cut"):
        record.write_bytes(whole[: len(whole) // 2] if damage == "cut" else damage.encode())
    else:
        np.savez(record, **columns)
    read.clear()
    assert told(folder, record) == first
    assert sorted(read) == sorted(PATHS)


def test_a_flipped_bit_in_a_record_is_damage(folder, record, read):
    first = told(folder, record)
    whole = bytearray(record.read_bytes())
    place = whole.index(first[0])
    whole[place] ^= 1
    record.write_bytes(whole)
    assert told(folder, record) == first


def test_where_no_record_can_be_written_none_is_kept(folder, tmp_path):
    (tmp_path / "file").touch()
    assert told(folder, tmp_path / "file" / "some.npz") == told(folder, None)


def test_where_there_are_no_locks_all_read(folder, record, monkeypatch):
    def none(self, key):
        raise OSError("read-only")

    monkeypatch.setattr("rib.runtime.locks.Locks.hold", none)
    assert told(folder, record) == told(folder, None)
    assert record.is_file()


def test_of_two_at_once_one_reads_and_the_other_takes_its_record(folder, record, read, monkeypatch):
    digest = content._digest

    def slow(file):
        time.sleep(0.05)
        return digest(file)

    monkeypatch.setattr(content, "_digest", slow)
    found = []
    threads = [threading.Thread(target=lambda: found.append(told(folder, record))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1]
    assert sorted(read) == sorted(PATHS)


def test_what_was_read_before_an_interruption_is_kept(folder, record, read, monkeypatch):
    monkeypatch.setattr(content, "CHUNK", 1)
    monkeypatch.setattr(content, "cores", lambda: 1)
    digest = content._digest

    def stopped(file):
        if file == folder / PATHS[2]:
            raise KeyboardInterrupt
        return digest(file)

    monkeypatch.setattr(content, "_digest", stopped)
    with pytest.raises(KeyboardInterrupt):
        told(folder, record)
    monkeypatch.setattr(content, "_digest", digest)
    read.clear()
    told(folder, record)
    assert PATHS[0] not in read
    assert PATHS[2] in read


def test_a_file_that_is_gone_is_named(folder, record):
    (folder / PATHS[3]).unlink()
    with pytest.raises(RibError, match=r"b/two.JPEG cannot be read \(No such file"):
        told(folder, record)


def test_any_name_can_be_recorded(folder, record, read):
    name = os.fsdecode(b"a/\xff \n.jpg")
    (folder / name).write_bytes(b"x")
    first = told(folder, record, (name, *PATHS))
    read.clear()
    assert told(folder, record, (name, *PATHS)) == first
    assert read == []


def test_an_inode_of_64_bits_fits(folder, monkeypatch):
    found = SimpleNamespace(st_size=1, st_mtime_ns=2, st_ctime_ns=3, st_ino=2**64 - 5)
    monkeypatch.setattr(os, "stat", lambda path: found)
    assert file_states(folder, ["a"]).tolist() == [[1, 2, 3, 2**63 - 5]]


# One file, and a folder given as an option


def test_a_file_is_told_by_the_first_16_digits_of_its_sha256(folder, tmp_path):
    file = folder / PATHS[1]
    expected = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    assert file_digest_of(file, None) == file_digest_of(file, tmp_path / "records") == expected


def test_a_file_is_read_once_and_again_when_it_was_replaced_in_place(folder, tmp_path, read):
    file = folder / PATHS[1]
    first = file_digest_of(file, tmp_path)
    assert file_digest_of(file, tmp_path) == first
    assert len(read) == 1
    replaced_in_place(file)
    assert file_digest_of(file, tmp_path) != first


def test_a_folder_is_told_by_names_and_content_and_not_by_place_or_time(folder, tmp_path, read):
    records = tmp_path / "records"
    first = folder_digest_of(folder, records)
    read.clear()
    assert folder_digest_of(folder, records) == first
    assert read == []
    shutil.copytree(folder, tmp_path / "copy")
    assert folder_digest_of(tmp_path / "copy", records) == first
    replaced_in_place(folder / PATHS[1])
    changed = folder_digest_of(folder, records)
    (folder / PATHS[1]).rename(folder / "renamed.JPEG")
    assert len({first, changed, folder_digest_of(folder, records)}) == 3


# Which file systems are other machines


@pytest.mark.parametrize(
    ("place", "network"),
    [("/data/sets/r", True), ("/data", False), ("/database", False), ("/home/me", True), ("/mnt/gone", False)],
)
def test_the_longest_mount_tells_whether_a_folder_is_on_another_machine(monkeypatch, place, network):
    mounts = {"/": "ext4", "/data": "xfs", "/data/sets": "nfs4", "/home": "fuse.sshfs", "/mnt": "fuseblk"}
    parts = [SimpleNamespace(mountpoint=where, fstype=kind) for where, kind in mounts.items()]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: parts)
    assert is_network(Path(place)) is network
