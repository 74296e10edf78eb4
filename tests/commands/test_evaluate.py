"""Scoring of finished runs: many in one pass equal each on its own; weights from elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rib.config import compose
from rib.config.check import check_config
from rib.config.command_schema import EvaluateConfig, ReportConfig
from rib.config.schema import PathsConfig
from rib.config.spelling import spell_override
from rib.config.unchecked import compose_node
from rib.data import crop_cache
from rib.errors import RibError
from rib.pipeline import finetune
from rib.reporting.report import report
from rib.runs.keys import NUMERICS
from rib.runs.run import Run
from rib.runs.store import RunStore
from rib.sweeps.rescore import evaluate, evaluate_results
from rib.sweeps.run_paths import matching_paths

QUICK = ("epochs=1", "data.images_per_class=3", "data.limit=60")
OLD = ("suite.targets=[imagenet_a,imagenet_r]", "suite.reported=[]")
NEW = ("suite.name=later", "suite.targets=[imagenet_a,imagenet_r,imagenet_v2]", "suite.reported=[]")
MADE = {
    "plain": ("model=mini_tiny",),
    "seed": ("model=mini_tiny", "seed=1"),
    "small": ("model=mini_small",),
    "curve": ("model=mini_tiny", "+method=wise_ft", "method.wise_ft.curve=[0,1]"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory, cache):
    """A store of four runs and what they need, scored on two datasets; never written to again."""
    folder = tmp_path_factory.mktemp("made") / "runs"
    patch = pytest.MonkeyPatch()
    patch.setattr("rib.reporting.run_figures.draw_run", lambda *_: None)
    for options in MADE.values():
        finetune(
            compose(
                f"paths.runs={folder}", f"paths.cache={cache}", "trainer=cpu", "data.root=null", *options, *QUICK, *OLD
            )
        )
    patch.undo()
    return folder


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch):
    """They take most of the time, and are tested elsewhere."""
    monkeypatch.setattr("rib.reporting.run_figures.draw_run", lambda *_: None)


@pytest.fixture
def old(made, store):
    """A copy of it."""
    shutil.copytree(made, store)
    return RunStore(store)


@pytest.fixture
def ask_evaluate(store, cache):
    def make(*overrides: str) -> EvaluateConfig:
        fixed = (f"paths.runs={store}", f"paths.cache={cache}", "trainer=cpu", "data.root=null", "data.workers=0")
        return check_config(compose_node("evaluate", *fixed, *overrides), EvaluateConfig)

    return make


def facts(run: Run, suite: str) -> dict:
    metrics = run.metrics(suite)
    assert metrics is not None
    return {k: v for k, v in metrics.items() if k != "seconds"}


def columns(store: Path) -> dict[str, dict[str, np.ndarray]]:
    return {str(f.relative_to(store)): dict(np.load(f)) for f in sorted(store.glob("**/predictions/**/*.npz"))}


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(
        a.keys() == other[name].keys() and all(np.array_equal(a[c], other[name][c]) for c in a)
        for name, a in one.items()
    )


@pytest.mark.slow
def test_one_pass_decodes_each_image_once_and_gives_every_run_what_it_would_have_got_alone(
    old, ask_evaluate, ask_for, made, tmp_path, monkeypatch, capfd
):
    read = []
    original = crop_cache.crop
    monkeypatch.setattr(crop_cache, "crop", lambda content, *a: read.append(content) or original(content, *a))
    runs = evaluate(ask_evaluate(f"runs={old.root}/**/imagenet_r/*/*", *NEW, "data.cache=off"))
    assert len(runs) == 4
    # mini_tiny and mini_small see images alike: 2 starts, 3 fine-tunes, and WiSE-FT with its curve of 0, 0.5 and 1.
    assert "9 models of 6 runs on suite later, 9 models at a time" in capfd.readouterr().err
    assert len(read) == len(set(read)) == 60
    alone = RunStore(shutil.copytree(made, tmp_path / "alone"))
    for options in MADE.values():
        run = finetune(ask_for(*options, *QUICK, *NEW, f"paths.runs={alone.root}"))
        assert facts(run, "later") == facts(Run(old.root / run.folder.relative_to(alone.root)), "later")
    assert same(columns(alone.root), columns(old.root))
    assert len(list(old.root.glob("*/*/*/*/*/metrics.later.json"))) == 6


@pytest.mark.slow
def test_a_pass_that_does_not_fit_is_two_with_the_same_bits(old, ask_evaluate, made, tmp_path, capfd):
    evaluate(ask_evaluate(f"runs={old.root}/**/finetune/*", *NEW))
    assert "5 models of 5 runs on suite later, 5 models at a time" in capfd.readouterr().err
    other = shutil.copytree(made, tmp_path / "other")
    evaluate(ask_evaluate(f"runs={other}/**/finetune/*", *NEW, "models_at_a_time=2"))
    assert "5 models of 5 runs on suite later, 2 models at a time" in capfd.readouterr().err
    assert same(columns(old.root), columns(other))


@pytest.mark.slow
def test_ensembles_and_soups_with_a_model_a_target_are_scored_like_alone(ask_for, ask_evaluate, store, tmp_path):
    kinds = (
        ("+method=output_ensemble",),
        (
            "+method=rib_soup",
            "method.rib_soup.ingredients=['finetune dataset=imagenet_a','finetune dataset=imagenet_v2']",
        ),
    )
    for options in kinds:
        finetune(ask_for("model=mini_tiny", *options, *QUICK, *OLD))
    alone = shutil.copytree(store, tmp_path / "alone")
    evaluate(ask_evaluate(f"runs={store}/**/imagenet_r/*/*", *NEW))
    for options in kinds:
        run = finetune(ask_for("model=mini_tiny", *options, *QUICK, *NEW, f"paths.runs={alone}"))
        assert facts(run, "later") == facts(Run(store / run.folder.relative_to(alone)), "later")
    assert same(columns(alone), columns(store))


@pytest.mark.slow
def test_what_is_scored_is_not_scored_again_unless_forced(old, ask_evaluate, monkeypatch):
    asked = (f"runs={old.root}/**/finetune/*", *OLD)
    (run, *_) = evaluate(ask_evaluate(*asked))
    file = next((run.folder / "predictions").glob("*.npz"))
    before, metrics = file.stat().st_mtime_ns, facts(run, "seven*")
    monkeypatch.setattr("rib.sweeps.rescore._score", lambda *_: pytest.fail("there is nothing to score"))
    assert evaluate(ask_evaluate(*asked))[0] == run
    monkeypatch.undo()
    file.write_bytes(b"damaged")
    evaluate(ask_evaluate(*asked, "force=true"))
    assert file.stat().st_mtime_ns > before
    assert facts(run, "seven*") == metrics
    assert [f.name for f in run.folder.glob("metrics*")] == ["metrics.json"]


def test_a_target_of_the_users_own_suite_is_scored_later(old, ask_evaluate, tmp_path, monkeypatch):
    monkeypatch.setattr("rib.training.fit._train", lambda *_: pytest.fail("nothing may be trained"))
    (tmp_path / "conf" / "suite").mkdir(parents=True)
    (tmp_path / "conf" / "suite" / "mine.yaml").write_text(
        "name: mine\nsources: [imagenet_r]\ntargets: [imagenet_a, imagenet_sketch]\nreported: [imagenet_val]\n"
    )
    (run,) = evaluate(
        ask_evaluate(
            f"runs={old.root}/**/mini_small/imagenet_r/*/*", f"hydra.searchpath=[{tmp_path}/conf]", "suite=mine"
        )
    )
    metrics = run.metrics("mine")
    assert metrics["robustness_improvement"]["targets"] == ["imagenet_a", "imagenet_sketch"]
    assert set(metrics["accuracy"]) == {"imagenet_a", "imagenet_sketch", "imagenet_val"}
    assert metrics["accuracy"]["imagenet_a"] == run.metrics("seven*")["accuracy"]["imagenet_a"]


def test_a_pattern_that_matches_no_run_and_options_that_would_be_ignored_are_refused(old, ask_evaluate):
    for wrong, sentence in (
        (("runs=nowhere/*",), "runs: expected folders of finished runs; nowhere/.* matches nothing"),
        ((f"runs={old.root}/**/finetune/*", "seed=3"), "seed: finished runs keep their own value"),
        ((f"runs={old.root}/**/finetune/*", "data.limit=3"), r"data\.limit: finished runs keep their own"),
        ((), "expected either runs="),
        (("weights=nowhere.pt", "model=mini_tiny"), r"weights: expected a file of weights, there is no nowhere\.pt"),
    ):
        with pytest.raises(RibError, match=sentence):
            evaluate(ask_evaluate(*wrong))


@pytest.mark.slow
def test_a_data_root_that_runs_on_toy_data_would_ignore_is_refused(old, ask_evaluate, tmp_path, monkeypatch):
    asked = ask_evaluate(f"runs={old.root}/**/finetune/*", f"data.root={tmp_path}", *OLD)
    assert len(evaluate(asked)) == 3  # of RIB_DATA in the environment, say
    with pytest.raises(RibError, match=r"data\.root=.*: these runs are on toy data \(mini\), .*; leave data\.root out"):
        evaluate(replace(asked, given=["runs", "data.root"]))
    one = min(old.root.glob("mini/mini_tiny/imagenet_r/finetune/*"))
    with pytest.raises(RibError, match=r"data\.root=/nowhere: this run is on toy data"):
        evaluate(replace(ask_evaluate(f"runs={one}", "data.root=/nowhere"), given=["data.root"]))
    toy = ask_evaluate(f"runs={one}", "data.root=mini", *OLD)
    assert len(evaluate(replace(toy, given=["data.root"]))) == 1


@pytest.mark.slow
def test_a_run_of_another_version_is_named_and_the_others_are_scored(old, ask_evaluate):
    changed = old.one(model="mini_tiny", method="finetune", seed=1)
    file = changed.folder / "config.yaml"
    file.write_text(file.read_text().replace("seed: 1", "seed: 2"))
    with pytest.raises(RibError, match=rf"1 of the runs could not be scored.*{changed.key}: it was made by another"):
        evaluate(ask_evaluate(f"runs={old.root}/**/finetune/*", *NEW))
    assert changed.metrics("later") is None
    assert old.one(model="mini_small", method="finetune").metrics("later") is not None


def test_lost_weights_stop_no_other_run(old, ask_evaluate):
    lost = old.one(model="mini_tiny", method="finetune", seed=1)
    lost.weights_file.write_bytes(b"damaged")
    with pytest.raises(RibError, match=rf"1 of the runs could not be scored.*{lost.key}: .*cannot read"):
        evaluate(ask_evaluate(f"runs={old.root}/**/finetune/*", *NEW))
    assert lost.metrics("later") is None
    assert old.one(model="mini_tiny", method="finetune", seed=0).metrics("later") is not None


@pytest.fixture
def elsewhere(old, tmp_path):
    """Weights as other people's code saves them."""
    state = old.one(model="mini_tiny", method="finetune", seed=0).weights()
    file = tmp_path / "theirs.pt"
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, file)
    return file


