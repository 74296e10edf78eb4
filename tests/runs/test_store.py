"""The run store: locks, metrics files, and errors of a full or read-only disk."""

from __future__ import annotations

import json
import multiprocessing as mp
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from rib.errors import RibError
from rib.runs.metrics_file import MetricsKey
from rib.runs.predictions import Predictions
from rib.runs.run import Run
from rib.runs.store import RunStore
from tests.support import whole


def place(store: RunStore, key: str = "0123456789abcdef") -> Run:
    return store.run("mini", "mini_small", "imagenet_r", "ewc", key)


def finish(run: Run, **metrics: object) -> None:
    run.folder.mkdir(parents=True, exist_ok=True)
    run.write_json("metrics.json", whole.metrics(**metrics))


def test_finished_runs_are_found_by_what_their_metrics_say(tmp_path):
    store = RunStore(tmp_path)
    finish(place(store), method="ewc", seed=0)
    finish(place(store, "aa"), method="ewc", seed=1)
    finish(place(store, "bb.again"), method="ewc", seed=1)
    assert len(store.finished(method="ewc")) == 2
    assert store.one(seed=1).key == "aa"
    with pytest.raises(RibError, match=r"expected one run .* found 2"):
        store.one(method="ewc")
    assert store.finished(method="lwf") == []


def test_another_suite_stands_beside_the_first(tmp_path):
    run = place(RunStore(tmp_path))
    assert run.metrics() is None
    finish(run)
    assert run.metrics_file_for(whole.metrics(suite="paper")).name == "metrics.paper.json"
    run.write_json("metrics.paper.json", whole.metrics(suite="paper"))
    assert run.metrics("paper") == whole.metrics(suite="paper")
    assert run.metrics("seven")["suite"] == "seven"


def test_metrics_are_found_by_the_suites_name_or_by_exactly_what_they_stand_on(tmp_path):
    run = place(RunStore(tmp_path))
    finish(run)
    first = run.metrics()
    rescored = whole.metrics(scores={"imagenet_a": {"key": "l" * 16, "images": "i" * 16}})
    tested = whole.metrics(protocol={**first["protocol"], "targets": ["imagenet_a"], "reported": []})
    for metrics in (rescored, tested):
        assert run.metrics(MetricsKey.of(metrics)) is None
        file = run.metrics_file_for(metrics)
        assert not file.exists()
        run.write_json(file.name, metrics)
        assert run.metrics_file_for(metrics) == file
    for metrics in (first, rescored, tested):
        assert run.metrics(MetricsKey.of(metrics)) == metrics
    assert run.metrics() == run.metrics("seven") == first
    any_scoring = MetricsKey.of(tested)._replace(scores=None)
    assert run.metrics(any_scoring) == tested
    assert run.metrics(any_scoring._replace(reported=["imagenet_val"])) is None
    assert run.metrics(any_scoring._replace(experiment="paper")) is None
    assert run.metrics("paper") is None


def test_a_damaged_metrics_file_is_named(tmp_path):
    run = place(RunStore(tmp_path))
    run.folder.mkdir(parents=True)
    (run.folder / "metrics.json").write_text('{"suite": ')
    with pytest.raises(RibError, match=r"cannot read .*metrics.json .*delete it"):
        run.metrics()


def test_a_claim_is_released_also_after_an_exception(tmp_path):
    store = RunStore(tmp_path)
    with pytest.raises(ZeroDivisionError), store.lock(place(store)):
        assert len(list((tmp_path / "claims").iterdir())) == 1
        raise ZeroDivisionError
    assert list((tmp_path / "claims").iterdir()) == []


def _append(root, number):
    store = RunStore(root)
    with store.lock(place(store)):
        log = root / "log"
        before = log.read_text() if log.exists() else ""
        time.sleep(0.02)
        log.write_text(f"{before}{number}\n")  # loses lines if two are here at once


def test_two_never_hold_the_same_run(tmp_path):
    workers = [mp.get_context("fork").Process(target=_append, args=(tmp_path, n)) for n in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert sorted((tmp_path / "log").read_text().split()) == list("012345")


def test_a_dead_owners_claim_is_taken_over_at_once(tmp_path):
    code = f"""
import time
from pathlib import Path
from rib.runs.store import RunStore
store = RunStore({str(tmp_path)!r})
with store.lock(store.run("mini", "m", "s", "f", "key")):
    print("held", flush=True)
    time.sleep(60)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    store = RunStore(tmp_path)
    begun = time.monotonic()
    with store.lock(store.run("mini", "m", "s", "f", "key")):
        assert time.monotonic() - begun < 1


def test_a_reused_pid_is_not_taken_for_the_owner(tmp_path):
    store = RunStore(tmp_path)
    (tmp_path / "claims").mkdir()
    stale = {"host": socket.gethostname(), "pid": os.getpid(), "started": "before this boot"}
    (tmp_path / "claims" / "0123456789abcdef.x.1.1").write_text(json.dumps(stale))
    with store.lock(place(store)):
        pass


def test_a_full_disk_and_a_file_in_the_way_are_said_before_any_work(tmp_path, monkeypatch):
    store = RunStore(tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**6))
    with pytest.raises(RibError, match=r"needs 5 MB .* 1 MB are free"), store.lock(place(store), 5 * 10**6):
        pytest.fail("work began on a full disk")
    (tmp_path / "file").write_text("")
    blocked = RunStore(tmp_path / "file" / "runs")
    with pytest.raises(RibError, match="cannot write to"), blocked.lock(place(blocked)):
        pytest.fail("work began without a folder")


def test_predictions_survive_the_file_and_take_twenty_bytes_an_image(tmp_path):
    n = 5000
    rng = np.random.default_rng(0)
    made = Predictions(
        rng.integers(0, 9, n).astype(np.int16),
        rng.integers(0, 9, (n, 5)).astype(np.int16),
        rng.random(n).astype(np.float32),
        -rng.random(n).astype(np.float32),
    )
    file = tmp_path / "new" / "imagenet_r.npz"
    made.save(file)
    read = Predictions.load(file)
    for name in ("label", "top5", "confidence", "log_prob"):
        assert np.array_equal(getattr(read, name), getattr(made, name))
    assert read.accuracy == (made.top5[:, 0] == made.label).sum() / n
    assert file.stat().st_size / n < 20.5
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(RibError, match="delete it and run the same command again"):
        Predictions.load(file)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    run = place(RunStore(tmp_path))
    finish(run)
    old = run.metrics()

    def full(_fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RibError, match="No space left on device; finished results are not affected"):
        finish(run, seed=5)
    assert run.metrics() == old
    assert [p.name for p in run.folder.iterdir()] == ["metrics.json"]
