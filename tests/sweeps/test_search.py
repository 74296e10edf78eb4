"""Choice of the learning rate by images held out of the source, never by a target."""

from __future__ import annotations

import csv
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from rib.config.check import check_config
from rib.config.command_schema import ReportConfig, SearchConfig
from rib.config.launch import normalise_arguments
from rib.config.schema import PathsConfig
from rib.config.unchecked import compose_node
from rib.data.transform import read_image
from rib.errors import RibError
from rib.models.build import build
from rib.pipeline import finetune
from rib.reporting.report import report
from rib.runs.archive import export_runs, import_runs
from rib.runs.measure import read_paths
from rib.runs.resolve import resolve
from rib.runs.store import RunStore
from rib.runs.trials import mark_trial, trials_in
from rib.sweeps import search

QUICK = ("model=mini_small", "epochs=1", "data.images_per_class=4", "suite.reported=[]", "batch_size=32")
SOURCE_ALONE = (*QUICK, "suite.targets=[imagenet_r]")


def correct_by_hand(spec, run) -> int:
    """Images of the held-out part that a run's model names right, one at a time."""
    model = build(spec.start).eval()
    model.backbone.load_state_dict(run.weights())
    tree = spec.held_out
    hits = 0
    for path, label in zip(tree.paths, tree.labels, strict=True):
        image = read_image(tree.folder / path, spec.start.transform)
        with torch.inference_mode():
            logits = model(image[None])[0]
        scores = [max(float(logits[k]) for k in group) for group in tree.spec.groups]
        hits += int(np.argmax(scores)) == label
    return hits


@pytest.fixture
def searched(store, cache):
    """Searches as the command line would, in this test's own store; gives the rows of trials.csv."""

    def run(*overrides: str) -> list[dict[str, str]]:
        given = normalise_arguments([*overrides, f"paths.runs={store}", f"paths.cache={cache}", "trainer=cpu"])
        config = check_config(compose_node("search", *given, "data.root=null"), SearchConfig)
        folder = search.search(config, given)
        assert (folder / "trials.png").is_file()
        with (folder / "trials.csv").open() as file:
            return list(csv.DictReader(file))

    return run


@pytest.mark.slow
@pytest.mark.parametrize("targets", ["imagenet_a,imagenet_r", "imagenet_a"], ids=["source scored", "source not scored"])
def test_a_run_knows_its_accuracy_on_what_was_held_out(ask_for, store, targets):
    config = ask_for(*QUICK, f"suite.targets=[{targets}]", "data.holdout=.2", "optimizer.lr=.02")
    run, spec = finetune(config), resolve(config)
    held_out = run.metrics()["held_out"]
    number = len(spec.held_out)
    before = RunStore(store).one(method="pretrained")
    assert number > 40
    assert held_out["num_images"] == number
    assert held_out["after"] == pytest.approx(correct_by_hand(spec, run) / number, abs=1e-12)
    assert held_out["before"] == pytest.approx(correct_by_hand(spec, before) / number, abs=1e-12)
    assert held_out["before"] != held_out["after"]
    assert not set(spec.held_out.paths) & set(spec.source.paths)
    assert read_paths(store, held_out["images"]) == list(spec.held_out.paths)
    # It is none of the datasets, and costs no pass of its own where the source is scored anyway.
    assert set(run.metrics()["accuracy"]) == set(targets.split(","))
    apart = list(run.folder.glob("predictions/imagenet_r.held_out.*.npz"))
    assert len(apart) == (0 if "imagenet_r" in targets else 1)


@pytest.mark.slow
def test_the_pretrained_run_serves_every_holdout(ask_for, store):
    runs = [finetune(ask_for(*SOURCE_ALONE, f"data.holdout={part}")) for part in (0.2, 0.3)]
    assert len({run.metrics()["before"] for run in runs}) == 1
    before = RunStore(store).one(method="pretrained")
    assert [file.name for file in before.folder.glob("metrics*.json")] == ["metrics.json"]
    assert "held_out" not in before.metrics()
    assert runs[0].metrics()["held_out"]["num_images"] < runs[1].metrics()["held_out"]["num_images"]


@pytest.mark.slow
def test_nothing_held_out_is_nothing_said(ask_for):
    assert "held_out" not in finetune(ask_for(*SOURCE_ALONE)).metrics()


