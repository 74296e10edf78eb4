"""Damaged files in a store: one sentence each, never a traceback."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rib.analysis.cache import get_or_compute, read_record, read_table
from rib.analysis.subject import Subject
from rib.config.command_schema import AnalyzeConfig
from rib.config.composition import load_config
from rib.errors import DamagedError, OtherVersionError, RibError
from rib.pipeline import finetune
from rib.runs import archive
from rib.runs.keys import NUMERICS
from rib.runs.measure import read_paths
from rib.runs.metrics_file import SCHEMA, check, is_older
from rib.runs.predictions import Predictions
from rib.runs.resolve import resolve
from rib.runs.run import Run
from rib.runs.store import RunStore
from rib.runtime.locks import Locks
from rib.sweeps import calibration, cell, cost
from rib.sweeps.jobs_table import job_table, read_jobs
from rib.sweeps.plan_view import say_older
from rib.sweeps.status import _progress
from tests.support import whole

WRONG = ("", "{}", "[]", "null", "7", '"text"', '{"schema": 1}', '{"suite": "seven", "scores": {}}', "\0", "{" * 9)
"""What stands where a block of names should."""


def place(store: RunStore, key: str = "0123456789abcdef") -> Run:
    run = store.run("mini", "mini_small", "imagenet_r", "ewc", key)
    run.folder.mkdir(parents=True, exist_ok=True)
    return run


@pytest.mark.parametrize("text", WRONG)
def test_metrics_that_are_none_are_one_sentence_wherever_they_are_met(tmp_path, text, capsys):
    store = RunStore(tmp_path)
    run = place(store)
    (run.folder / "metrics.json").write_text(text)
    for look in (
        run.metrics,
        run.all_metrics,
        lambda: run.metrics("paper"),
        lambda: run.metrics_file_for(whole.metrics()),
    ):
        with pytest.raises(DamagedError, match=r"metrics.json .*; delete it and run the same command again"):
            look()
    assert store.finished() == []
    assert "run left out: " in capsys.readouterr().err
    store.recover(run)
    assert "moved aside" in capsys.readouterr().err
    assert run.metrics() is None


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"seconds": 7}, "seconds is 7"),
        ({"seconds": {"fit": 1.0}}, "it has no seconds.evaluate"),
        ({"protocol": []}, r"protocol is \[\]"),
        ({"protocol": {**whole.metrics()["protocol"], "limit": "60"}}, 'protocol.limit is "60"'),
        ({"accuracy": {"imagenet_a": {"num_images": 3}}}, r"it has no accuracy.imagenet_a.before \(3 faults\)"),
        ({"scores": {"imagenet_a": None}}, "scores.imagenet_a is null"),
        (
            {"robustness_improvement": {"value": 1.0, "low": 0.0, "high": 2.0}},
            "it has no robustness_improvement.targets",
        ),
        ({"seed": True}, "seed is true"),
    ],
)
def test_what_is_missing_or_of_another_kind_is_named(said, fault):
    file = Path("run", "metrics.json")
    check(file, whole.metrics())
    check(file, whole.metrics(robustness_improvement=None, more="is ignored"))
    with pytest.raises(DamagedError, match=rf"run/metrics.json is damaged: {fault}"):
        check(file, whole.metrics(**said))


def test_what_another_version_wrote_is_not_damaged_and_stays(tmp_path):
    store = RunStore(tmp_path)
    run = place(store)
    run.write_json("metrics.json", whole.metrics(schema=SCHEMA + 1))
    with pytest.raises(OtherVersionError, match=rf"schema {SCHEMA + 1}, this version of rib reads {SCHEMA}"):
        run.metrics()
    with pytest.raises(OtherVersionError):
        store.recover(run)
    old = whole.metrics()
    del old["protocol"]["holdout"]
    old["protocol"]["numerics"] = NUMERICS - 1
    (run.folder / "metrics.json").write_text(json.dumps(old))
    words = (
        rf"was made by an older version of rib \(numerics {NUMERICS - 1}, now {NUMERICS}\) and cannot be read any more"
    )
    with pytest.raises(OtherVersionError, match=words):
        run.metrics()
    assert store.finished() == []
    assert (run.folder / "metrics.json").is_file()
    assert is_older({"protocol": {}}) == (NUMERICS > 1)


@pytest.mark.parametrize("name", ["fit.json", "scoring.json", "env.json"])
def test_other_files_of_a_run_are_looked_at_as_hard(tmp_path, name):
    run = place(RunStore(tmp_path))
    for text in ("", "[]", "{}"):
        (run.folder / name).write_text(text)
        with pytest.raises(DamagedError, match=rf"{name} .*; delete it and run the same command again"):
            run.read_json(name)
    (run.folder / "fit.json").write_text("{}")
    assert not run.is_intact
    (run.folder / "fit.json").unlink()
    assert run.is_intact  # nothing was made
    run.write_json("metrics.json", whole.metrics())
    assert not run.is_intact


@pytest.mark.parametrize("text", ["", "7", "- a", "model: {}", "a: [", "model: {name: x, library: timm}\nseed: many"])
def test_a_config_that_is_none_is_one_sentence(tmp_path, text):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(RibError, match=r"config.yaml cannot be read by this version of rib"):
        load_config(file)


def columns(images: int = 4) -> dict[str, Any]:
    return {
        "label": np.zeros(images, np.int16),
        "top5": np.zeros((images, 5), np.int16),
        "confidence": np.zeros(images, np.float32),
        "log_prob": np.zeros(images, np.float32),
    }


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"label": None}, "label"),
        ({"log_prob": None}, "log_prob"),
        ({"unknown": np.zeros(4)}, "unknown"),
        ({"top5": np.zeros((4, 1), np.int16)}, r"expected top5 of shape \(4, 5\), got \(4, 1\)"),
        ({"confidence": np.zeros(3, np.float32)}, r"expected confidence of shape \(4,\), got \(3,\)"),
        ({"logits": np.zeros((3, 9), np.float32)}, r"expected logits of shape \(4, 9\), got \(3, 9\)"),
        ({"label": np.zeros(4, np.int64)}, "expected label of int16, got int64"),
    ],
)
def test_predictions_without_a_column_or_of_another_length_or_type_are_named(tmp_path, said, fault):
    file = tmp_path / "imagenet_a.npz"
    np.savez(file, **columns())
    assert len(Predictions.load(file)) == 4
    np.savez(file, **{name: value for name, value in {**columns(), **said}.items() if value is not None})
    with pytest.raises(
        RibError, match=rf"cannot read predictions .*{fault}.*; delete it and run the same command again"
    ):
        Predictions.load(file)


def test_predictions_of_another_type_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="expected log_prob of float32, got float64"):
        Predictions(**{**columns(), "log_prob": np.zeros(4)}).save(tmp_path / "imagenet_a.npz")
    assert not any(tmp_path.iterdir())


def test_paths_that_are_gone_are_one_sentence(tmp_path):
    with pytest.raises(RibError, match=r"cannot read .*paths/abc.txt \(No such file or directory\)"):
        read_paths(tmp_path, "abc")


@pytest.mark.parametrize("text", WRONG)
def test_what_a_grid_keeps_of_its_cells_may_be_damaged(tmp_path, text):
    store = RunStore(tmp_path)
    folder = tmp_path / "cells" / "one"
    folder.mkdir(parents=True)
    (folder / cell.FAILED).write_text(text)
    assert "failed.json" in cell.failure(folder)["error"]
    (folder / cell.PROGRESS).write_text(text)
    owner = {"host": "here", "pid": 1}
    assert _progress(SimpleNamespace(id="one", label="a cell"), store, owner) == {"label": "a cell", **owner}
    (tmp_path / "calibration.json").write_text(text)
    assert calibration.read_calibration(tmp_path / "calibration.json") is None


@pytest.mark.parametrize("text", WRONG)
def test_a_job_of_a_sweep_whose_record_is_damaged_has_failed(tmp_path, text):
    (tmp_path / "job.0.json").write_text(text)
    (tmp_path / "job.old.json").write_text("{}")
    (job,) = read_jobs(tmp_path)
    assert job["error"].endswith("job.0.json is damaged")
    assert len(job_table([job], tmp_path).rows) == 1


@pytest.mark.parametrize("text", WRONG)
def test_a_claim_that_is_damaged_is_somebodys_until_it_is_silent(tmp_path, text):
    (tmp_path / "key.host.1.1").write_text(text)
    patient = Locks(tmp_path, silence=60.0)
    assert patient.holder("key") == {"host": "an unknown machine", "pid": 0, "started": None}
    hasty = Locks(tmp_path, silence=-1.0)
    hasty.holder("key")
    assert hasty.holder("key") is None


def test_an_analysis_whose_record_is_damaged_is_made_again(tmp_path):
    run, made = place(RunStore(tmp_path)), []
    for text in ("", "[]"):
        folder = get_or_compute(run, "cka", {"a": 1}, lambda folder: made.append(folder) or {"b": 2}).folder
        assert read_record(folder) == {"a": 1, "b": 2}
        (folder / "cka.json").write_text(text)
        with pytest.raises(DamagedError, match=r"cka.json"):
            read_record(folder)
    assert len(made) == 2
    (tmp_path / "cka.csv").write_bytes(b"")
    with pytest.raises(DamagedError, match=r"cka.csv is damaged .* make it again with force=true"):
        read_table(tmp_path / "cka.csv")


@pytest.mark.parametrize("text", WRONG)
def test_a_tar_with_damaged_metrics_is_refused(tmp_path, text):
    name = "mini/mini_small/imagenet_r/ewc/0123456789abcdef"
    with tarfile.open(tmp_path / "runs.tar", "w") as tar:
        member = tarfile.TarInfo(f"{name}/metrics.json")
        member.size = len(text.encode())
        tar.addfile(member, io.BytesIO(text.encode()))
    with pytest.raises(RibError, match=rf"file: {name}/metrics.json .*(; |: )?.*export it again"):
        archive.import_runs(RunStore(tmp_path / "runs"), tmp_path / "runs.tar")
    assert RunStore(tmp_path / "runs").finished() == []


@pytest.mark.slow
def test_a_checkpoint_that_was_cut_short_is_named_and_trains_nothing(ask_for, store, monkeypatch):
    quick = ("model=mini_tiny", "epochs=1", "data.images_per_class=1", "data.limit=20", "suite.reported=[]")
    config = ask_for(*quick, "suite.targets=[imagenet_a]")
    place = RunStore(store).run_of(resolve(config))
    place.folder.mkdir(parents=True)
    place.checkpoint.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(
        RibError, match=r"last.ckpt is damaged; delete it and run the same command again to train from the start"
    ):
        finetune(config)
    next(place.folder.parent.glob("*/last.ckpt")).unlink()
    assert finetune(config) == place


def test_a_place_that_holds_a_half_made_run_is_freed_for_the_whole_one(tmp_path):
    store = RunStore(tmp_path)
    run = place(store)  # as after its metrics.json was deleted
    (left := run.folder.with_name(f"{run.key}.token")).mkdir()
    with store.lock(run) as lock:
        assert lock is not None
        work = store.begin(run, lock)
        work.write_json("metrics.json", whole.metrics())
        store.publish(work, run, lock)
    assert run.metrics() == whole.metrics()
    assert not left.exists()


def test_runs_of_an_older_version_are_named_where_they_are_met(tmp_path, monkeypatch, capsys):
    store, other = RunStore(tmp_path / "old"), RunStore(tmp_path / "new")
    old = whole.metrics()
    del old["protocol"]["numerics"]
    place(store).write_json("metrics.json", old)
    archive.export_runs(store, tmp_path / "runs.tar")
    monkeypatch.setattr("rib.runs.keys.NUMERICS", NUMERICS + 1)
    words = f"was made by an older version of rib (numerics 1, now {NUMERICS + 1})"
    say_older(store)
    assert f"ignored in {store.root}: 1 run: each {words}" in capsys.readouterr().err
    taken = archive.import_runs(other, tmp_path / "runs.tar")
    assert taken.older == taken.new == ["mini/mini_small/imagenet_r/ewc/0123456789abcdef"]
    say_older(other)
    assert words in capsys.readouterr().err
    assert cost.Costs(other).store is other
    with pytest.raises(RibError, match=r"has no weights \(imported runs come without"):
        Subject.of(place(other).folder, AnalyzeConfig(run="given"))
