"""Locks in a folder shared by several machines, and runs whose holder was presumed dead."""

from __future__ import annotations

import json
import multiprocessing as mp
import os
import time
from pathlib import Path

import pytest

from rib.runs.run import Run
from rib.runs.store import RunStore, TakenOverError
from rib.runtime.locks import Locks
from tests.support import whole


def elsewhere(folder: Path, key: str) -> Path:
    """A claim by a process of another host, which nobody here can look at."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{key}.elsewhere.7.1"
    file.write_text(json.dumps({"host": "elsewhere", "pid": 7, "started": "1"}) + "\n")
    return file


def test_a_claim_grows_while_it_is_held_and_is_not_made_again_once_gone(tmp_path):
    locks = Locks(tmp_path, beat=0.02)
    with locks.hold("key") as lock:
        sizes = set()
        while len(sizes) < 3:
            sizes.add(lock.file.stat().st_size)
        lock.file.unlink()
        time.sleep(0.1)
        assert not lock.held
    assert list(tmp_path.iterdir()) == []


def test_another_hosts_claim_counts_while_it_grows_and_not_after(tmp_path):
    locks = Locks(tmp_path, silence=0.3)
    file = elsewhere(tmp_path, "key")
    for _ in range(10):  # longer than the silence, all in all
        assert locks.holder("key") is not None
        time.sleep(0.05)
        with file.open("a") as stream:
            stream.write(".")
    assert locks.holder("key") is not None
    time.sleep(0.35)
    assert locks.holder("key") is None
    assert not file.exists()


def test_a_first_look_never_takes_over(tmp_path):
    """The age of a file, which is by another machine's clock, says nothing."""
    file = elsewhere(tmp_path, "key")
    os.utime(file, (0, 0))
    assert Locks(tmp_path, silence=10).holder("key") is not None


def _hold(folder: Path, number: int) -> None:
    locks = Locks(folder / "claims", beat=0.05, silence=5)
    for turn in range(4):
        with locks.hold("key"):
            with (folder / "log").open("a") as log:
                log.write(f"+{number}.{turn} ")
            time.sleep(0.01)
            with (folder / "log").open("a") as log:
                log.write(f"-{number}.{turn} ")


def test_holders_take_turns(tmp_path):
    workers = [mp.get_context("fork").Process(target=_hold, args=(tmp_path, n)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    words = (tmp_path / "log").read_text().split()
    assert len(words) == 24
    assert all(a[1:] == b[1:] and a[0] == "+" for a, b in zip(words[::2], words[1::2], strict=True))


def finish(work: Run, by: str) -> None:
    work.write_json("metrics.json", whole.metrics(by=by))


@pytest.fixture
def place(tmp_path: Path) -> Run:
    return RunStore(tmp_path).run("mini", "m", "s", "f", "key")


def taken_over(store: RunStore, place: Run, first_claim: Path) -> None:
    """Take over a run as another process does that believes the holder dead."""
    first_claim.unlink()
    with store.lock(place) as lock:
        assert lock is not None
        work = store.begin(place, lock)
        finish(work, "second")
        store.publish(work, place, lock)


def test_a_stalled_owner_that_wakes_publishes_nothing(tmp_path, place):
    store = RunStore(tmp_path)
    with pytest.raises(TakenOverError, match="taken over"), store.lock(place) as lock:
        assert lock is not None
        work = store.begin(place, lock)
        (work.folder / "last.ckpt").write_text("half")
        taken_over(store, place, lock.file)
        finish(work, "first")  # makes its old folder again
        store.publish(work, place, lock)
    assert place.metrics()["by"] == "second"
    assert (place.folder / "last.ckpt").read_text() == "half", "the second went on where the first had been"


def test_nor_one_that_stalls_between_its_look_and_its_rename(tmp_path, place, monkeypatch):
    store = RunStore(tmp_path)
    rename = os.rename

    def late(source, target):
        monkeypatch.setattr(os, "rename", rename)
        taken_over(store, place, lock.file)
        rename(source, target)

    with pytest.raises(TakenOverError), store.lock(place) as lock:
        assert lock is not None
        work = store.begin(place, lock)
        finish(work, "first")
        monkeypatch.setattr(os, "rename", late)
        store.publish(work, place, lock)
    assert place.metrics()["by"] in ("first", "second")
    assert [p.name for p in place.folder.parent.iterdir()] == ["key"]


def test_what_fails_after_a_take_over_says_so(tmp_path, place):
    store = RunStore(tmp_path)
    with pytest.raises(TakenOverError), store.lock(place) as lock:
        assert lock is not None
        work = store.begin(place, lock)
        taken_over(store, place, lock.file)
        (work.folder / "weights.safetensors").read_bytes()


def test_what_was_killed_before_its_publication_is_found(tmp_path, place):
    store = RunStore(tmp_path)
    with store.lock(place) as lock:
        assert lock is not None
        finish(store.begin(place, lock), "first")
    assert place.metrics() is None
    with store.lock(place):
        store.recover(place)
    assert place.metrics()["by"] == "first"


def test_damaged_metrics_are_moved_aside(tmp_path, place, capsys):
    store = RunStore(tmp_path)
    place.folder.mkdir(parents=True)
    finish(place, "first")
    file = place.folder / "metrics.json"
    file.write_text(file.read_text()[:20])
    with store.lock(place) as lock:
        assert lock is not None
        store.recover(place)
        assert place.metrics() is None
        assert (store.begin(place, lock).folder / "metrics.damaged").is_file()
    assert "moved aside" in capsys.readouterr().err
