"""Studies: tables against metrics.json and hand-computed values; the negative controls."""

from __future__ import annotations

from statistics import fmean

import numpy as np
import pandas as pd
import pytest
import torch

from rib.analysis.cka import layer_cka
from rib.config.check import check_config
from rib.config.command_schema import BenchmarkConfig, CKAConfig
from rib.config.launch import normalise_arguments
from rib.config.schema import PathsConfig
from rib.config.unchecked import compose_node
from rib.data import mini
from rib.data.worlds import title_of
from rib.errors import RibError
from rib.methods.build import build_object
from rib.models.weights import distance, equal
from rib.pipeline import finetune, get_or_make
from rib.reporting.summary import summarise
from rib.runs.resolve import resolve
from rib.runs.store import RunStore
from rib.studies.cka import Shift
from rib.studies.rows import rows
from rib.studies.size import Size
from rib.sweeps.plan import Cell, make_plan
from rib.sweeps.study import Made, write_study

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
        config = check_config(compose_node("benchmark", *normalise_arguments(list(given))), BenchmarkConfig)
        store = RunStore(root)
        plan = make_plan(config, store)
        for cell in plan.cells.values():
            assert cell.spec is not None
            get_or_make(cell.spec, store)
        cells = [Made(cell, cell.run, cell.metrics) for cell in plan.asked if cell.run and cell.metrics]
        assert len(cells) == len(plan.asked)
        return config, store, cells

    return made


@pytest.fixture(scope="module")
def plan(tmp_path_factory, cache):
    """The cells of a grid that is not made, with its config."""
    root = tmp_path_factory.mktemp("plans") / "runs"

    def planned(*overrides: str) -> tuple[BenchmarkConfig, list[Cell]]:
        given = (f"paths.runs={root}", f"paths.cache={cache}", "trainer=cpu", "data.root=null", *overrides)
        config = check_config(compose_node("benchmark", *normalise_arguments(list(given))), BenchmarkConfig)
        return config, [cell for cell in make_plan(config, RunStore(root)).asked if cell.spec is not None]

    return planned


@pytest.mark.slow
def test_a_row_is_the_mean_of_its_cells(make):
    _, store, made = make("methods=[finetune]", "sources=[imagenet_a,imagenet_r]", "seeds=[0,1]", "epochs=1")
    (found,) = rows(made, store)
    row = found.columns
    assert len(found.made) == 4
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
    text, files = write_study(build_object(config.draw), made, store, tmp_path)
    table = pd.read_csv(tmp_path / "table.csv")
    assert len(table) >= 1
    assert (tmp_path / "summary.md").read_text() == f"{text}\n"
    assert not any(word in text for word in ("nan", "None"))
    assert all(file.stat().st_size > 1000 for file in files if file.suffix == ".png")
    assert any(file.suffix == ".png" for file in files)
    if "mri" in table and name not in ("negative_controls", "cka_study"):  # one source, so that mRI is RI
        for m in made:
            row = table[(table["method"] == m.metrics["method"])]
            for axis, value in m.cell.axes.items():
                row = row[row[axis] == value]
            assert row["mri"].iloc[0] == pytest.approx(m.metrics["robustness_improvement"]["value"], abs=1e-9)


@pytest.mark.slow
def test_the_cka_of_a_study_is_that_of_the_analysis_and_what_has_no_weights_is_named(make):
    config, store, made = make("study=cka_study", *QUICK, *GRIDS["cka_study"])
    study = build_object(config.draw)
    table = study.table(made, store)
    for one in made:
        of = ["model", "method", "source"]
        here = table[(table[of] == [one.metrics[name] for name in of]).all(axis=1)]
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
    left = "mini_tiny, visual_prompt, mini_small, visual_prompt (its prompt is stored beside the weights"
    assert f"Left out: {left}" in text
    assert "rank correlation of RI" not in text, "two sources"
    for (_, source), cell in table[table["method"] == "finetune"].groupby(["curve", "source"]):
        assert f"{title_of(source, 'mini')} {cell['cka'].mean():.3f}, {cell['ri'].iloc[0]:+.2f}" in text


