"""Dashboards: the files and requests of W&B are read back, and hold nothing private of this machine."""

from __future__ import annotations

import csv
import gzip
import json
import os
import pty
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import wandb
from wandb.proto import wandb_internal_pb2

import rib.reporting.style  # noqa: F401 - matplotlib lists fonts in the home folder when it is first imported
from rib.analysis import analyze
from rib.config import compose
from rib.config.command_schema import AnalyzeConfig, ReportConfig
from rib.config.schema import PathsConfig
from rib.data.worlds import title_of
from rib.errors import RibError
from rib.loggers import Dashboard, WandB
from rib.loggers.base import shorten_paths
from rib.pipeline import finetune
from rib.reporting.report import report
from rib.runs.run import Run
from rib.runs.store import RunStore

pytestmark = pytest.mark.usefixtures("no_progress")

SHORT = ("epochs=1", "batch_size=26", "data.limit=60", "suite.targets=[imagenet_a,imagenet_r]", "model=mini_tiny")
USER, HOST, HOME = "somebody-private", "host-private", "home-private"
KEY = "0123456789" * 4


@pytest.fixture(autouse=True)
def machine(monkeypatch, cache, tmp_path) -> Iterator[Path]:
    """A machine with names to look for, without a key, and with a home folder of its own, which is returned."""
    home = tmp_path / HOME
    home.mkdir()
    for name in ("MODE", "API_KEY", "BASE_URL", "PROJECT", "ENTITY", "DIR"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    for name in ("CACHE_DIR", "DATA_DIR", "CONFIG_DIR", "ERROR_REPORTING", "SILENT"):
        monkeypatch.setenv(f"WANDB_{name}", "x")  # so that what rib sets is taken back at the end
        if name != "CONFIG_DIR":
            monkeypatch.delenv(f"WANDB_{name}")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(home / "config"))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USER", USER)
    monkeypatch.setenv("LOGNAME", USER)
    monkeypatch.setattr(socket, "gethostname", lambda: HOST)
    monkeypatch.setattr(WandB, "unreachable", "")
    wandb.teardown()
    yield home
    wandb.teardown()


def private(*folders: Path) -> list[str]:
    """Words that must be found nowhere."""
    return [USER, HOST, HOME, str(Path.cwd()), sys.prefix, sys.executable, *map(str, folders)]


def records(file: Path) -> Iterator[Any]:
    """A .wandb file: 7 bytes, then LevelDB's log, blocks of 32 KiB with (crc, length, kind) before each piece."""
    data, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a full record, or the last piece of one
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""


def items(entries: Any) -> dict[str, Any]:
    return {entry.key or ".".join(entry.nested_key): json.loads(entry.value_json) for entry in entries}


def losses(run: Run) -> list[float]:
    """The loss of each step, from the csv log."""
    with (run.folder / "log" / "version_0" / "metrics.csv").open() as stream:
        return [float(row["loss"]) for row in csv.DictReader(stream) if row["loss"]]


class Written:
    """One offline W&B run as it lies on disk."""

    def __init__(self, run: Run | Path) -> None:
        (self.folder,) = ((run if isinstance(run, Path) else run.folder) / "wandb").glob("offline-run-*")
        (self.file,) = self.folder.glob("*.wandb")
        self.records = list(records(self.file))
        (self.run,) = (r.run for r in self.records if r.HasField("run"))
        self.config = items(self.run.config.update)
        self.history = [items(r.history.item) for r in self.records if r.HasField("history")]
        self.summary: dict[str, Any] = {}
        for record in self.records:
            self.summary |= items(record.summary.update)

    def media(self, key: str) -> Path:
        return self.folder / "files" / self.summary[f"{key}.path"]