@pytest.mark.slow
def test_merged_weights_are_scored_on_it_too(ask_for):
    config = ask_for(*SOURCE_ALONE, "data.holdout=.2", "optimizer.lr=.02", "method=wise_ft")
    run, spec = finetune(config), resolve(config)
    assert run.metrics()["held_out"]["after"] == correct_by_hand(spec, run) / len(spec.held_out)


@pytest.mark.slow
def test_a_search_ends_with_the_best_on_held_out_images_and_goes_on(searched, store, ask_for, capsys, monkeypatch):
    asked = ("+method=ewc", *SOURCE_ALONE, "data.holdout=.2", "search.lr=[1e-4,3e-2]")
    assert len(searched(*asked, "trials=2")) == 2
    rows = searched(*asked, "trials=3")
    settings = {(row["optimizer.lr"], row["method.ewc.strength"]) for row in rows}
    assert [len(rows), len(settings), len(RunStore(store).finished(method="ewc"))] == [3, 3, 3]
    values = [float(row["held_out"]) for row in rows]
    assert values == sorted(values, reverse=True)
    assert all(1e-4 <= float(lr) <= 3e-2 and 1e-2 <= float(strength) <= 1e2 for lr, strength in settings)

    monkeypatch.setattr("rib.pipeline.make", lambda *_: pytest.fail("a trial was made again"))
    capsys.readouterr()
    assert searched(*asked, "trials=3") == rows
    trial, whole = [line.strip() for line in capsys.readouterr().out.splitlines() if "rib.train" in line]
    best = finetune(ask_for(*(o for o in shlex.split(trial)[3:] if not o.startswith(("paths.", "trainer=")))))
    spec = resolve(ask_for(*asked[:-1], *(f"{k}={rows[0][k]}" for k in ("optimizer.lr", "method.ewc.strength"))))
    assert best.key == spec.training_key == rows[0]["fingerprint"]
    assert values[0] == pytest.approx(correct_by_hand(spec, best) / len(spec.held_out), abs=1e-12)
    assert trial == f"{whole} data.holdout=0.2"


@pytest.mark.slow
def test_trials_are_told_from_runs_made_for_their_own_sake(searched, store, ask_for):
    asked = (*SOURCE_ALONE, "data.holdout=.2", "search.lr=[1e-4,3e-2]", "trials=2")
    rows = searched(*asked)
    assert trials_in(RunStore(store)) == {row["fingerprint"] for row in rows}
    shutil.rmtree(store / "searches")
    assert searched(*asked) == rows
    assert trials_in(RunStore(store)) == set(), "what was there before a search is no trial of it"
    own = finetune(ask_for(*SOURCE_ALONE, "data.holdout=.2", "optimizer.lr=.007"))
    assert own.key not in trials_in(RunStore(store))


@pytest.mark.slow
def test_trials_stay_out_of_the_report_unless_asked_for(searched, store, ask_for, tmp_path, capsys):
    rows = searched(*SOURCE_ALONE[:-1], "suite.targets=[imagenet_a,imagenet_r]", "search.lr=[1e-4,3e-2]", "trials=2")
    own = finetune(ask_for(*SOURCE_ALONE[:-1], "suite.targets=[imagenet_a,imagenet_r]", "data.holdout=.1"))
    for shown, count in ((False, 1), (True, 3)):
        config = ReportConfig(PathsConfig(str(store), None), {"name": "none"}, str(tmp_path), None, shown)
        files = report(config)
        assert len(pd.read_csv(tmp_path / "runs.csv")) == count
        table = pd.read_csv(tmp_path / "summary.csv")
        assert table["is_trial"].sum() == count - 1
        assert tmp_path / "summary.csv" in files
        said = "left out of the report: 2 results of rib.search trials; include them with search_trials=true"
        assert (said in capsys.readouterr().err) == (not shown)
    bold = [line for line in (tmp_path / "summary.md").read_text().splitlines() if "**" in line]
    assert len(bold) == 1
    assert "(search trial)" not in bold[0]
    shutil.rmtree(own.folder)
    with pytest.raises(RibError, match=r"expected finished runs"):
        report(ReportConfig(PathsConfig(str(store), None), {"name": "none"}, str(tmp_path), None))
    assert len(rows) == 2


def test_what_a_trial_is_made_from_is_a_trial_too(ask_for, store):
    spec = resolve(ask_for(*SOURCE_ALONE, "+method=lp_ft"))
    (probe,) = spec.needs
    mark_trial(spec, RunStore(store), store / "searches" / "some")
    assert trials_in(RunStore(store)) == {spec.training_key, probe.key}