@pytest.mark.slow
def test_what_is_finished_is_drawn_and_what_lacks_its_partner_is_said(make, tmp_path):
    for name in ("pretraining_scale", "size_study", "cka_study"):
        config, store, made = make(f"study={name}", *QUICK, *GRIDS[name])
        for part in filter(None, (made[:1], made[:-1])):
            text, _ = write_study(build_object(config.draw), part, store, tmp_path / name)
            assert "nan" not in text
    config, store, made = make("study=negative_controls", *QUICK, *GRIDS["negative_controls"])
    others = [one for one in made if one.metrics["method"] != "finetune" or one.cell.axes]
    text, _ = write_study(build_object(config.draw), others, store, tmp_path / "controls")
    assert "not checked" in text


@pytest.mark.slow
def test_an_erratum_or_a_curve_without_its_other_side_is_left_out(make, tmp_path):
    config, store, made = make("study=ewc_study", *QUICK, *GRIDS["ewc_study"])
    text, _ = write_study(build_object(config.draw), made[1:], store, tmp_path / "ewc")
    assert "plain fine-tuning is not finished" in text
    config, store, made = make("study=paper_errata", *QUICK, *GRIDS["paper_errata"])
    assert len(build_object(config.draw).table(made[1:], store)) == 2
    with pytest.raises(RibError, match="has finished runs with and without its error"):
        build_object(config.draw).table(made[:1], store)


@pytest.mark.parametrize(
    ("study", "overrides", "sentence"),
    [
        ("lr_study", ("axes={batch_size:[16]}",), "axes: this study needs values of optimizer.lr, but mini_tiny"),
        ("size_study", ("axes={steps:[3]}",), "axes: this study needs values of data.images_per_class, but"),
        ("ewc_study", ("grids=[{methods:[ewc],axes:{method.ewc.strength:[1]}}]",), "compares with finetune, which is"),
        ("ewc_study", ("grids=[{methods:[finetune]},{methods:[ewc]}]",), "axes: the curve of ewc needs values of"),
        (
            "ewc_study",
            ("grids=[{methods:[finetune,lwf]}]",),
            "has no curve: draw.strength names an option to vary only for ewc",
        ),
        (
            "ewc_study",
            ("grids=[{methods:[finetune,visual_prompt]}]",),
            "weight drift of visual_prompt is undefined",
        ),
        (
            "negative_controls",
            ("grids=[{methods:[ewc]}]",),
            "compares with finetune, which is not among the grid's methods",
        ),
        ("paper_errata", ("grids=[{methods:[ewc]}]",), "needs one paper.* switch in each cell, mini_tiny, ewc on"),
        ("cka_study", ("draw.images=2",), "images: expected at least 4"),
        ("cka_study", ("draw.dataset=imagenet_w",), "draw.dataset: there is no 'imagenet_w'; expected any of imagenet"),
        ("cka_study", ("methods=[pretrained]",), "methods: a study needs fine-tuned cells, got none"),
    ],
)
def test_a_grid_that_a_study_cannot_draw_is_refused_before_anything_is_made(plan, study, overrides, sentence):
    config, cells = plan(f"study={study}", *QUICK, "sources=[imagenet_a]", *overrides)
    with pytest.raises(RibError) as error:
        build_object(config.draw).check(cells)
    assert sentence in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("study", GRIDS)
def test_a_studys_own_grid_can_be_drawn(plan, study):
    config, cells = plan(f"study={study}")
    build_object(config.draw).check(cells)


@pytest.mark.slow
def test_two_starts_under_one_name_and_axes_that_do_not_run_along_are_curves_of_their_own(make):
    lr = "axes={data.images_per_class:[1,2],steps:[3],optimizer.lr:[0.001,0.01]}"
    models = "models=[mini_tiny,'mini_tiny model.transform.crop_pct=0.8']"
    config, store, made = make("study=size_study", *QUICK, "sources=[imagenet_v2]", "seeds=[0]", models, lr)
    study = build_object(config.draw)
    table = study.table(made, store)
    assert (table.groupby("curve").size() == 2).all()
    assert table["curve"].nunique() == 4
    assert study.paragraph(table).count("with 1 image per class") == 4
    assert sorted(table["a_class"].unique()) == [1.0, 1.5]


