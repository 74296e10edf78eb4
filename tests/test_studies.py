"""What studies draw: their numbers against metrics.json and by hand; the controls they are made of."""

from __future__ import annotations

from statistics import fmean

import numpy as np
import pandas as pd
import pytest
import torch

from rib.analysis.cka import layer_cka
from rib.asking import ask
from rib.config import _compose, accept, checked, instantiate
from rib.errors import RibError
from rib.grid import make_plan
from rib.metrics.rank import rank_correlation
from rib.pipeline import answer, finetune
from rib.schema import BenchmarkConfig, CKAConfig, PathsConfig
from rib.store import RunStore
from rib.studies.base import Made, rows, write_study
from rib.studies.size import Size
from rib.weights import distance, equal

QUICK = (
    "data.limit=60",
    "suite.targets=[imagenet_a,imagenet_r]",
    "suite.reported=[imagenet_val]",
    "models=[mini_tiny]",
)


@pytest.fixture(scope="module")
def make(tmp_path_factory, cache):
    """All cells of a grid, made one after another in this process, with their config and store."""
    root = tmp_path_factory.mktemp("studies") / "runs"

    def made(*overrides: str) -> tuple[BenchmarkConfig, RunStore, list[Made]]:
        given = (f"paths.runs={root}", f"paths.cache={cache}", "trainer=cpu", "data.root=null", *QUICK, *overrides)
        config, store = checked(_compose("benchmark", *accept(list(given))), BenchmarkConfig), RunStore(root)
        plan = make_plan(config, store)
        for cell in plan.cells.values():
            assert cell.question is not None
            answer(cell.question, store)
        cells = [Made(cell, cell.place, cell.metrics) for cell in plan.asked if cell.place and cell.metrics]
        assert len(cells) == len(plan.asked)
        return config, store, cells

    return made


def test_a_row_is_the_mean_of_its_cells(make):
    _, store, made = make("methods=[finetune]", "sources=[imagenet_a,imagenet_r]", "seeds=[0,1]", "epochs=1")
    (row,) = rows(made, store)
    assert row["mri"] == pytest.approx(fmean(m.metrics["robustness_improvement"]["value"] for m in made), abs=1e-9)
    assert row["low"] < row["mri"] < row["high"]
    after = [m.metrics["accuracy"][m.metrics["source"]]["after"] for m in made]
    assert row["source_after"] == pytest.approx(100 * fmean(after))
    assert (row["num_sources"], row["num_seeds"]) == (2, 2)


GRIDS = {
    "lr_grid": ("methods=[finetune]", "sources=[imagenet_a]", "axes={optimizer.lr:[0.001,0.01]}", "epochs=1"),
    "lr_study": ("sources=[imagenet_a]", "axes={optimizer.lr:[0.001,0.01]}", "epochs=1"),
    "size_study": ("sources=[imagenet_v2]", "seeds=[0]", "axes={data.images_per_class:[1,2],steps:[3]}"),
    "pretraining_by_finetuning": ("sources=[imagenet_v2]", "axes={data.images_per_class:[1,2],steps:[3]}"),
    "pretraining_scale": ("sources=[imagenet_a]", "seeds=[0]", "epochs=1"),
    "ewc_study": (
        "sources=[imagenet_a]",
        "grids=[{methods:[finetune]},{methods:[ewc],axes:{method.ewc.fisher:[identity],method.ewc.strength:[1,100]}}]",
        "epochs=1",
    ),
    "paper_errata": (
        "sources=[imagenet_a]",
        "grids=[{methods:[ewc],axes:{paper.ewc:[null,identity]}},"
        "{methods:[finetune],sources:[objectnet],axes:{paper.objectnet:[null,authors]}},"
        "{methods:[finetune],sources:[objectnet],axes:{paper.objectnet_loss:[null,unrestricted]}}]",
        "epochs=1",
    ),
    "cka_study": (
        "sources=[imagenet_a,imagenet_r]",
        "seeds=[0]",
        "models=[mini_tiny,mini_small]",
        "methods=[finetune,visual_prompt]",
        "epochs=1",
    ),
    "negative_controls": ("sources=[imagenet_a]", "epochs=2", "optimizer.lr=null"),
}


QUICKEST = ("pretraining_scale", "size_study")