@pytest.mark.slow
def test_offline_wandb_holds_the_run_and_nothing_of_the_machine(ask_for, store, cache, machine, capsys):
    config = ask_for(*SHORT, "+method=ewc", "logger=wandb", "logger.tags=[mine]", "logger.entity=us")
    run = finetune(config)
    said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("saved ")]
    assert len(said) == 2
    assert all(line.startswith("W&B: offline (No API key configured. Use `wandb login` to log in.); ") for line in said)
    assert said[1].endswith(f"upload later with: WANDB_PROGRAM=rib.train wandb sync {run.folder}/wandb/offline-run-*")

    written, metrics = Written(run), run.metrics()
    assert (written.run.project, written.run.entity) == ("rib", "us")
    assert (written.run.run_group, written.run.job_type) == ("mini_tiny/mini R", "ewc")
    assert written.run.display_name == f"ewc seed 0 {run.key[:6]} (toy data (mini))"
    assert list(written.run.tags) == ["mine", "mini", "seven*"]
    assert written.config["method"]["ewc"]["strength"] == 1
    assert written.config["batch_size"] == 26
    assert written.config["protocol"]["lr"] == metrics["protocol"]["lr"]
    assert written.config["fingerprint"] == metrics["fingerprint"]
    kept = {name: value for name, value in run.read_json("env.json").items() if name not in ("command", "git")}
    assert written.config["environment"] == kept
    assert not {"paths", "logger"} & written.config.keys()
    assert "root" not in written.config["data"]

    steps = [row for row in written.history if "loss" in row]
    assert [row["loss"] for row in steps] == losses(run)
    assert [row["trainer/global_step"] for row in steps] == list(range(len(steps)))
    assert all("penalty/ewc" in row for row in steps)

    improvement = metrics["robustness_improvement"]
    expected = {"RI": improvement["value"], "RI_low": improvement["low"], "RI_high": improvement["high"]}
    for name, entry in metrics["accuracy"].items():
        title = title_of(name, "mini")
        expected |= {f"accuracy/{title}/{when}": entry[when] for when in ("before", "after")}
        expected[f"accuracy/{title}/change"] = entry["change"]["value"]
    assert {key: written.summary[key] for key in expected} == expected

    table = json.loads(written.media("datasets").read_text())
    assert table["columns"] == ["dataset", "role", "images", "before %", "after %", "change", "low", "high"]
    assert {row[0]: row[1] for row in table["data"]} == {
        "mini A": "target",
        "mini R": "source",
        "mini val": "reported",
    }
    for figure in ("change", "loss"):
        assert written.media(f"figures/{figure}").read_bytes() == (run.folder / f"figures/{figure}.png").read_bytes()

    kept = [file for file in (written.folder / "files").rglob("*") if file.is_file()]
    assert {file.suffix for file in kept} == {".png", ".json"}
    for file in [written.file, *kept]:
        found = [word for word in private(store, cache, run.folder) if word.encode() in file.read_bytes()]
        assert not found, file
    text = "\n".join(map(str, written.records))
    assert not re.search(rf"\b{re.escape(socket.getfqdn().partition('.')[0])}\b", text)
    assert [p.name for p in machine.rglob("*") if p.is_file()] == []


@pytest.mark.slow
def test_a_report_is_a_run_of_its_own_with_the_table_and_nothing_of_the_machine(ask_for, store, cache, machine, capsys):
    for method in ("finetune", "wise_ft"):
        finetune(ask_for(*SHORT, f"+method={method}"))
    logger = compose("logger=wandb", "logger.tags=[mine]").logger
    out = store.parent / "out"
    report(ReportConfig(PathsConfig(str(store), str(cache)), logger, str(out), None))
    assert f"wandb sync {out}/wandb/offline-run-*" in capsys.readouterr().err

    wandb.teardown()  # its service writes the file; at the end of a process it is waited for
    written, rows = Written(out), pd.read_csv(out / "summary.csv")
    assert (written.run.project, written.run.run_group, written.run.job_type) == ("rib", "report", "report")
    assert written.run.display_name == "report: toy data (mini), suite seven*"
    assert list(written.run.tags) == ["mine", "mini", "seven*"]
    assert written.config["methods"] == ["finetune", "wise_ft"]
    assert written.config["models"] == ["mini_tiny"]
    for _, row in rows.iterrows():
        keys = [f"mRI/mini_tiny/{row['method']}/{end}" for end in ("value", "low", "high")]
        assert [written.summary[key] for key in keys] == [row["mri"], row["mri_low"], row["mri_high"]]
    table = json.loads(written.media("mRI_table").read_text())
    assert table["columns"] == [column.replace("ri.imagenet_r", "ri.mini R") for column in rows.columns]
    assert written.config["sources"] == ["mini R"]
    assert [row[table["columns"].index("mri")] for row in table["data"]] == list(rows["mri"])
    for figure in ("summary", "comparison"):
        assert written.media(f"figures/{figure}").read_bytes() == (out / f"{figure}.png").read_bytes()
    kept = [file for file in (written.folder / "files").rglob("*") if file.is_file()]
    for file in [written.file, *kept]:
        assert not [word for word in private(store, cache, out) if word.encode() in file.read_bytes()], file
    assert [p.name for p in machine.rglob("*") if p.is_file()] == []


