"""The index of a store: the same listing as from the files, whatever happens to it and to them."""

from __future__ import annotations

import os
import shutil
import time

import pytest

from rib.runs import index
from rib.runs.metrics_file import read_metrics
from rib.runs.store import RunStore
from rib.runtime import files
from rib.runtime.content import RACY_NS
from tests.support import whole


def add(store: RunStore, key: str, **said: object) -> None:
    """Write a run whose times are old enough for an index."""
    run = store.run("mini", "mini_small", "imagenet_r", "ewc", key)
    run.folder.mkdir(parents=True, exist_ok=True)
    cost = {"images_trained": 9, "images_scored": 9, "device": "CPU"}
    run.write_json("metrics.json", whole.metrics(**{"fingerprint": key, "cost": cost, **said}))


@pytest.fixture
def later(monkeypatch):
    """A clock so late that files of this moment are trusted."""
    now = time.time_ns
    monkeypatch.setattr(index, "time_ns", lambda: now() + 2 * RACY_NS)


@pytest.fixture
def store(tmp_path, later):
    store = RunStore(tmp_path)
    for number in range(3):
        add(store, f"{number:016x}", seed=number, options={"optimizer.lr": 0.1 + number})
    return store


def from_files(store: RunStore) -> list[object]:
    files = sorted(store.root.glob("*/*/*/*/*/metrics.json"))
    return [(file.parent, index.brief(read_metrics(file))) for file in files if "." not in file.parent.name]


def listed(store: RunStore) -> list[object]:
    return [(run.folder, metrics) for run, metrics in store.briefs()]


@pytest.fixture
def reads(monkeypatch):
    """The metrics files that were read, by name of their folder."""
    names = []
    monkeypatch.setattr(index, "read_metrics", lambda file: names.append(file.parent.name) or read_metrics(file))
    return names


def test_a_second_listing_is_the_same_and_reads_no_file(store, reads):
    add(
        store,
        "a" * 16,
        seed=None,
        robustness_improvement=None,
        probe={"label": "probe", "source": "imagenet_r", "fingerprint": "0" * 16, "weights": "w"},
    )
    add(store, "b" * 16 + ".token")
    old = whole.metrics(fingerprint="c" * 16)  # of a version that did not record the cost
    store.run("mini", "mini_small", "imagenet_r", "ewc", "c" * 16).folder.mkdir()
    store.run("mini", "mini_small", "imagenet_r", "ewc", "c" * 16).write_json("metrics.json", old)
    first = from_files(store)
    assert listed(store) == first and len(reads) == len(first) == 5
    assert repr(listed(store)) == repr(first) and len(reads) == 5, "the same numbers, types and order"
    assert first[-1][1] == old


def test_what_changed_is_read_again_and_what_is_gone_is_left_out(store, reads):
    listed(store)
    file = store.run("mini", "mini_small", "imagenet_r", "ewc", f"{1:016x}").folder / "metrics.json"
    status = file.stat()
    file.write_text(file.read_text().replace('"seed": 1', '"seed": 7'))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # the same size, mtime and inode
    shutil.rmtree(file.parent.with_name(f"{2:016x}"))
    reads.clear()
    assert [m["seed"] for _, m in listed(store)] == [0, 7] and reads == [f"{1:016x}"]


def test_a_file_that_may_change_within_one_tick_of_the_clock_is_not_trusted(store, monkeypatch, reads):
    monkeypatch.setattr(index, "time_ns", time.time_ns)
    listed(store), listed(store)
    assert len(reads) == 6 and not (store.root / index.NAME).exists()


@pytest.mark.parametrize("damage", [b"", b"no checksum", b"\n{}", None])
def test_a_damaged_index_and_one_of_another_version_are_ignored(store, damage, reads, monkeypatch):
    listed(store)
    file = store.root / index.NAME
    if damage is None:
        monkeypatch.setattr(index, "_form", lambda: "another")
    else:
        file.write_bytes(damage or file.read_bytes().replace(b'"mini_small"', b'"mini_tiny_"'))
    reads.clear()
    assert listed(store) == from_files(store) and len(reads) == 3
    assert listed(store) == from_files(store) and len(reads) == 3, "and written again"


def test_where_none_can_be_written_the_files_are_read(store, monkeypatch, reads):
    monkeypatch.setattr(files.os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert listed(store) == listed(store) == from_files(store) and len(reads) == 6
    assert not [p.name for p in store.root.iterdir() if p.name.startswith(".")], "no leftover"


def test_a_damaged_run_is_said_each_time_and_the_others_are_listed(store, capfd, reads):
    file = store.run("mini", "mini_small", "imagenet_r", "ewc", f"{1:016x}").folder / "metrics.json"
    file.write_text("{")
    for _ in range(2):
        assert [m["seed"] for _, m in listed(store)] == [0, 2]
        assert "run left out" in "".join(capfd.readouterr())


def test_one_new_run_among_many_does_not_rewrite_the_index(store, monkeypatch, reads):
    listed(store)
    written, new = (store.root / index.NAME).stat().st_ino, "d" * 16
    add(store, new)
    monkeypatch.setattr(index, "WORTH", 3)
    for _ in range(2):
        assert len(listed(store)) == 4 and reads[-1] == new
    assert (store.root / index.NAME).stat().st_ino == written and len(reads) == 5