@pytest.mark.parametrize("name", [n if n in QUICKEST else pytest.param(n, marks=pytest.mark.slow) for n in GRIDS])
def test_a_study_writes_its_table_its_paragraph_and_its_figures(make, tmp_path, name):
    config, store, made = make(f"study={name}", *QUICK, *GRIDS[name])
    text, files = write_study(instantiate(config.draw), made, store, tmp_path)
    table = pd.read_csv(tmp_path / "table.csv")
    assert len(table) >= 1
    assert (tmp_path / "summary.md").read_text() == f"{text}\n"
    assert not any(word in text for word in ("nan", "None"))
    assert all(file.stat().st_size > 1000 for file in files if file.suffix == ".png")
    assert any(file.suffix == ".png" for file in files)
    if "mri" in table and name != "negative_controls":
        for m in made:
            row = table[(table["method"] == m.metrics["method"])]
            for axis, value in m.cell.axes.items():
                row = row[row[axis] == value]
            assert row["mri"].iloc[0] == pytest.approx(m.metrics["robustness_improvement"]["value"], abs=1e-9)


def test_the_cka_of_a_study_is_that_of_the_analysis_and_what_has_no_weights_is_named(make):
    config, store, made = make("study=cka_study", *QUICK, *GRIDS["cka_study"])
    study = instantiate(config.draw)
    table = study.table(made, store)
    for one in made:
        here = table[(table[["model", "method", "source"]] == [one.metrics[k] for k in table.columns[1:4]]).all(axis=1)]
        assert (here["ri"] == one.metrics["robustness_improvement"]["value"]).all()
        if one.metrics["method"] == "visual_prompt":
            assert list(here["layer"]) == [""]
            continue
        paths = PathsConfig(config.paths.runs, config.paths.cache)
        alone = layer_cka(CKAConfig(run=str(one.run.folder), images=500, paths=paths))
        assert not alone.made, "the study and the command ask the same question"
        assert list(here["layer"]) == list(alone.table["layer"])
        assert np.array_equal(here["cka"], alone.table["cka"])
    text = study.paragraph(table)
    left = "mini_tiny, visual_prompt, mini_small, visual_prompt (its prompt lies beside the weights"
    assert f"Left out: {left}" in text
    cells = table[table["method"] == "finetune"].groupby(["curve", "source"]).agg({"cka": "mean", "ri": "first"})
    assert f"rank correlation of RI and mean CKA {rank_correlation(cells['cka'], cells['ri'])}" in text


def test_an_error_costs_the_difference_of_its_two_sides(make):
    config, store, made = make("study=paper_errata", *QUICK, *GRIDS["paper_errata"])
    table = instantiate(config.draw).table(made, store)
    assert len(table) == 3, "two switches whose right side is one run are two rows"
    assert np.allclose(table["difference"], table["wrong"] - table["right"])
    one = next(m for m in made if m.cell.axes.get("paper.ewc") == "identity")
    assert table["wrong"].iloc[0] == pytest.approx(one.metrics["robustness_improvement"]["value"])


def test_the_controls_that_must_be_exact_are(make):
    config, store, made = make("study=negative_controls", *QUICK, *GRIDS["negative_controls"])
    table = instantiate(config.draw).table(made, store).set_index("control")
    assert set(table.index) == {"finetune", "pretrained", "lr 0", "shuffled labels", "shuffled head", "random start"}
    for control in ("pretrained", "lr 0"):
        assert (table.loc[control, ["mri", "low", "high"]] == 0).all()
        assert table.loc[control, "holds"]
    assert table.loc["random start", "mri"] < table.loc["finetune", "mri"]


def test_the_crossing_is_where_a_line_on_a_log_scale_says(make):
    found = [{"a_class": 1, "low": -5, "mri": -4, "high": -3}, {"a_class": 100, "low": -2, "mri": 0, "high": 1}]
    said = Size(threshold=-2.0)._crossing(found)
    assert said == "worse than -2 points below 10 images a class [3.16, 100]"
    assert Size(threshold=-9)._crossing(found) == "no size is worse than -9 points"
    assert Size(threshold=5)._crossing(found) == "every size is worse than 5 points"