@pytest.mark.slow
def test_a_run_made_before_with_the_same_images_is_not_one_of_those_whose_images_vary(make):
    seeds = ("sources=[imagenet_v2]", "seeds=[0,1]", "axes={data.images_per_class:[1],steps:[3]}")
    _, _, fixed = make("methods=[finetune]", *QUICK, *seeds)
    _, store, made = make("study=size_study", *QUICK, *seeds)
    assert fixed[0].cell.spec.source.digest == made[0].cell.spec.source.digest
    assert {one.run.key for one in fixed}.isdisjoint(one.run.key for one in made)
    assert [one.metrics["options"]["data.subset_seed"] for one in made] == [None, None]
    assert len(summarise([one.result for one in made], store, mini.catalog())) == 1


@pytest.mark.slow
def test_what_no_suite_scores_is_said_to_be_so(make, tmp_path):
    grid = ("sources=[imagenet_v2]", "seeds=[0]", "axes={data.images_per_class:[1,2],steps:[3]}", "suite.reported=[]")
    config, store, made = make("study=size_study", *QUICK, *grid)
    text, _ = write_study(build_object(config.draw), made, store, tmp_path)
    assert text.count("val not scored") == 2


@pytest.mark.parametrize(
    ("mris", "said"),
    [
        ((-4, -3, -2), "estimated mRI is worse than -1 points at every size"),
        ((-4, 0, -3), "estimated mRI is worse than -1 points at 2 of 3 sizes, not only at the smallest"),
        ((0, 0, -3), "estimated mRI is worse than -1 points at 1 of 3 sizes, not only at the smallest"),
        ((0, 0, 0), "estimated mRI is worse than -1 points at no size"),
    ],
)
def test_a_curve_that_does_not_rise_has_no_crossing(mris, said):
    records = [{"a_class": 10**i, "low": m - 1, "mri": m, "high": m + 1} for i, m in enumerate(mris)]
    assert Size()._crossing(records) == said


@pytest.mark.slow
def test_a_cell_whose_weights_are_gone_is_a_row_that_says_so(make):
    _, store, made = make("study=cka_study", *QUICK, *GRIDS["cka_study"])
    one = next(one for one in made if one.metrics["method"] == "finetune")
    aside = one.run.weights_file.with_suffix(".aside")
    one.run.weights_file.rename(aside)
    try:
        table = Shift(images=40).table([one], store)
    finally:
        aside.rename(one.run.weights_file)
    assert table["layer"].tolist() == [""]
    assert "cannot be read" in table["note"].item()
    assert Shift(images=40).figures(table) == {}


@pytest.mark.slow
def test_an_error_costs_the_difference_of_its_two_sides(make):
    config, store, made = make("study=paper_errata", *QUICK, *GRIDS["paper_errata"])
    table = build_object(config.draw).table(made, store)
    assert len(table) == 3, "two switches whose right side is one run are two rows"
    assert np.allclose(table["difference"], table["wrong"] - table["right"])
    one = next(m for m in made if m.cell.axes.get("paper.ewc") == "identity")
    assert table["wrong"].iloc[0] == pytest.approx(one.metrics["robustness_improvement"]["value"])


@pytest.mark.slow
def test_the_controls_that_must_be_exact_are(make):
    config, store, made = make("study=negative_controls", *QUICK, *GRIDS["negative_controls"])
    table = build_object(config.draw).table(made, store).set_index("control")
    assert set(table.index) == {"finetune", "pretrained", "lr 0", "shuffled labels", "shuffled head", "random start"}
    for control in ("pretrained", "lr 0"):
        assert (table.loc[control, ["mri", "low", "high"]] == 0).all()
        assert table.loc[control, "holds"]
    assert table.loc["random start", "mri"] < table.loc["finetune", "mri"]


def test_the_crossing_is_where_a_line_on_a_log_scale_says():
    one_seed = {"seeds_low": float("nan"), "seeds_high": float("nan")}
    found = [
        {"a_class": 1, "low": -5, "mri": -4, "high": -3, **one_seed},
        {"a_class": 100, "low": -2, "mri": 0, "high": 1, **one_seed},
    ]
    said = Size(threshold=-2.0)._crossing(found)
    assert said == "estimated mRI is worse than -2 points below 10 images per class [3.16, 100] over images only"
    assert Size(threshold=-9)._crossing(found) == "estimated mRI is worse than -9 points at no size"
    assert Size(threshold=5)._crossing(found) == "estimated mRI is worse than 5 points at every size"