@pytest.mark.slow
def test_tensorboard_shows_a_reports_numbers(ask_for, store, cache):
    reason = "the optional package tensorboard is not installed"
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason=reason)
    finetune(ask_for(*SHORT))
    logger, out = compose("logger=tensorboard").logger, store.parent / "out"
    report(ReportConfig(PathsConfig(str(store), str(cache)), logger, str(out), None))
    events = accumulator.EventAccumulator(str(out / "tensorboard"), {"images": 0, "scalars": 0})
    events.Reload()
    (event,) = events.Scalars("mRI/mini_tiny/finetune/value")
    assert event.value == pytest.approx(pd.read_csv(out / "summary.csv")["mri"].iloc[0])
    assert "figures/summary" in events.Tags()["images"]


@pytest.mark.slow
def test_a_run_from_the_store_is_not_shown_again_and_pretrained_is_shown(ask_for, store):
    options = (*SHORT, "logger=wandb", "logger.offline=true")
    before = finetune(ask_for(*options, "+method=pretrained"))
    written = Written(before)
    assert (written.run.run_group, written.run.job_type) == ("mini_tiny/none", "pretrained")
    assert written.summary["RI"] == 0
    finetune(ask_for(*options, "+method=pretrained"))
    assert len(list(store.rglob("*.wandb"))) == 1
    plain = finetune(ask_for(*SHORT, "logger=none"))
    assert len(list(store.rglob("*.wandb"))) == 1
    weights = plain.weights()
    again = finetune(ask_for(*options, "force=true"))
    assert len(list(store.rglob("*.wandb"))) == 2
    assert Written(again).summary["RI"] == again.metrics()["robustness_improvement"]["value"]
    assert all(torch.equal(weights[name], value) for name, value in again.weights().items())


@pytest.mark.slow
def test_an_analysis_is_a_wandb_run_of_its_own_and_is_shown_once(ask_for, store, cache, machine):
    run = finetune(ask_for(*SHORT))
    config = AnalyzeConfig(
        str(run.folder), paths=PathsConfig(str(store), str(cache)), logger=compose("logger=wandb").logger
    )
    for _ in range(2):
        file = analyze(config)
    written = Written(Run(run.folder / "analysis"))
    assert (written.run.run_group, written.run.job_type) == ("mini_tiny/mini R", "drift")
    assert written.run.display_name == f"drift of finetune {run.key[:6]} (toy data (mini))"
    with file.open() as stream:
        drift = {f"drift/{row['layer']}": float(row["drift"]) for row in csv.DictReader(stream)}
    assert {key: written.summary[key] for key in drift} == pytest.approx(drift, rel=1e-6)
    assert written.media("figures/drift").read_bytes() == file.with_suffix(".png").read_bytes()
    table = json.loads(written.media("drift").read_text())
    assert table["columns"] == ["layer", "drift", "distance", "parameters"]
    for kept in (written.file, *(f for f in (written.folder / "files").rglob("*") if f.is_file())):
        found = [word for word in private(store, cache, run.folder) if word.encode() in kept.read_bytes()]
        assert not found, kept