def test_the_digest_of_a_subset_is_in_the_result_and_in_the_studys_table(make):
    config, store, made = make("study=size_study", *QUICK, *GRIDS["size_study"])
    table = instantiate(config.draw).table(made, store)
    for one in made:
        count = one.cell.axes["data.images_per_class"]
        trained_on = one.metrics["trained_on"]
        assert trained_on == {"num_images": min(60, 40 * count), "digest": one.cell.question.source.digest}
        row = table[table["data.images_per_class"] == count].iloc[0]
        assert (row["images"], row["a_class"]) == (min(60, 40 * count), min(1.5, count))
        assert row["digests"] == trained_on["digest"]
        on_val = one.metrics["accuracy"]["imagenet_val"]["change"]
        assert row[["val_change", "val_low", "val_high"]].tolist() == pytest.approx(list(on_val.values()))


def test_what_a_model_had_seen_places_it_and_another_objective_is_another_line(make):
    models = "models=[mini_tiny,'mini_small model.pretraining.objective=contrastive',"
    models += "'mini_medium model.pretraining.images=null']"
    config, store, made = make("study=pretraining_scale", *QUICK, *GRIDS["pretraining_scale"], models)
    study = instantiate(config.draw)
    table = study.table(made, store).set_index("model")
    assert table["pretrained_on"].to_dict() == {"mini_tiny": 2000, "mini_small": 8000, "mini_medium": 0}
    text = study.paragraph(table.reset_index())
    assert "finetune, supervised: mini_tiny 2,000: " in text
    assert "finetune, contrastive: mini_small 8,000: " in text
    assert "Left out: mini_medium, of which model.pretraining.images is not given." in text
    assert set(study.figures(table.reset_index())) == {"scale"}


def test_steps_take_the_place_of_epochs(ask_for):
    quick = ("model=mini_tiny", "data.limit=40", "suite.targets=[imagenet_a]", "suite.reported=[]", "batch_size=16")
    question = ask(ask_for(*quick, "steps=5"))
    assert (question.recipe.epochs, question.recipe.max_steps) == (2, 5)
    assert question.options["steps"] == 5
    assert "epochs" not in question.options
    five = finetune(ask_for(*quick, "steps=5", "optimizer.warmup_steps=0"))
    log = pd.read_csv(next((five.folder / "log").glob("*/metrics.csv"))).dropna(subset="loss")
    assert list(log["step"]) == [0, 1, 2, 3, 4]
    whole = finetune(ask_for(*quick, "steps=6", "optimizer.warmup_steps=0"))
    same = finetune(ask_for(*quick, "epochs=2", "optimizer.warmup_steps=0"))
    assert equal(whole.weights(), same.weights())
    with pytest.raises(RibError, match="steps: expected a number of 0 or more in the place of epochs"):
        ask(ask_for(*quick, "steps=5", "epochs=1"))


def test_shuffled_labels_are_the_same_images_and_labels_in_another_order(ask_for):
    plain, shuffled = (ask(ask_for("model=mini_tiny", *more)) for more in ((), ("data.shuffled_labels=true",)))
    assert plain.source.paths == shuffled.source.paths
    assert sorted(plain.source.labels) == sorted(shuffled.source.labels)
    assert (plain.source.labels == shuffled.source.labels).mean() < 0.15
    assert plain.training_key != shuffled.training_key
    assert np.array_equal(plain.scored["imagenet_r"].labels, shuffled.scored["imagenet_r"].labels)


@pytest.mark.parametrize("part", ["head", "all"])
def test_another_start_holds_the_same_numbers_in_other_places(ask_for, store, part):
    quick = ("data.limit=40", "suite.targets=[imagenet_a]", "suite.reported=[]", "optimizer.lr=0")
    run = finetune(ask_for("model=mini_tiny", *quick, "+method=other_start", f"method.other_start.shuffled={part}"))
    start, other = RunStore(store).one(method="pretrained").weights(), run.weights()
    assert distance(start, other) > 0
    changed = {name for name in start if not torch.equal(start[name], other[name])}
    assert changed == {"head.weight", "head.bias"} if part == "head" else len(changed) > 20
    for name in changed:
        assert torch.equal(start[name].flatten().sort().values, other[name].flatten().sort().values)
    if part == "head":
        rows_of = [{tuple(row.tolist()) for row in weights["head.weight"]} for weights in (start, other)]
        assert rows_of[0] == rows_of[1]


def test_another_start_of_what_is_not_there_is_one_sentence(ask_for):
    with pytest.raises(RibError, match=r"method\.other_start\.shuffled: expected head or all, got 'tail'"):
        finetune(ask_for("model=mini_tiny", "+method=other_start", "method.other_start.shuffled=tail"))
