"""A sweep's display: one line a job in the order they end, what each is doing, and the table at the end."""

from __future__ import annotations

import pickle
import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml
from omegaconf import OmegaConf

from rib.config.launch import ONE_SENTENCE, launch
from rib.errors import RibError
from rib.runs.metrics_file import write
from rib.sweeps import multirun, time_left
from rib.sweeps.jobs_table import show_jobs
from rib.sweeps.jobs_view import JobsView, progress_file
from rib.sweeps.multirun import Jobs
from rib.sweeps.time_left import JobsLeft

RI = {"value": -3.86, "low": -5.48, "high": -2.27, "targets": ["imagenet_a"]}
COST = {"images_trained": 364, "images_scored": 2324, "device": "CPU (2 threads)"}


def job(number, sweep, **more):
    content = {
        "overrides": f"+method=ewc optimizer.lr=0.{number} epochs=1",
        "kind": "mini",
        "model": "mini_small",
        "source": "imagenet_r",
        "method": "ewc",
        "seed": 0,
        **more,
    }
    write(sweep / f"job.{number}.json", content)


@pytest.mark.parametrize(
    ("override", "kept"),
    [
        ("seed=[0, 1]", {"seed": None}),
        ("seed=true", {"seed": None}),
        ("seed=x", {"seed": None}),
        ("seed=null", {"seed": None}),
        ("dataset.name=7", {"source": "7"}),
        ("dataset=null", {"source": "None"}),
        ("model.name=[a, b]", {"model": "['a', 'b']"}),
        ("model.name=${nowhere}", {"model": "None"}),
        ("method=null", {"method": "finetune"}),
        ("method=ewc", {"method": "finetune"}),
        ("data=null", {"kind": "mini"}),
        ("data.root=5", {"kind": "user"}),
    ],
)
def test_a_job_with_odd_values_is_recorded_before_they_are_refused(tmp_path, monkeypatch, override, kept):
    hydra = SimpleNamespace(overrides=SimpleNamespace(task=[override]))
    monkeypatch.setattr(multirun.HydraConfig, "get", lambda: hydra)
    usual = {"data": {"root": None}, "model": {"name": "net"}, "dataset": {"name": "r"}, "method": {}, "seed": 0}
    cfg = OmegaConf.create(usual)
    key, _, value = override.partition("=")
    OmegaConf.update(cfg, key, yaml.safe_load(value))
    write(tmp_path / "job.0.json", record := multirun._describe_job(cfg))
    assert record.items() >= kept.items()


@pytest.mark.parametrize(
    ("errors", "advice"),
    [
        (["the disk is full"], "run the same command to retry it"),
        (["", "the disk is full"], "run the same command to retry them"),
        (["seed: expected a whole number, got 'x'"], "mend the option that its message names"),
        (["method.ewc.strength: expected a value", "+method=x: no"], "mend the options that the messages name"),
        (["seed: no", "killed"], "mend the options that the messages name, and run the command to retry the others"),
    ],
)
def test_only_what_may_succeed_is_to_be_run_again(errors, advice):
    jobs = [{"folder": "run"}, *({"error": error} if error else {} for error in errors)]
    assert multirun._advise(jobs) == advice


def finished(sweep, **more):
    return {"folder": str(sweep / "run"), "robustness_improvement": RI, "seconds": 8.84, "cost": COST, **more}


def test_a_line_for_each_job_that_ended_and_never_twice(tmp_path, capsys, monkeypatch):
    view = JobsView(tmp_path, 3, {"optimizer.lr"})
    monkeypatch.setattr(view._left, "seconds", lambda: 4.0 if view._left._ahead == 2 else None)
    view.start()
    job(1, tmp_path, **finished(tmp_path))
    job(0, tmp_path)
    write(progress_file(tmp_path, 0), doing("mini_small: ewc on mini R", 120))
    view._look()
    view._look()
    assert view._describe_running() == ["optimizer.lr=0.0: ewc on mini R, 120/480 batches, 35 s left, epoch 2"]
    job(0, tmp_path, error="it failed")
    job(2, tmp_path, **finished(tmp_path, in_store=True))
    view.close()
    view.close()
    assert capsys.readouterr().err.splitlines() == [
        "[1/3] optimizer.lr=0.1: RI -3.86 [-5.48, -2.27], 8.8 s; about 4 s left",
        "[2/3] optimizer.lr=0.0: failed: it failed",
        "[3/3] optimizer.lr=0.2: RI -3.86 [-5.48, -2.27], 8.8 s (in the store)",
    ]


def doing(what, done):
    return {
        "what": what,
        "done": done,
        "total": 480,
        "unit": "batches",
        "note": "epoch 2",
        "rate": 10.0,
        "seconds_left": 35.0,
    }


@pytest.mark.parametrize(
    ("swept", "label"),
    [
        ({"method", "seed"}, "ewc, seed 0"),
        ({"method", "dataset"}, "ewc on imagenet_r"),
        ({"dataset", "optimizer.lr"}, "on imagenet_r, optimizer.lr=0.4"),
        ({"model"}, "mini_small"),
        (set(), "mini_small, ewc on imagenet_r, seed 0, optimizer.lr=0.4, epochs=1"),
    ],
)
def test_a_job_is_named_by_what_the_sweep_varies(tmp_path, swept, label, capsys):
    job(4, tmp_path, **finished(tmp_path))
    view = JobsView(tmp_path, 0, swept)
    view.start()
    view.close()
    assert capsys.readouterr().err == f"[1] {label}: RI -3.86 [-5.48, -2.27], 8.8 s\n"