def test_wandb_disabled_by_its_own_variable_writes_nothing(ask_for, store, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    run = finetune(ask_for(*SHORT, "+method=pretrained", "logger=wandb"))
    assert run.metrics() is not None
    assert list(store.rglob("*.wandb")) == []
    assert "W&B" not in capsys.readouterr().err


@pytest.mark.slow
def test_a_key_without_a_service_ends_offline_and_waits_once(ask_for, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    begun = time.monotonic()
    run = finetune(ask_for(*SHORT, "logger=wandb", "logger.timeout=1"))
    assert time.monotonic() - begun < 12
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("W&B")]
    assert len(said) == 2
    assert all("connection refused" in line for line in said)
    assert Written(run).summary["RI"] == run.metrics()["robustness_improvement"]["value"]
    with pytest.raises(RibError, match=r"logger\.offline=false, but W&B cannot be used: .*connection refused"):
        finetune(ask_for(*SHORT, "seed=1", "logger=wandb", "logger.offline=false"))


@pytest.mark.slow
@pytest.mark.parametrize("answer", ["refused", "never"])
def test_with_the_default_timeout_too_it_takes_seconds(ask_for, monkeypatch, answer):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if answer == "never" else 1
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        finetune(ask_for(*SHORT, "+method=pretrained"))
        begun = time.monotonic()
        run = finetune(ask_for(*SHORT, "logger=wandb"))
        assert time.monotonic() - begun < 12 + run.metrics()["seconds"]["fit"] + run.metrics()["seconds"]["evaluate"]
        assert Written(run).summary["RI"] == run.metrics()["robustness_improvement"]["value"]


@pytest.mark.slow
def test_insisting_on_the_service_without_a_key_is_an_error(ask_for):
    with pytest.raises(RibError, match=r"logger\.offline=false, but W&B cannot be used: No API key configured"):
        finetune(ask_for(*SHORT, "+method=pretrained", "logger=wandb", "logger.offline=false"))
    with pytest.raises(RibError, match=r"logger\.offline: expected true, false or null, got 'maybe'"):
        finetune(ask_for(*SHORT, "+method=pretrained", "logger=wandb", "logger.offline=maybe"))


class Service(BaseHTTPRequestHandler):
    """The part of W&B's service that one run needs; keeps what it is sent."""

    protocol_version = "HTTP/1.1"
    got: list[tuple[str, bytes]]

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
        self.got.append((self.path, str(self.headers).encode() + body))
        answer = self.graphql(json.loads(body)) if self.path == "/graphql" else {}
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_PUT = do_GET = do_POST

    def graphql(self, asked: dict[str, Any]) -> dict[str, Any]:
        given = asked.get("variables") or {}
        name = asked.get("operationName")
        project = {"id": "1", "name": given.get("project"), "entity": {"id": "1", "name": "us"}}
        bucket = {"id": "1", "name": given.get("name"), "displayName": "x", "historyLineCount": 0, "project": project}
        url = f"http://{self.headers['Host']}/upload"
        files = [{"name": file, "uploadUrl": f"{url}/{file}"} for file in given.get("files", [])]
        answers: dict[str | None, Any] = {
            "RunResumeStatus": {"model": None},
            "UpsertBucket": {"upsertBucket": {"bucket": bucket, "inserted": True}},
            "CreateRunFiles": {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}},
            "ServerFeaturesQuery": {"serverInfo": {"features": []}},
        }
        return {"data": answers[name]}


@pytest.fixture
def service(monkeypatch) -> Iterator[str]:
    """Address of a stand-in for W&B, with a key for it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    server.handle_error = lambda *_: None  # W&B drops connections when it is done
    Service.got = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("WANDB_BASE_URL", address)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    yield address
    server.shutdown()
    server.server_close()


def check_what_was_sent(run: Run, *folders: Path) -> None:
    """The results, the figures, the loss of each step; nothing of the machine."""
    uploaded = {path.rpartition("/")[2]: body for path, body in Service.got if path.startswith("/upload/")}
    pictures = [name for name in uploaded if name.endswith(".png")]
    assert {name.partition("_")[0] for name in pictures} == {"change", "loss"}
    assert any(name.endswith(".table.json") for name in uploaded)
    summary = json.loads(uploaded["wandb-summary.json"].partition(b"\n\n")[2])
    assert summary["RI"] == run.metrics()["robustness_improvement"]["value"]
    streamed = b"".join(body for path, body in Service.got if path.endswith("/file_stream"))
    assert all(f'\\"loss\\":{loss}'.encode() in streamed for loss in losses(run))
    for path, body in Service.got:
        found = [word for word in private(run.folder, *folders) if word.encode() in body]
        assert not found, (path, body)


@pytest.mark.slow
def test_online_the_service_gets_the_run_and_nothing_of_the_machine(ask_for, store, cache, service, capsys):
    finetune(ask_for(*SHORT, "+method=pretrained"))
    run = finetune(ask_for(*SHORT, "logger=wandb", "logger.offline=false"))
    said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("saved ")]
    assert len(said) == 1
    assert re.fullmatch(rf"W&B: {service}/us/rib/runs/\w+", said[0])
    check_what_was_sent(run, store, cache)


@pytest.mark.slow
def test_the_command_that_is_told_sends_an_offline_run(ask_for, store, cache, tmp_path, service, monkeypatch, capsys):
    run = finetune(ask_for(*SHORT, "logger=wandb", "logger.offline=true"))
    said = [line for line in capsys.readouterr().err.splitlines() if "upload later with: " in line]
    command = said[-1].partition("upload later with: ")[2]
    assert str(run.folder) in command
    assert Service.got == []
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    subprocess.run(command, shell=True, check=True, cwd=tmp_path, timeout=60)
    check_what_was_sent(run, store, cache)


@pytest.mark.slow
def test_tensorboard_holds_the_run(ask_for, machine):
    reason = "the optional package tensorboard is not installed"
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason=reason)
    finetune(ask_for(*SHORT, "+method=pretrained"))
    run = finetune(ask_for(*SHORT, "logger=tensorboard"))
    events = accumulator.EventAccumulator(str(run.folder / "tensorboard"), {"images": 0, "scalars": 0})
    events.Reload()
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(losses(run))
    assert events.Scalars("RI")[0].value == pytest.approx(run.metrics()["robustness_improvement"]["value"])
    assert set(events.Tags()["images"]) == {"figures/change", "figures/loss"}
    assert [p.name for p in machine.rglob("*") if p.is_file()] == []


class Mine(Dashboard):
    """A user's own, which cannot show results."""

    told: list[str]

    def publish(self, metrics: object, figures: object) -> None:
        raise ConnectionError("the wall is down")

    def close(self, failed: bool) -> None:
        Mine.told.append("failed" if failed else "finished")