def test_a_size_has_a_bracket_over_seeds_where_every_size_has_several():
    small = {"a_class": 1, "low": -5, "mri": -4, "high": -3, "seeds_low": -6, "seeds_high": -2}
    large = {"a_class": 100, "low": -2, "mri": 0, "high": 1, "seeds_low": -3, "seeds_high": 3}
    said = Size(threshold=-2.0)._crossing([small, large])
    assert said.endswith(
        " 10 images per class [3.16, 100] over images, [below the smallest, above the largest] over seeds"
    )
    said = Size(threshold=-2.0)._crossing([small, {**large, "seeds_low": float("nan"), "seeds_high": float("nan")}])
    assert said.endswith("[3.16, 100] over images only")


def test_the_digest_of_a_subset_is_in_the_result_and_in_the_studys_table(make):
    config, store, made = make("study=size_study", *QUICK, *GRIDS["size_study"])
    table = build_object(config.draw).table(made, store)
    for one in made:
        count = one.cell.axes["data.images_per_class"]
        trained_on = one.metrics["trained_on"]
        assert trained_on == {"num_images": min(60, 40 * count), "digest": one.cell.spec.source.digest}
        row = table[table["data.images_per_class"] == count].iloc[0]
        assert (row["images"], row["a_class"]) == (min(60, 40 * count), min(1.5, count))
        assert row["digests"] == trained_on["digest"]
        on_val = one.metrics["accuracy"]["imagenet_val"]["change"]
        assert row[["val_change", "val_low", "val_high"]].tolist() == pytest.approx(list(on_val.values()))


@pytest.mark.slow
def test_what_a_model_had_seen_places_it_and_another_objective_is_another_line(make):
    models = "models=[mini_tiny,'mini_small model.pretraining.objective=contrastive',"
    models += "'mini_medium model.pretraining.images=null']"
    config, store, made = make("study=pretraining_scale", *QUICK, *GRIDS["pretraining_scale"], models)
    study = build_object(config.draw)
    table = study.table(made, store).set_index("model")
    assert table["pretrained_on"].to_dict() == {"mini_tiny": 2000, "mini_small": 8000, "mini_medium": 0}
    text = study.paragraph(table.reset_index())
    assert "supervised, finetune: mini_tiny (2k) " in text
    assert "contrastive, finetune: mini_small (8k) " in text
    assert "Left out: mini_medium, of which model.pretraining.images is not given." in text
    assert set(study.figures(table.reset_index())) == {"scale"}


@pytest.mark.slow
def test_steps_take_the_place_of_epochs(ask_for):
    quick = ("model=mini_tiny", "data.limit=40", "suite.targets=[imagenet_a]", "suite.reported=[]", "batch_size=16")
    spec = resolve(ask_for(*quick, "steps=5"))
    assert (spec.recipe.epochs, spec.recipe.max_steps) == (2, 5)
    assert spec.options["steps"] == 5
    assert "epochs" not in spec.options
    five = finetune(ask_for(*quick, "steps=5", "optimizer.warmup_steps=0"))
    log = pd.read_csv(next((five.folder / "log").glob("*/metrics.csv"))).dropna(subset="loss")
    assert list(log["step"]) == [0, 1, 2, 3, 4]
    whole = finetune(ask_for(*quick, "steps=6", "optimizer.warmup_steps=0"))
    same = finetune(ask_for(*quick, "epochs=2", "optimizer.warmup_steps=0"))
    assert equal(whole.weights(), same.weights())
    with pytest.raises(RibError, match="steps and epochs: expected only one of them, got 5 and 1"):
        resolve(ask_for(*quick, "steps=5", "epochs=1"))


def test_shuffled_labels_are_the_same_images_and_labels_in_another_order(ask_for):
    plain, shuffled = (resolve(ask_for("model=mini_tiny", *more)) for more in ((), ("data.shuffled_labels=true",)))
    assert plain.source.paths == shuffled.source.paths
    assert sorted(plain.source.labels) == sorted(shuffled.source.labels)
    assert (plain.source.labels == shuffled.source.labels).mean() < 0.15
    assert plain.training_key != shuffled.training_key
    assert np.array_equal(plain.scored["imagenet_r"].labels, shuffled.scored["imagenet_r"].labels)


@pytest.mark.slow
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