def test_the_table_says_what_all_runs_cost_and_where_each_is(tmp_path, capsys):
    job(0, tmp_path, **finished(tmp_path))
    job(1, tmp_path, **finished(tmp_path))
    job(2, tmp_path, error="it failed")
    show_jobs(tmp_path)
    out = capsys.readouterr().out
    assert "All runs: 728 images trained, 4,648 scored, 18 s on CPU (2 threads)." in out
    rows = [line for line in out.splitlines() if line.startswith(("1  ", "2  ", "3  "))]
    assert [row.endswith(str(tmp_path / "run")) for row in rows] == [True, True, False, False]
    assert rows[2].endswith("failed") and rows[3] == "3  it failed"
    assert out == "".join(f"{line.rstrip()}\n" for line in out.splitlines())


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_job_without_a_result_is_explained_unless_ctrl_c_ended_it(tmp_path, capsys, monkeypatch, interrupted):
    monkeypatch.setenv("COLUMNS", "80")
    job(0, tmp_path, **finished(tmp_path))
    job(1, tmp_path)
    show_jobs(tmp_path, 4, interrupted)
    out = capsys.readouterr().out
    title, _, table = out.partition("job ")
    assert title.split()[:5] == ["2", "of", "4", "jobs", "begun:"] and "unfinished" in table and ".submitit" not in out
    assert f"1  {tmp_path / 'run'}" in table and ("2  it began but" in table) != interrupted
    assert all(len(line) <= 80 for line in out.splitlines() if str(tmp_path) not in line)
    (tmp_path / ".submitit").mkdir()
    show_jobs(tmp_path, 4, interrupted)
    assert capsys.readouterr().out.endswith(f"see {tmp_path / '.submitit'}\n")


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt(), None), (SystemExit(1), 1), (RibError("full"), None)])
def test_a_sweep_that_does_not_end_by_itself_shows_its_table_first(tmp_path, capsys, monkeypatch, stop, code):
    job(0, tmp_path, **finished(tmp_path))
    job(1, tmp_path, error="it failed")
    job(2, tmp_path)

    def main():
        view = JobsView(tmp_path, 4, ())
        view.start()
        multirun._views.append(view)
        raise stop

    monkeypatch.setattr(sys, "argv", ["rib"])
    monkeypatch.setattr("rib.config.launch.show_command", lambda name: None)
    for name in ("HYDRA_FULL_ERROR", ONE_SENTENCE, "OMP_WAIT_POLICY"):  # what it sets ends with the test
        monkeypatch.setenv(name, "1")
    with pytest.raises((SystemExit, type(stop))) as ended:
        launch(multirun.show_jobs_after(main), "train")
    out, err = capsys.readouterr()
    assert "3 of 4 jobs begun:" in out
    if isinstance(stop, KeyboardInterrupt):
        counts = "1 of 4 jobs done, 1 failed, 1 begun, 1 not started"
        assert err.splitlines()[-1] == f"rib: interrupted: {counts}; the same command continues"
    assert ended.value.code == (130 if isinstance(stop, KeyboardInterrupt) else code or 1)


def test_the_time_left_is_that_of_the_jobs_that_were_made(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time_left, "monotonic", lambda: now[0])
    left = JobsLeft(5)
    assert left.seconds() is None
    now[0] = 2.0
    left.end({"folder": "a", "seconds": 10.0, "in_store": True})
    assert left.seconds() == 40.0
    now[0] = 22.0
    left.end({"folder": "b", "seconds": 15.0})
    assert left.seconds() == 60.0
    now[0] = 27.0
    assert left.seconds() == 55.0
    left.end({"error": "it failed"})
    assert left.seconds() == 35.0
    now[0] = 99.0
    assert left.seconds() is None


def test_the_callback_goes_to_other_processes_without_its_display(tmp_path):
    callback = Jobs()
    callback._view = JobsView(tmp_path, 1, ())
    assert vars(pickle.loads(pickle.dumps(callback))) == {}


def test_a_process_that_shares_the_sweeps_stderr_writes_to_a_log(tmp_path, capfd):
    code = (
        "import os, sys; from pathlib import Path; from rib.sweeps import job_process as j;"
        "j.begin_sweep(); j.report_elsewhere(Path('job.3.json')); print('of the sweep', file=sys.stderr, flush=True);"
        "os.environ[j.SWEEP] = 'elsewhere:1 ' + os.environ[j.SWEEP].partition(' ')[2];"
        "[(j.report_elsewhere(Path(f'job.{n}.json')), os.write(2, b'%d' % n)) for n in (3, 4)]"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)
    assert capfd.readouterr().err == "of the sweep\n"
    assert [(tmp_path / "jobs" / n / "log.txt").read_text() for n in "34"] == ["3", "4"]