@pytest.mark.slow
def test_a_dashboard_that_fails_takes_nothing_from_the_run(ask_for, capsys):
    Mine.told = []
    run = finetune(ask_for(*SHORT, "+method=pretrained", f"+logger._target_={__name__}.Mine", "~logger.name"))
    assert run.metrics() is not None
    assert "the run is finished, but Mine does not show all of it: the wall is down" in capsys.readouterr().err
    wrong = ("optimizer.lr=1e6", "epochs=20", f"+logger._target_={__name__}.Mine", "~logger.name")
    with pytest.raises(RibError, match="try a smaller"):
        finetune(ask_for(*SHORT, *wrong))
    assert Mine.told == ["failed"]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("logger=wandb", "logger.projct=x"), "did you mean logger.project=x?"),
        (("logger=wandb", "+logger.projct=x"), "did you mean logger.project=x?"),
        (("logger=wnadb",), "logger=wnadb: there is no such logger; did you mean logger=wandb?"),
        (("logger=wandb", "logger.tags=mine"), "logger.tags: expected a value like [], got 'mine'"),
    ],
)
def test_a_misspelt_option_is_answered_with_the_right_one(overrides, sentence):
    with pytest.raises(RibError) as error:
        compose(*overrides)
    assert sentence in str(error.value)


def test_of_an_absolute_path_only_the_name_is_shared():
    given = {
        "weights": "/home/me/w.pt",
        "own": ["~/x/t.pt", "C:\\me\\a.pt"],
        "hub": "timm/vit_base",
        "near": "w.pt",
        "n": 3,
        "no": None,
    }
    assert shorten_paths(given) == {
        "weights": "w.pt",
        "own": ["t.pt", "a.pt"],
        "hub": "timm/vit_base",
        "near": "w.pt",
        "n": 3,
        "no": None,
    }


@pytest.mark.slow
def test_of_two_processes_one_shows_the_run(tmp_path, cache):
    line = [sys.executable, "-m", "rib.train", *SHORT, f"paths.runs={tmp_path}/runs", f"paths.cache={cache}"]
    more = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "logger=wandb", "logger.offline=true"]
    done = subprocess.run([*line, *more, "data.root=null"], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("W&B: offline (as requested)") == 2
    run = RunStore(tmp_path / "runs").one(method="finetune")
    assert [row["loss"] for row in Written(run).history if "loss" in row] == losses(run)


@pytest.mark.slow
def test_in_a_terminal_too_nobody_is_asked_for_a_key(tmp_path, cache, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = pty.openpty()
    line = [sys.executable, "-m", "rib.train", *SHORT, f"paths.runs={tmp_path}/runs", f"paths.cache={cache}"]
    line += ["+method=pretrained", "logger=wandb", "data.root=null", "trainer=cpu"]
    done = subprocess.run(line, stdin=theirs, stdout=subprocess.DEVNULL, stderr=theirs, timeout=100)
    os.close(theirs)
    said = os.read(ours, 100_000).decode()
    os.close(ours)
    assert done.returncode == 0, said
    assert "W&B: offline (No API key configured" in said
