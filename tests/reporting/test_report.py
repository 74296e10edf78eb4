"""The report: comparable runs, mRI over sources with one draw of images, files written."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from rib.config import compose
from rib.config.check import check_config
from rib.config.command_schema import EvaluateConfig, ReportConfig
from rib.config.schema import PathsConfig
from rib.config.unchecked import compose_node
from rib.errors import RibError
from rib.pipeline import finetune
from rib.reporting import formatting, runs_table
from rib.reporting.apart import explain_groups
from rib.reporting.comparability import group_comparable
from rib.reporting.paper_table import paper_table
from rib.reporting.report import report
from rib.runs.keys import NUMERICS
from rib.runs.run import Run
from rib.runs.store import RunStore
from rib.runs.trials import without_trials
from rib.sweeps.rescore import evaluate
from tests.support import whole

QUICK = ("model=mini_small", "epochs=1", "data.images_per_class=2", "suite.targets=[imagenet_a,imagenet_r,imagenet_v2]")


@pytest.fixture(scope="module")
def made_once(tmp_path_factory, cache):
    store = tmp_path_factory.mktemp("grid")
    common = (*QUICK, f"paths.runs={store}", f"paths.cache={cache}", "trainer=cpu", "data.root=null")
    for source in ("imagenet_a", "imagenet_r"):
        for seed in (0, 1):
            finetune(compose(*common, f"dataset={source}", f"seed={seed}"))
    return store


@pytest.fixture
def grid(made_once, store):
    shutil.copytree(made_once, store)
    return RunStore(store)


def ask(runs, out, sources=None):
    return ReportConfig(PathsConfig(str(runs), None), {"name": "none"}, str(out), sources)


def results(store):
    return [(run, run.metrics()) for run in store.finished()]


@pytest.mark.slow
def test_mri_is_the_mean_of_ri_over_sources_and_seeds(grid):
    (summary,) = paper_table(results(grid), grid).rows
    trained = [m for _, m in results(grid) if m["source"] != "none"]
    values = {(m["source"], m["seed"]): m["robustness_improvement"]["value"] for m in trained}
    assert summary.over_images.value == pytest.approx(np.mean(list(values.values())))
    assert summary.over_images.low < summary.over_images.value < summary.over_images.high
    for source, value in summary.improvement.items():
        assert value == pytest.approx((values[source, 0] + values[source, 1]) / 2)
    assert summary.seeds == (0, 1)
    by_seed = [np.mean([values[s, seed] for s in ("imagenet_a", "imagenet_r")]) for seed in (0, 1)]
    half = 12.706 * np.std(by_seed, ddof=1) / np.sqrt(2)  # Student's t, one degree of freedom
    assert summary.over_seeds.high - summary.over_seeds.value == pytest.approx(half, rel=1e-3)


@pytest.mark.slow
def test_what_was_made_in_another_way_gets_a_table_of_its_own(grid, ask_for, tmp_path, capsys):
    finetune(ask_for(*QUICK, "data.limit=60"))
    written = report(ask(grid.root, tmp_path / "report"))
    figures = [f"{name}{{}}.{ending}" for name in ("comparison", "summary") for ending in ("png", "pdf", "txt")]
    kinds = ("runs{}.csv", "summary{}.csv", "summary{}.md", "summary{}.tex", *figures)
    assert {p.name for p in written} == {kind.format(which) for kind in kinds for which in ("", "_2")}
    out, err = capsys.readouterr()
    assert "summary_2: 1 run cannot share the first table (of 4): data.limit 60, not null; each of them has a" in err
    assert "at most 60 images per dataset: a quick look, not a result" in out
    first = pd.read_csv(tmp_path / "report" / "runs.csv")
    assert len(first) == 4
    assert set(first["source"]) == {"imagenet_a", "imagenet_r"}
    assert len(pd.read_csv(tmp_path / "report" / "runs_2.csv")) == 1


def test_an_empty_store_is_one_sentence(tmp_path):
    with pytest.raises(RibError, match=r"expected finished runs in .*, found none; make one with"):
        report(ask(tmp_path, tmp_path / "report"))


@pytest.mark.slow
def test_filters_reach_every_file_and_what_they_left_out_is_one_line(grid, tmp_path, capsys):
    out = tmp_path / "report"
    asked = ask(grid.root, out)
    report(replace(asked, where="seed=1", models="mini_*", sort="-source"))
    said = "2 of 4 runs shown: models=mini_* where='seed=1'"
    printed, err = capsys.readouterr()
    assert (printed + err).count(said) == 1
    assert "Robustness improvement on toy data (mini), suite seven*: 2 runs on mini A, mini R" in printed
    assert printed.index("Robustness improvement on") < printed.index("Cost") < printed.index("Fine-tuned runs")
    runs = pd.read_csv(out / "runs.csv")
    assert list(runs["seed"]) == [1, 1]
    assert list(runs["source_after"]) == sorted(runs["source_after"], reverse=True)
    values = {run.metrics()["source"]: improvement(run) for run in grid.finished(seed=1)}
    assert pd.read_csv(out / "summary.csv")["mri"][0] == pytest.approx(np.mean(list(values.values())))
    for name in ("summary.md", "summary.tex"):
        text = (out / name).read_text().replace("\\_", "_")
        assert said in text
        assert "2 runs on mini A, mini R" in text


def improvement(run):
    return run.metrics()["robustness_improvement"]["value"]


@pytest.mark.slow
def test_no_file_of_an_earlier_report_is_left(grid, tmp_path):
    out = tmp_path / "report"
    out.mkdir()
    ours = ("runs_2.csv", "summary_2.md", "comparison_12.png", "remedies.sh", "summary.pdf")
    theirs = ("notes.md", "summary_mine.csv", "runs.csv.bak", "my_runs.csv")
    for name in (*ours, *theirs):
        (out / name).touch()
    written = report(ask(grid.root, out))
    assert {file.name for file in out.iterdir()} == {*(file.name for file in written), *theirs}


@pytest.mark.slow
def test_own_weights_and_a_run_share_a_table(tmp_path, ask_for, store, cache):
    """What a newcomer does: fine-tune elsewhere, save the state dict, evaluate it, and report it beside a run."""
    run = finetune(ask_for(*QUICK, "data.limit=40"))
    state = {name: tensor + 0.01 for name, tensor in run.weights().items()}
    torch.save(state, tmp_path / "my_checkpoint.pt")
    line = [f"weights={tmp_path / 'my_checkpoint.pt'}", QUICK[0], QUICK[-1], "dataset=imagenet_r", "data.limit=40"]
    given = (f"paths.runs={store}", f"paths.cache={cache}", "trainer=cpu", "data.root=null")
    evaluate(check_config(compose_node("evaluate", *line, *given), EvaluateConfig))
    out = tmp_path / "report"
    report(ask(store, out))
    assert not (out / "summary_2.md").exists()
    lines = (out / "summary.md").read_text().splitlines()[4:6]
    assert {line.split(" | ")[1] for line in lines} == {"finetune", "my_checkpoint (external)"}
    runs = pd.read_csv(out / "runs.csv").set_index("method")
    assert runs.loc["external", "name"] == "my_checkpoint"


@pytest.mark.parametrize(("value", "text"), [(1.234, "+1.23"), (-0.5, "-0.50"), (0.0, "0.00"), (-0.001, "0.00")])
def test_points_have_a_sign_unless_nothing_changed(value, text):
    assert formatting.points(value) == text


@pytest.mark.slow
def test_a_source_with_more_seeds_weighs_no_more(grid, ask_for):
    finetune(ask_for(*QUICK, "dataset=imagenet_r", "seed=2"))
    (summary,) = paper_table(results(grid), grid).rows
    assert summary.seeds == (0, 1)
    assert summary.over_images.value == pytest.approx(np.mean(list(summary.improvement.values())))


@pytest.mark.slow
def test_another_suite_has_a_table_of_its_own(ask_for, store, tmp_path, capsys):
    quick = ("model=mini_tiny", "epochs=1", "data.images_per_class=1")
    for suite in ("seven", "paper"):
        finetune(ask_for(*quick, f"suite={suite}"))
    report(ask(store, tmp_path / "report"))
    out = capsys.readouterr().out
    assert "suite seven" in out
    assert "suite paper" in out


@pytest.mark.slow
def test_a_result_whose_start_is_gone_says_how_to_make_it_again(grid, tmp_path):
    for run in grid.finished(source="none"):
        shutil.rmtree(run.folder)
    with pytest.raises(
        RibError, match=r"pretrained run that is gone; make that pretrained run again with .*model=mini_small"
    ):
        report(ask(grid.root, tmp_path / "report"))


@pytest.mark.slow
def test_only_some_sources_and_what_a_run_cost(grid, tmp_path):
    report(ask(grid.root, tmp_path / "report", ["imagenet_a"]))
    rows = pd.read_csv(tmp_path / "report" / "summary.csv")
    assert list(rows.filter(like="ri.").columns) == ["ri.imagenet_a"]
    runs = [run.metrics() for run in grid.finished(source="imagenet_a")]
    assert rows["source_after"][0] == pytest.approx(100 * np.mean([m["accuracy"]["imagenet_a"]["after"] for m in runs]))
    assert rows["seconds"][0] == pytest.approx(np.mean([m["seconds"]["fit"] + m["seconds"]["evaluate"] for m in runs]))
    assert "| mini_small | finetune" in (tmp_path / "report" / "summary.md").read_text()


def test_a_batch_norm_model_without_its_control_is_said(tmp_path):
    def run(method, batch_norm, layers=5):
        notes = {"batch_norm.layers": layers} if layers else {}
        protocol = {"batch_norm": batch_norm, "experiment": None, "precision": "32-true"}
        of = {"model": "mini_tiny", "source": "imagenet_a", "method": method, "suite": "seven", "seed": 0}
        # No config.yaml lies in its folder: what its metrics tell is said.
        metrics = {**of, "data": {"kind": "user"}, "protocol": protocol, "notes": notes}
        metrics["options"] = {"data.limit": 60}
        return Run(tmp_path / "mini/mini_tiny/imagenet_a" / method / "key"), metrics

    (line,) = runs_table.missing_controls([run("ewc", "update"), run("finetune", "update")])
    said = f"model=mini_tiny dataset=imagenet_a data.limit=60 paths.runs={tmp_path} batch_norm=frozen"
    assert line.endswith(f"control: python -m rib.train {said}")
    assert runs_table.missing_controls([run("ewc", "update"), run("finetune", "frozen")]) == []
    assert runs_table.missing_controls([run("ewc", "update", layers=0)]) == []


def made(**differences: Any) -> tuple[Run, dict[str, Any]]:
    """A result of plain fine-tuning on R, but for what is said; names are `__` for a dot."""
    protocol = {"experiment": None, "precision": "32-true", "evaluation_precision": "32-true", "epochs": 5, "lr": 0.005}
    protocol |= {"warmup_steps": 3, "batch_size": 64, "batch_norm": "update", "label_rule": "max"}
    protocol |= {"image_backend": "torchvision", "limit": None, "holdout": 0.0, "switches": {}, "numerics": NUMERICS}
    metrics: dict[str, Any] = {
        "model": "net",
        "source": "imagenet_r",
        "method": "finetune",
        "options": {},
        "seed": 0,
        "suite": "seven",
        "fingerprint": "f" * 16,
        "data": {"kind": "user", "digest": "d" * 16},
        "protocol": protocol,
        "accuracy": {name: {} for name in ("imagenet_a", "imagenet_r", "imagenet_val")},
        "robustness_improvement": {"targets": ["imagenet_a"]},
        "before": "b" * 16,
        "scores": {name: {"images": name} for name in ("imagenet_a", "imagenet_r", "imagenet_val")},
    }
    for name, value in differences.items():
        *parents, last = name.split("__")
        node = metrics
        for parent in parents:
            node = node[parent]
        node[last] = {**node[last], **value} if isinstance(value, Mapping) else value
    return Run(Path("somewhere")), metrics


@pytest.mark.parametrize(
    ("differences", "said"),
    [
        ({"suite": "paper"}, "suite paper, not seven"),
        ({"data__digest": "e" * 16, "scores__imagenet_a": {"images": "x"}}, "different images of imagenet_a"),
        ({"protocol__experiment": "paper"}, "experiment paper, not null"),
        ({"protocol__limit": 60}, "data.limit 60, not null"),
        ({"protocol__numerics": NUMERICS + 1}, f"version of the numerics {NUMERICS + 1}, not {NUMERICS}"),
        ({"protocol__precision": "16-mixed"}, "precision 16-mixed, not 32-true"),
        ({"protocol__switches": {"paper.resize_imagenet_c": True}}, "paper.resize_imagenet_c True, not False"),
        ({"accuracy": {"objectnet": {}}}, "scored and not in RI imagenet_val, objectnet, not imagenet_val"),
        ({"seed": 1, "protocol__warmup_steps": 5}, "net finetune on imagenet_r: optimizer.warmup_steps 5, not 3"),
        (
            {"seed": 1, "protocol__switches": {"paper.objectnet_loss": "unrestricted"}},
            "switches.paper.objectnet_loss unrestricted, not null",
        ),
        ({"fingerprint": "0" * 16}, f"imagenet_r seed 0 appears twice (fingerprints {'f' * 16} and {'0' * 16})"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_may_not_share_a_table_is_told_with_both_values(differences, said):
    groups = group_comparable([made(), made(**differences)])
    (line,) = explain_groups(groups)
    assert line.startswith("1 run cannot share the first table (of 1): ")
    assert said in line
    with pytest.raises(RibError, match="these runs cannot share a table"):
        paper_table([made(), made(**differences)], RunStore("nowhere"))


@pytest.mark.parametrize(
    "differences",
    [
        {"seed": 1, "fingerprint": "0" * 16},
        {"source": "imagenet_a", "robustness_improvement": {"targets": ["imagenet_r"]}, "protocol__warmup_steps": 9},
        {"method": "ewc", "protocol__switches": {"paper.ewc": "identity"}, "fingerprint": "0" * 16},
        {"protocol__lr": 0.1, "options": {"optimizer.lr": 0.1}, "fingerprint": "0" * 16},
        {"protocol__batch_norm": "frozen", "fingerprint": "0" * 16},
        {"model": "another", "fingerprint": "0" * 16},
    ],
    ids=lambda value: next(iter(value)),
)
def test_what_is_another_cell_or_row_may_share_it(differences):
    assert len(group_comparable([made(), made(**differences)])) == 1


def test_a_run_scored_twice_for_one_table_is_there_once():
    (group,) = group_comparable([made(), made()])
    assert len(group.results) == 1


@pytest.fixture(scope="module")
def swept(tmp_path_factory, cache):
    """Two strengths and two rates: three methods on one source."""
    store = tmp_path_factory.mktemp("swept")
    common = (*QUICK, f"paths.runs={store}", f"paths.cache={cache}", "trainer=cpu", "data.root=null")
    for more in (
        ("+method=finetune",),
        ("+method=finetune", "optimizer.lr=0.05"),
        ("+method=ewc",),
        ("+method=ewc", "method.ewc.strength=1000", "optimizer.lr=0.05"),
        ("+method=linear_probe", "method.linear_probe.train=unfrozen_norms"),
    ):
        finetune(compose(*common, *more))
    return RunStore(store)


@pytest.mark.slow
def test_an_axis_is_a_column_and_any_other_option_stays_with_its_method(swept):
    table = paper_table(results(swept), swept, ("imagenet_r", "objectnet"))
    assert set(table.axes) == {"optimizer.lr", "method.ewc.strength"}
    rows = {tuple(r) for r in table.frame()[["method", "optimizer.lr", "ewc.strength"]].itertuples(index=False)}
    assert rows == {
        ("finetune", "0.005", ""),
        ("finetune", "0.05", ""),
        ("ewc", "0.005", "1.0"),
        ("ewc", "0.05", "1000.0"),
        ("linear_probe", "0.005", ""),
    }
    assert table.common == {"epochs": 1, "data.images_per_class": 2}
    assert "| linear_probe train=unfrozen_norms |" in table.markdown()
    assert "All with data.images_per_class=2, epochs=1." in table.markdown()
    assert "No run on mini ObjectNet; one source, mini R: mRI is the RI on it." in table.markdown()
    assert {table.cells(row)[table.columns.index("sources")] for row in table.rows} == {"1 of 2"}


@pytest.mark.slow
def test_each_method_is_compared_with_plain_fine_tuning_at_its_own_rate(swept):
    frame = paper_table(results(swept), swept).frame().set_index(["method", "optimizer.lr"])
    for rate in ("0.005", "0.05"):
        difference = frame.loc[("ewc", rate), "mri"] - frame.loc[("finetune", rate), "mri"]
        assert frame.loc[("ewc", rate), "against_finetune"] == pytest.approx(difference)
    assert np.isnan(frame.loc["finetune", "against_finetune"]).all()
    p = frame["p"].dropna().sort_values()
    assert len(p) == 3
    assert frame["p_holm"].dropna().min() == pytest.approx(min(1, 3 * p.iloc[0]))


@pytest.mark.slow
def test_the_best_of_several_settings_is_not_bold_since_targets_would_choose_it(swept):
    table = paper_table(results(swept), swept)
    alone = [row for row in table.rows if "optimizer.lr" not in row.options]
    assert {row.method for row in alone} == {"finetune", "ewc", "linear_probe"}
    top = max(row.over_images.value for row in alone)
    assert [table.rows[i] for i in sorted(table.best)] == [row for row in alone if row.over_images.value == top]
    assert "Of a method with several settings only the default can be bold" in table.markdown()
    others = [(run, m) for run, m in results(swept) if m["options"].get("optimizer.lr")]
    several = [(run, {**m, "options": {**m["options"], "clip": clip}}) for clip, (run, m) in enumerate(others)]
    several = [(run, {**m, "method": "ewc"}) for run, m in several]
    nothing = paper_table(several, swept)
    assert len(nothing.rows) == 2
    assert nothing.best == set(), "no default among several settings"
    assert "Nothing is bold. " in nothing.markdown()


@pytest.mark.slow
def test_a_trial_of_a_search_is_never_bold_and_is_called_one(swept):
    table = paper_table(results(swept), swept)
    best = min(table.best)
    method = table.rows[best].method
    (run,) = (r for r, m in results(swept) if m["method"] == method and "optimizer.lr" not in m["options"])
    mark = swept.root / "searches" / "some" / "trials" / run.key
    mark.parent.mkdir(parents=True)
    mark.touch()
    try:
        marked = paper_table(results(swept), swept)
        assert [row.is_trial for row in marked.rows].count(True) == 1
        assert best not in marked.best
        assert len(marked.best) > 0
        assert f"{method} (search trial)" in marked.cells(marked.rows[best])
        assert "search trials cannot: the best of them would be selected on the targets" in marked.markdown()
        assert without_trials(results(swept), swept) == [(r, m) for r, m in results(swept) if r.key != run.key]
    finally:
        shutil.rmtree(swept.root / "searches")


@pytest.mark.slow
def test_seeds_that_are_made_from_one_run_have_no_interval_over_seeds(grid):
    """Model Stock's at seeds 0 and 1 share the fine-tune of seed 1, so that they vary less than seeds do."""

    def merged(m: dict[str, Any], *seeds: int) -> dict[str, Any]:
        parts = [{"label": "finetune", "source": m["source"], "fingerprint": f"{m['source']} {seed}"} for seed in seeds]
        return {**m, "ingredients": [{"label": "pretrained", "source": "none", "fingerprint": "start"}, *parts]}

    trained = [(run, m) for run, m in results(grid) if m["source"] != "none"]
    (apart,) = paper_table([(run, merged(m, m["seed"])) for run, m in trained], grid).rows
    assert apart.over_seeds is not None
    table = paper_table([(run, merged(m, m["seed"], m["seed"] + 1)) for run, m in trained], grid)
    assert table.rows[0].over_seeds is None
    assert table.rows[0].seeds == (0, 1)
    assert "seeds share runs" in table.cells(table.rows[0])