@pytest.mark.slow
def test_a_trial_is_one_in_another_store_too(searched, store, tmp_path):
    rows = searched(*SOURCE_ALONE, "data.holdout=.2", "search.lr=[1e-4,3e-2]", "trials=2")
    export_runs(RunStore(store), tmp_path / "runs.tar")
    elsewhere = RunStore(tmp_path / "elsewhere")
    import_runs(elsewhere, tmp_path / "runs.tar")
    assert trials_in(elsewhere) == {row["fingerprint"] for row in rows}
    shutil.rmtree(elsewhere.root / "searches")
    import_runs(elsewhere, tmp_path / "runs.tar")
    assert trials_in(elsewhere) == set(), "they were there before"


@pytest.mark.slow
def test_a_trial_whose_process_is_gone_is_taken_up_as_it_was(searched, store, monkeypatch):
    asked, keys = (*SOURCE_ALONE, "trials=2", "search.lr=[1e-4,3e-2]"), []
    get_or_make = search.get_or_make

    def interrupted(spec, runs):
        keys.append(spec.training_key)
        if len(keys) == 2:
            raise KeyboardInterrupt
        return get_or_make(spec, runs)

    monkeypatch.setattr(search, "get_or_make", interrupted)
    with pytest.raises(KeyboardInterrupt):
        searched(*asked)
    rows = searched(*asked)
    assert keys[1] == keys[2]
    assert {row["fingerprint"] for row in rows} == set(keys)
    assert sorted(row["trial"] for row in rows) == ["0", "1"]


@pytest.mark.slow
def test_a_trial_that_diverges_is_a_bad_one_and_not_the_end(searched):
    rows = searched(*SOURCE_ALONE, "epochs=3", "trials=3", "search.lr=[1e-7,1e7]")
    done, lost = ([row for row in rows if bool(row["held_out"]) is which] for which in (True, False))
    assert rows == [*done, *lost]
    assert max(float(row["optimizer.lr"]) for row in done) < min(float(row["optimizer.lr"]) for row in lost)
    with pytest.raises(RibError, match="all 1 trials diverged"):
        searched(*SOURCE_ALONE, "epochs=3", "trials=1", "search.lr=[1e7,1e8]")


WRONG = [
    (("objective=ri",), r"objective=ri: expected held_out; .* on a target, or on RI, .* number for it is meaningless"),
    (("objective=imagenet_a",), "objective=imagenet_a: expected held_out"),
    (
        ("data.holdout=0",),
        r"data\.holdout: expected a fraction above 0, got 0; a setting cannot be chosen on",
    ),
    (("trials=0",), "trials: expected 1 or more"),
    (("search.lr=[1,.1]",), r"search\.lr: expected \[lowest, highest\] with 0 < lowest < highest"),
    (("search.lr=[0,.1]",), r"search\.lr: expected \[lowest, highest\]"),
    (("optimizer.lr=.1",), r"optimizer\.lr is both given and searched; .* search\.lr=null"),
    (("+method=ewc", "method.ewc.strength=2"), r"method\.ewc\.strength is both given and searched"),
    (("+method=[ewc,lwf]",), r"expected one method with a strength, got method\.ewc\.strength and method\.lwf"),
    (("search.lr=null",), "nothing to search: finetune has no strength"),
    (("+method=pretrained",), "pretrained does not train"),
]


@pytest.mark.parametrize(("overrides", "sentence"), WRONG, ids=[" ".join(o) for o, _ in WRONG])
def test_what_may_not_choose_is_refused_in_a_sentence(searched, store, overrides, sentence):
    with pytest.raises(RibError, match=sentence) as error:
        searched(*SOURCE_ALONE, *overrides)
    assert "\n" not in str(error.value)
    assert RunStore(store).finished() == []


@pytest.mark.slow
def test_two_at_once_share_a_study(store, cache):
    command = [sys.executable, "-m", "rib.search", *SOURCE_ALONE, "trials=5", "search.lr=[1e-4,3e-2]", "trainer=cpu"]
    command += [f"paths.runs={store}", f"paths.cache={cache}", "data.root=null"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ends = [process.communicate(timeout=250) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    folder = Path(ends[0][0].splitlines()[-1])
    assert ends[1][0].splitlines()[-1] == str(folder)
    rows = list(csv.DictReader((folder / "trials.csv").read_text().splitlines()))
    assert (
        len(rows) == len({row["optimizer.lr"] for row in rows}) == len(RunStore(store).finished(method="finetune")) == 5
    )