@pytest.mark.slow
def test_weights_from_elsewhere_are_a_run_that_equals_the_one_they_are_of(old, ask_evaluate, elsewhere, tmp_path):
    said = ("dataset=imagenet_r", "precision=32-true", "data.limit=60")
    given = (f"weights={elsewhere}", "model=mini_tiny", *said, *OLD)
    (run,) = evaluate(ask_evaluate(*given))
    own = old.one(model="mini_tiny", method="finetune", seed=0)
    assert run.folder.parts[-5:-1] == ("mini", "mini_tiny", "imagenet_r", "external")
    metrics, expected = run.metrics(), own.metrics()
    for name in ("accuracy", "robustness_improvement", "before", "num_parameters", "scores", "data"):
        assert metrics[name] == expected[name]
    assert (metrics["method"], metrics["seed"]) == ("external", None)
    assert metrics["options"]["method.external.name"] == "theirs"
    moved = shutil.move(elsewhere, tmp_path / "moved.pt")
    (again,) = evaluate(
        ask_evaluate(f"weights={moved}", *given[1:], "name=theirs", "seed=5", "epochs=3", "batch_size=8")
    )
    assert again == run
    Path(moved).unlink()
    (later,) = evaluate(ask_evaluate(f"runs={old.root}/**/external/*", *NEW))
    assert later.metrics("later")["accuracy"]["imagenet_v2"]["num_images"] == 60
    written = report(ReportConfig(PathsConfig(str(old.root), None), {"name": "none"}, str(tmp_path / "report"), None))
    table = next(f for f in written if f.name == "runs.csv").read_text()
    assert {"external", "finetune"} <= set(table.replace("\n", ",").split(","))


