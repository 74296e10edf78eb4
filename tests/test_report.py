"""The report: what may share a table, mRI over sources with one draw of images, files written."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rib import tables
from rib.data import mini
from rib.errors import RibError
from rib.pipeline import finetune
from rib.report import report
from rib.store import RunStore
from rib.summary import summarise

QUICK = ("model=mini_small", "epochs=1", "data.images_per_class=2", "suite.targets=[imagenet_a,imagenet_r,imagenet_v2]")


@pytest.fixture
def grid(ask_for, store):
    for source in ("imagenet_a", "imagenet_r"):
        for seed in (0, 1):
            finetune(ask_for(*QUICK, f"dataset={source}", f"seed={seed}"))
    return RunStore(store)


def test_mri_is_the_mean_of_ri_over_sources_and_seeds(grid):
    runs = [(run, run.metrics()) for run in grid.finished() if run.metrics()["source"] != "none"]
    before = {run.key: run for run in grid.finished(source="none")}
    (summary,) = summarise(runs, grid, mini.catalog(), before)
    values = {(m["source"], m["seed"]): m["robustness_improvement"]["value"] for _, m in runs}
    assert summary.over_images.value == pytest.approx(np.mean(list(values.values())))
    assert summary.over_images.low < summary.over_images.value < summary.over_images.high
    for source, value in summary.improvement.items():
        assert value == pytest.approx((values[source, 0] + values[source, 1]) / 2)
    assert summary.seeds == (0, 1)
    by_seed = [np.mean([values[s, seed] for s in ("imagenet_a", "imagenet_r")]) for seed in (0, 1)]
    half = 12.706 * np.std(by_seed, ddof=1) / np.sqrt(2)  # Student's t, one degree of freedom
    assert summary.over_seeds.high - summary.over_seeds.value == pytest.approx(half, rel=1e-3)


def test_what_was_made_in_another_way_gets_a_table_of_its_own(grid, ask_for, tmp_path, capsys):
    finetune(ask_for(*QUICK, "data.limit=60"))
    written = report(grid.root, tmp_path / "report")
    kinds = ("comparison{}.png", "runs{}.csv", "summary{}.csv", "summary{}.md", "summary{}.png")
    assert {p.name for p in written} == {kind.format(which) for kind in kinds for which in ("", "_2")}
    out, err = capsys.readouterr()
    assert "2 ways that are not comparable" in err
    assert "at most 60 images a dataset: a quick look, not a result" in out
    first = pd.read_csv(tmp_path / "report" / "runs.csv")
    assert len(first) == 4
    assert set(first["source"]) == {"imagenet_a", "imagenet_r"}
    assert len(pd.read_csv(tmp_path / "report" / "runs_2.csv")) == 1


def test_an_empty_store_is_one_sentence(tmp_path):
    with pytest.raises(RibError, match=r"expected finished runs in .*, found none; make one with"):
        report(tmp_path, tmp_path / "report")


@pytest.mark.parametrize(("value", "text"), [(1.234, "+1.23"), (-0.5, "-0.50"), (0.0, "0.00"), (-0.001, "0.00")])
def test_points_have_a_sign_unless_nothing_changed(value, text):
    assert tables.points(value) == text


def test_a_source_with_more_seeds_weighs_no_more(grid, ask_for):
    finetune(ask_for(*QUICK, "dataset=imagenet_r", "seed=2"))
    runs = [(run, run.metrics()) for run in grid.finished() if run.metrics()["source"] != "none"]
    before = {run.key: run for run in grid.finished(source="none")}
    (summary,) = summarise(runs, grid, mini.catalog(), before)
    assert summary.seeds == (0, 1)
    assert summary.over_images.value == pytest.approx(np.mean(list(summary.improvement.values())))


def test_another_suite_has_a_table_of_its_own(ask_for, store, tmp_path, capsys):
    quick = ("model=mini_tiny", "epochs=1", "data.images_per_class=1")
    for suite in ("seven", "paper"):
        finetune(ask_for(*quick, f"suite={suite}"))
    report(store, tmp_path / "report")
    out = capsys.readouterr().out
    assert "suite seven" in out
    assert "suite paper" in out


def test_a_result_whose_start_is_gone_says_how_to_make_it_again(grid, tmp_path):
    for run in grid.finished(source="none"):
        (run.folder / "metrics.json").unlink()
    with pytest.raises(RibError, match=r"pretrained run that is gone; make it again with .*model=mini_small"):
        report(grid.root, tmp_path / "report")


def test_only_some_sources_and_what_a_run_cost(grid, tmp_path):
    report(grid.root, tmp_path / "report", ["imagenet_a"])
    rows = pd.read_csv(tmp_path / "report" / "summary.csv")
    assert list(rows.filter(like="ri.").columns) == ["ri.imagenet_a"]
    runs = [run.metrics() for run in grid.finished(source="imagenet_a")]
    assert rows["source_after"][0] == pytest.approx(100 * np.mean([m["accuracy"]["imagenet_a"]["after"] for m in runs]))
    assert rows["seconds"][0] == pytest.approx(np.mean([m["seconds"]["fit"] + m["seconds"]["evaluate"] for m in runs]))
    assert "| mini_small | finetune" in (tmp_path / "report" / "summary.md").read_text()


def test_a_batch_norm_model_without_its_control_is_said():
    def run(method, batch_norm, layers=5):
        notes = {"batch_norm.layers": layers} if layers else {}
        protocol = {"batch_norm": batch_norm}
        return {"model": "net", "source": "imagenet_r", "method": method, "protocol": protocol, "notes": notes}

    (line,) = tables.missing_controls([run("ewc", "update"), run("finetune", "update")])
    assert "python -m rib.train +method=finetune batch_norm=frozen model=net dataset=imagenet_r" in line
    assert tables.missing_controls([run("ewc", "update"), run("finetune", "frozen")]) == []
    assert tables.missing_controls([run("ewc", "update", layers=0)]) == []
