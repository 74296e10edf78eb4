"""Types and JSON Schemas of the files that rib writes: reader, writer and schema agree."""

from __future__ import annotations

import copy
import json
from importlib.resources import files

import pytest
from jsonschema import Draft202012Validator, ValidationError

from rib.errors import DamagedError
from rib.pipeline import finetune
from rib.runs.metrics_file import check
from rib.runs.run import Run
from rib.runtime import progress
from rib.schemas import TYPES, kind_of, load
from rib.schemas.__main__ import write_schemas
from rib.schemas.check import checker, faults
from rib.schemas.metrics import Metrics
from rib.sweeps.cell import record_failure
from tests.support import whole
from tests.support.schemas import check_files, validate

WRONG = [
    ("seed", "0"),
    ("seed", 0.5),
    ("seed", True),
    ("notes", {"ewc.scale": "1"}),
    ("notes", []),
    ("options", None),
    ("seconds.fit", None),
    ("protocol.processes", "2"),
    ("protocol.targets", ["imagenet_a", 7]),
    ("trained_on", {"num_images": 9}),
    ("accuracy.imagenet_a", {}),
    ("accuracy.imagenet_a.cells", {"fog/1": {"before": 0.5, "after": 0.5}}),
    ("accuracy.imagenet_a.change.low", "0"),
    ("robustness_improvement.targets", "imagenet_a"),
    ("robustness_improvement.without_derived", {"value": 0.0, "low": 0.0, "high": 0.0}),
    ("scores.imagenet_a", None),
    ("curve", [{"label": 0.5, "accuracy": {}, "robustness_improvement": None}]),
    ("held_out", None),
    ("ingredients", {}),
]
"""Values that some key of metrics.json must not have."""

RIGHT = [
    ("more", "is ignored"),
    ("seed", None),
    ("trained_on", None),
    ("robustness_improvement", None),
    ("robustness_improvement.without_derived", None),
    ("seconds.fit", 7),
    ("accuracy.imagenet_a.cells", {"fog/1": {"before": 0.5, "after": 0.5, "num_images": 1}}),
    ("curve", [{"label": "0.5", "accuracy": {}, "robustness_improvement": None}]),
    ("options", {"method.ewc.strength": [1, None]}),
]


def changed(name: str, value: object) -> dict:
    """Metrics with another value under a dotted name."""
    metrics = copy.deepcopy(whole.metrics())
    *parents, last = name.split(".")
    node = metrics
    for parent in parents:
        node = node[parent]
    node[last] = value
    return metrics


def test_the_shipped_schemas_are_those_of_the_types(tmp_path):
    write_schemas(tmp_path)
    made = {file.name: file.read_text() for file in tmp_path.iterdir()}
    shipped = {file.name: file.read_text() for file in files("rib.schemas").iterdir() if file.name.endswith(".json")}
    assert made == shipped, "run python -m rib.schemas"


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_each_is_a_json_schema_that_describes_every_key(kind):
    schema = load(kind)
    Draft202012Validator.check_schema(schema)
    for part in (schema, *schema["$defs"].values()):
        assert part["description"].endswith(".")
        assert part["required"]
        assert all(entry["description"].endswith(".") for entry in part["properties"].values())


def test_metrics_are_right_to_begin_with():
    validate(whole.metrics(), "metrics")
    assert not list(faults(whole.metrics(), Metrics))


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_reader_writer_and_schema_refuse_the_same(tmp_path, name, value):
    metrics = changed(name, value)
    with pytest.raises(ValidationError):
        validate(metrics, "metrics")
    with pytest.raises(DamagedError, match=r"metrics.json is damaged: .*delete it and run the same command again"):
        check(tmp_path / "metrics.json", metrics)
    with pytest.raises(TypeError, match=r"metrics.json: .*; expected content as in rib/schemas/metrics.json"):
        Run(tmp_path).write_json("metrics.json", metrics)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "value"), RIGHT)
def test_reader_writer_and_schema_allow_the_same(tmp_path, name, value):
    metrics = changed(name, value)
    validate(metrics, "metrics")
    Run(tmp_path).write_json("metrics.json", metrics)
    assert Run(tmp_path).metrics() == metrics


def test_the_fast_check_says_what_the_slow_one_does():
    """The same verdict on metrics with any value anywhere replaced by another."""

    def places(value):
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            yield value, key
            yield from places(value[key])

    verdicts = set()
    for number in range(len(list(places(whole.metrics())))):
        for wrong in (None, True, 1, 1.5, "x", [], {}, [1], {"a": 1}):
            metrics = copy.deepcopy(whole.metrics())
            holder, key = list(places(metrics))[number]
            holder[key] = wrong
            expected = not list(faults(metrics, Metrics))
            assert checker(Metrics)(metrics) is expected, (key, wrong)
            verdicts.add(expected)
    assert verdicts == {True, False}


@pytest.mark.parametrize("name", sorted(whole.metrics()))
def test_a_key_of_every_version_is_required(tmp_path, name):
    metrics = whole.metrics()
    del metrics[name]
    with pytest.raises(ValidationError):
        validate(metrics, "metrics")
    assert list(faults(metrics, Metrics)) == [f"it has no {name}"]


def test_kinds_go_by_the_files_name(tmp_path):
    names = ("metrics.json", "metrics.paper_changed.0123.json", "job.12.json", "job.old.json", "cka.json", "fit.csv")
    assert [kind_of(tmp_path / name) for name in names] == ["metrics", "metrics", "job", None, None, None]


@pytest.mark.slow
def test_every_file_of_a_run_is_seen_and_as_its_schema_says(ask_for, store):
    quick = ("model=mini_tiny", "epochs=1", "data.images_per_class=4", "data.limit=100", "data.holdout=.5")
    run = finetune(ask_for(*quick, "suite=paper", "+method=wise_ft", "method.wise_ft.curve=[0,1]"))
    assert {"curve", "ingredients", "best_ingredient", "held_out"} <= run.metrics().keys()
    assert "cells" in run.metrics()["accuracy"]["imagenet_c"]
    assert check_files([store]) == {"metrics": 3, "fit": 3, "scoring": 3, "env": 3, "made_from": 1}


def test_the_files_of_a_cell_are_as_their_schemas_say(tmp_path, monkeypatch):
    record_failure(tmp_path, "it failed")
    board = progress._Board()
    monkeypatch.setattr(progress, "_BOARD", board)
    monkeypatch.setattr(board, "start", lambda: None)
    progress.report_to(tmp_path / "progress.json", lines=False)
    with progress.progress("fine-tuning", 10) as advance:
        board._show()
        assert json.loads((tmp_path / "progress.json").read_text())["seconds_left"] is None
        advance(5, "")
        board._last_report = 0.0
        board._show()
    assert json.loads((tmp_path / "progress.json").read_text())["done"] == 5
    assert check_files([tmp_path]) == {"failed": 1, "progress": 1}


def test_a_file_that_is_not_as_its_schema_says_fails_the_tests_that_left_it(tmp_path, monkeypatch):
    (tmp_path / "fit.json").write_text('{"seconds": 1.0}')
    assert check_files([tmp_path]) == {}  # rib does not read it: a test has damaged it
    monkeypatch.setattr("rib.runs.metrics_file.checker", lambda kind: lambda content: True)
    with pytest.raises(AssertionError, match=r"fit.json is not as rib/schemas/fit.json says: .*'notes' is a required"):
        check_files([tmp_path])
    (tmp_path / "fit.json").unlink()