def test_without_a_source_every_set_is_a_target(old, ask_evaluate, elsewhere):
    (run,) = evaluate(ask_evaluate(f"weights={elsewhere}", "model=mini_tiny", "data.limit=60", *OLD))
    assert run.metrics()["source"] == "none"
    assert run.metrics()["robustness_improvement"]["targets"] == ["imagenet_a", "imagenet_r"]


def test_weights_that_do_not_fit_leave_nothing(ask_evaluate, store, tmp_path, old, elsewhere):
    torch.save({"head.weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(RibError, match=r"other\.pt does not fit vit_mini"):
        evaluate(ask_evaluate(f"weights={tmp_path}/other.pt", "model=mini_tiny"))
    assert not list(store.glob("*/*/*/external"))
    with pytest.raises(RibError, match=r"model: .*give model=NAME"):
        evaluate(ask_evaluate(f"weights={elsewhere}"))
    with pytest.raises(RibError, match="dataset=imagenet_x"):
        evaluate(ask_evaluate(f"weights={elsewhere}", "model=mini_tiny", "dataset.name=imagenet_x"))


@pytest.mark.slow
def test_another_name_or_precision_rewrites_the_metrics_and_scores_nothing(old, ask_evaluate, monkeypatch):
    file = next(old.root.glob("mini/mini_small/imagenet_r/finetune/*/weights.safetensors"))
    said = ("model=mini_small", f"weights={file}", "dataset=imagenet_r")
    (first,) = evaluate(ask_evaluate(*said, "name=one"))
    monkeypatch.setattr("rib.scoring.one_pass.score_together", lambda *_: pytest.fail("nothing may be scored"))
    (again,) = evaluate(ask_evaluate(*said, "name=two", "precision=bf16-mixed"))
    assert again == first
    (metrics,) = again.all_metrics()
    assert metrics["options"]["method.external.name"] == "two"
    assert metrics["protocol"]["precision"] == "bf16-mixed"
    assert "name: two" in (again.folder / "config.yaml").read_text()


def name_of(run):
    return run.metrics()["options"]["method.external.name"]


@pytest.mark.slow
def test_weights_keep_their_name_in_the_store_until_another_one_is_given(old, ask_evaluate, elsewhere, tmp_path, capfd):
    given = ("model=mini_tiny", "dataset=imagenet_r", "data.limit=60", *OLD)
    (run,) = evaluate(ask_evaluate(f"weights={elsewhere}", *given))
    assert "in the store as" not in capfd.readouterr().err
    (again,) = evaluate(ask_evaluate(f"weights={elsewhere}", *given, "name=epoch3"))
    said = "name: these weights are in the store as theirs; renamed to epoch3\n"
    assert capfd.readouterr().err.count(said) == 1
    evaluate(ask_evaluate(f"weights={elsewhere}", *given))
    err = capfd.readouterr().err
    assert "these weights are in the store as epoch3, and keep that name" in err and "renamed" not in err
    assert (again, name_of(run)) == (run, "epoch3")
    (limited,) = evaluate(ask_evaluate(f"weights={elsewhere}", *given[:2], "data.limit=20", *OLD))
    assert limited != run and name_of(limited) == "epoch3"


@pytest.mark.slow
def test_a_source_that_was_not_given_is_said_at_evaluation_and_in_the_report(
    old, ask_evaluate, elsewhere, tmp_path, capfd
):
    given = ("model=mini_tiny", "data.limit=60", *OLD)
    (run,) = evaluate(ask_evaluate(f"weights={elsewhere}", *given))
    printed, err = capfd.readouterr()
    assert "dataset= was not given: RI of theirs is over all 2 targets of the suite" in err
    assert "mini_tiny, theirs (external) (toy data" in printed and "seed" not in printed.splitlines()[0]
    assert "for scoring only" in printed
    asked = ReportConfig(PathsConfig(str(old.root), None), {"name": "none"}, str(tmp_path / "report"), None)
    report(asked)
    left_out = "left out of the report, and of runs.csv: theirs (external) of mini_tiny"
    err = capfd.readouterr().err
    assert left_out in err
    (command,) = (line for line in err.splitlines() if "python -m rib.evaluate weights=" in line)
    assert str(run.weights_file) in command and command.endswith("dataset=SOURCE")
    evaluate(ask_evaluate(f"weights={run.weights_file}", *given, "dataset=imagenet_r"))
    capfd.readouterr()
    report(asked)
    assert left_out not in capfd.readouterr().err


def test_two_files_of_one_name_are_refused(old, ask_evaluate, elsewhere, tmp_path):
    given = ("model=mini_tiny", "dataset=imagenet_r", "data.limit=60", *OLD)
    evaluate(ask_evaluate(f"weights={elsewhere}", *given))
    (tmp_path / "b").mkdir()
    torch.save(old.one(model="mini_tiny", method="finetune", seed=1).weights(), tmp_path / "b" / "theirs.pt")
    with pytest.raises(RibError, match="name: other weights already have the name theirs"):
        evaluate(ask_evaluate(f"weights={tmp_path}/b/theirs.pt", *given))


@pytest.mark.slow
def test_what_a_null_came_to_where_the_run_was_made_holds_here(ask_for, ask_evaluate, store, monkeypatch):
    with monkeypatch.context() as there:
        there.setattr("rib.runs.recipe.has_gpu", lambda accelerator: True)
        run = finetune(ask_for("model=mini_tiny", *QUICK, *OLD))
    assert run.metrics()["protocol"]["precision"] == "bf16-mixed"
    evaluate(ask_evaluate(f"runs={run.folder}", *NEW))
    later = run.metrics("later")
    assert later["protocol"]["precision"] == "bf16-mixed"
    assert later["fingerprint"] == run.key


def test_a_folder_that_is_there_is_meant_as_it_is_spelt(old, ask_evaluate, tmp_path, monkeypatch):
    odd = tmp_path / "st[3] ü=x"
    shutil.copytree(old.root, odd)
    (decoy := tmp_path / "st3 ü=x").mkdir()
    (run, *_) = (run for run in RunStore(odd).finished(method="finetune") if run.metrics()["seed"] == 0)
    assert matching_paths(str(run.folder)) == [run.folder]
    assert [r.folder for r in evaluate(ask_evaluate(spell_override("runs", str(run.folder)), *OLD))] == [run.folder]
    every = evaluate(ask_evaluate(spell_override("runs", f"{odd}/**/finetune/*"), *OLD))
    assert {r.folder for r in every} == {r.folder for r in RunStore(odd).finished(method="finetune")}
    monkeypatch.chdir(tmp_path)
    assert matching_paths("st[3]*") == [Path("st3 ü=x")]  # no folder is spelt so: a pattern, of a class with one letter
    assert matching_paths(str(decoy)) == [decoy]
    assert matching_paths("nothing/*") == []


@pytest.mark.slow
def test_what_is_no_finished_run_is_named(old, ask_evaluate):
    run = old.finished(method="wise_ft")[0]
    left = run.folder.with_name(f"{run.key}.token")
    left.mkdir()
    begun = run.folder.with_name("a" * 16)
    begun.mkdir()
    (begun / "config.yaml").touch()
    cell = old.root / "cells" / "one"
    cell.mkdir(parents=True)
    for path, text in (
        (run.folder / "metrics.json", f"is a file; give its run's folder, {run.folder}"),
        (run.folder / "predictions", "is a folder without a finished run"),
        (left, f"is the working folder of an unfinished run; the finished run is {run.folder}"),
        (begun, "is unfinished: it has no metrics.json; repeat the command that began it to resume it"),
        (cell, "is a folder without a finished run"),
        (old.root, rf"is not a run but contains some; give runs='{old.root}/\*/\*/\*/\*/\*'"),
        (old.root / "min" / "x", rf"matches nothing: there is no min in {old.root}; did you mean mini\?"),
        (f"{old.root}/*/nothing", rf"matches nothing in {old.root}"),
        (f"{old.root}/mini/*", "none of the 2 paths that match .* is a finished run"),
    ):
        with pytest.raises(RibError, match=rf"runs: expected folders of finished runs; .*{text}"):
            evaluate(ask_evaluate(f"runs={path}", *NEW))


@pytest.mark.slow
def test_why_a_run_is_not_what_its_config_would_make_now_is_named(old, ask_evaluate, monkeypatch):
    run = next(run for run in old.finished(method="finetune") if run.metrics()["seed"] == 1)
    metrics = run.metrics()
    moved = run.folder.with_name("f" * 16)
    run.folder.rename(moved)  # its key is another one now

    def why(**said):
        Run(moved).write_json("metrics.json", {**metrics, **said})
        with pytest.raises(RibError) as caught:
            evaluate(ask_evaluate(f"runs={moved}", *NEW))
        return str(caught.value)

    assert "it was made by another version of rib (its key would now be" in why()
    assert "make it again with python -m rib.train model=mini_tiny " in why()
    assert "the weights of model=mini_tiny are no longer those that it was fine-tuned from" in why(before="0" * 16)
    other = {**metrics["scores"], "imagenet_a": {"key": "k", "images": "other"}}
    assert "the images of imagenet_a are no longer those that it was scored on" in why(scores=other)
    trained = {**metrics["trained_on"], "digest": "other"}
    assert "the images of imagenet_r are no longer those that it was trained on" in why(trained_on=trained)
    older = {**metrics["protocol"], "numerics": NUMERICS - 1}
    assert f"it was made by an older version of rib (numerics {NUMERICS - 1}, now {NUMERICS})" in why(protocol=older)


@pytest.mark.slow
def test_a_limit_is_checked_before_the_work_and_compared_with_the_suite_that_was_scored(old, ask_evaluate):
    for wrong in (["fail_on=value"], ["fail_below=-1", "fail_on=low"]):
        with pytest.raises(RibError, match="fail_on"):
            evaluate(ask_evaluate(f"runs={old.root}/**/finetune/*", *NEW, *wrong))
    assert not list(old.root.glob("**/metrics.later.json"))
    results = evaluate_results(ask_evaluate(f"runs={old.root}/**/finetune/*", *NEW, "fail_below=-1"))
    assert len(results) == 3
    assert {metrics["suite"] for _, metrics in results} == {"later"}
    assert all(metrics == run.metrics("later") for run, metrics in results)


def test_weights_do_not_take_the_name_of_a_method(old, ask_evaluate, elsewhere):
    given = (f"weights={elsewhere}", "model=mini_tiny", "dataset=imagenet_r", "data.limit=60", *OLD)
    for name in ("ewc", "EWC", "finetune", "pretrained", "external", "ewc+lwf"):
        with pytest.raises(RibError, match=f"name: {re.escape(name)} is the name of a method.*; give name=my_"):
            evaluate(ask_evaluate(*given, spell_override("name", name)))
    assert not list(old.root.glob("*/*/*/external"))


@pytest.mark.slow
def test_a_command_ends_with_code_3_below_the_limit(old, cache, tmp_path):
    """The folders are on stdout all the same, and stderr's last line says by how much."""
    folder = min(old.root.glob("mini/mini_tiny/imagenet_r/finetune/*"))
    command = [sys.executable, "-m", "rib.evaluate", f"runs={folder}", f"paths.runs={old.root}", f"paths.cache={cache}"]
    command += ["trainer=cpu", *OLD, "suite.name=old"]
    for limit, code in (("-50", 0), ("50", 3)):
        done = subprocess.run([*command, f"fail_below={limit}"], capture_output=True, text=True, timeout=300)
        assert done.returncode == code, done.stderr
        assert done.stdout.splitlines()[-1] == str(folder.resolve())
        verdict = done.stderr.splitlines()[-1]
        assert ("below the limit" in verdict) == (code == 3)
        assert (
            ("above the limit of -50.00" in verdict)
            == verdict.endswith("passed (at most 60 images per dataset)")
            == (code == 0)
        )