@pytest.mark.slow
def test_the_latex_table_has_as_many_cells_in_each_row_and_no_bare_character(swept):
    table = paper_table(results(swept), swept)
    text = table.latex()
    body = text[text.index("\\toprule") : text.index("\\bottomrule")]
    rows = [line for line in body.splitlines() if "&" in line]
    assert len(rows) == 1 + len(table.rows)
    assert {len(re.findall(r"(?<!\\)&", line)) for line in rows} == {len(table.columns) - 1}
    assert re.search(r"\\begin{tabular}{(l+r+)}", text)[1] == "ll" + "r" * (len(table.columns) - 2)
    assert body.count(r"\textbf") == len(table.best) > 0
    assert not re.search(r"(?<!\\)[_%#]", text.split("\n", 1)[1])
    assert text.count("{") == text.count("}")
    assert (r"\textsuperscript{*}" in body) == any(row.is_significant for row in table.rows)


@pytest.mark.slow
def test_the_command_prints_the_table_and_needs_no_torch(grid, tmp_path):
    code = "import sys; from rib.report import main; main(); assert 'torch' not in sys.modules"
    filters = ("sources=imagenet_a,imagenet_v2", "where=data.images_per_class=2,epochs<=1", "where=seed=0", "sort=-RI")
    line = [sys.executable, "-c", code, f"paths.runs={grid.root}", f"out={tmp_path}/out", *filters]
    done = subprocess.run(line, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "1 of 7" in done.stdout
    assert "1 of 4 runs shown: sources=[imagenet_a,imagenet_v2] where='data.images_per_class=2'" in done.stdout
    assert f"{tmp_path}/out/summary.tex" in done.stdout


@pytest.mark.slow
def test_what_there_is_in_the_place_of_results_is_said(grid, tmp_path):
    out = tmp_path / "report"
    near = grid.root.with_name(f"{grid.root.name}x")
    with pytest.raises(RibError, match=rf"there is no folder {near}; did you mean {grid.root.name}\?"):
        report(ask(near, out))
    (near / "mini").mkdir(parents=True)
    with pytest.raises(
        RibError, match=rf"expected finished runs in {near}, found none; make one with .*paths.runs={near}"
    ):
        report(ask(near, out))
    shutil.copytree(grid.root / "mini" / "mini_small" / "none", near / "mini" / "mini_small" / "none")
    with pytest.raises(RibError, match=r"has 1 run without training .* and none that was fine-tuned"):
        report(ask(near, out))
    for source, text in (
        ("imagenet_v2", "got imagenet_v2; available: imagenet_a, imagenet_r$"),
        ("imagenet_rr", r"got imagenet_rr; available: imagenet_a, imagenet_r; did you mean imagenet_r\?"),
    ):
        with pytest.raises(RibError, match=rf"sources: expected sources with fine-tuned runs in {grid.root}, {text}"):
            report(ask(grid.root, out, [source]))
    with pytest.raises(RibError, match=r"got imagenet_aa; .* did you mean imagenet_a\?"):
        report(ask(grid.root, out, ["imagenet_a", "imagenet_aa"]))
    assert not out.exists()


@pytest.mark.slow
def test_a_damaged_view_leaves_out_its_run_alone(grid, tmp_path, capsys):
    run = grid.finished(source="imagenet_a")[0]
    (run.folder / "metrics.later.json").write_text("{}")
    report(ask(grid.root, tmp_path / "report"))
    assert f"left out of the report: {run.folder / 'metrics.later.json'} is damaged" in capsys.readouterr().err
    assert len(pd.read_csv(tmp_path / "report" / "runs.csv")) == 3


@pytest.mark.slow
def test_runs_of_an_older_version_have_a_table_behind_the_others_and_are_named(grid, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("rib.runs.keys.NUMERICS", 7)
    for number, run in enumerate(grid.finished(source="imagenet_a") + grid.finished(source="imagenet_r")):
        metrics = run.metrics()
        metrics["protocol"]["numerics"] = 7
        if number:
            del metrics["protocol"]["numerics"], metrics["trained_on"]
        run.write_json("metrics.json", metrics)
    report(ask(grid.root, tmp_path / "report"))
    said = r"3 runs: each was made by an older version of rib \(numerics 1, now 7\), .* get tables of their own"
    assert re.search(said, capsys.readouterr().err)
    assert len(pd.read_csv(tmp_path / "report" / "runs.csv")) == 1
    assert len(pd.read_csv(tmp_path / "report" / "runs_2.csv")) == 3


def stamped(targets: list[str], suite: str = "seven", source: str = "imagenet_r", **said: Any) -> tuple[Run, Any]:
    """A result whose suite has its datasets stamped."""
    metrics = whole.metrics(suite=suite, source=source, **said)
    metrics["protocol"] |= {"targets": sorted(targets), "reported": ["imagenet_val"]}
    metrics["robustness_improvement"]["targets"] = [name for name in targets if name != source]
    return Run(Path(metrics["source"])), metrics


def test_a_suite_is_its_datasets_whatever_it_is_called():
    three, two = ["imagenet_a", "imagenet_r", "imagenet_v2"], ["imagenet_a", "imagenet_r"]
    alike = [stamped(three), stamped(three, "mine", seed=1), stamped(three, source="imagenet_a")]
    assert len(group_comparable(alike)) == 1
    groups = group_comparable([*alike, stamped(two)])
    assert [len(group.results) for group in groups] == [3, 1]
    (line,) = explain_groups(groups)
    assert "targets imagenet_a, imagenet_r, not imagenet_a, imagenet_r, imagenet_v2" in line


def test_suites_called_alike_with_other_targets_share_no_table_even_unstamped():
    def unstamped(*of: Any, **said: Any) -> tuple[Run, Any]:
        run, metrics = stamped(*of, **said)
        del metrics["protocol"]["targets"], metrics["protocol"]["reported"]
        return run, metrics

    three, two = ["imagenet_a", "imagenet_r", "imagenet_v2"], ["imagenet_a", "imagenet_r"]
    sources = [unstamped(three, source=name) for name in (*three, "imagenet_train")]
    assert len(group_comparable(sources)) == 1
    groups = group_comparable([*sources, unstamped(two)])
    assert [len(group.results) for group in groups] == [4, 1]
    assert "cannot share the first table (of 4): without the targets imagenet_v2" in explain_groups(groups)[0]


@pytest.mark.slow
def test_predictions_that_are_gone_are_made_again_by_the_command_that_is_said(grid, tmp_path):
    run, start = grid.finished(source="imagenet_a")[0], grid.finished(source="none")[0]
    for where in (run, start):
        file = next((where.folder / "predictions").glob("imagenet_r.*.npz"))
        for damage in (lambda file: file.unlink(), lambda file: file.write_bytes(b"")):
            damage(file)
            with pytest.raises(RibError, match=r"cannot read predictions .*; score its run again with") as caught:
                report(ask(grid.root, tmp_path / "report"))
            words = shlex.split(str(caught.value).partition("score its run again with ")[2])
            assert words[:4] == ["python", "-m", "rib.evaluate", f"runs={where.folder}"]
            evaluate(check_config(compose_node("evaluate", *words[3:]), EvaluateConfig))
            assert report(ask(grid.root, tmp_path / "report"))
    shutil.rmtree(grid.root / "datasets" / "paths")
    with pytest.raises(RibError, match=r"cannot read .*paths.*txt .*; score its run again with") as caught:
        report(ask(grid.root, tmp_path / "report"))
    words = shlex.split(str(caught.value).partition("score its run again with ")[2])
    evaluate(check_config(compose_node("evaluate", *words[3:]), EvaluateConfig))
    assert report(ask(grid.root, tmp_path / "report"))
