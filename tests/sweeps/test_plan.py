"""The plan of a grid: its cells, shared runs, order, and cells that cannot be made."""

from __future__ import annotations

import json

import numpy as np
import pytest
from omegaconf import OmegaConf

from rib.config.check import check_config
from rib.config.command_schema import BenchmarkConfig
from rib.config.composition import load_config, to_yaml
from rib.config.launch import normalise_arguments
from rib.config.unchecked import compose_node
from rib.errors import RibError
from rib.pipeline import finetune
from rib.runs.store import RunStore
from rib.sweeps.calibration import START, Calibration
from rib.sweeps.cost import Costs
from rib.sweeps.plan import Plan, controls, make_plan
from rib.sweeps.scheduler import grid_state
from rib.sweeps.status import read_status
from tests.models.test_hub import look_at
from tests.support.hub import stand_in


@pytest.fixture
def plan_of(store, cache):
    def plan(*overrides: str) -> Plan:
        given = (f"paths.runs={store}", f"paths.cache={cache}", "trainer=cpu", "data.root=null", *overrides)
        return make_plan(
            check_config(compose_node("benchmark", *normalise_arguments(list(given))), BenchmarkConfig), RunStore(store)
        )

    return plan


def test_a_grid_is_its_product_and_what_it_needs_is_planned_once(plan_of):
    plan = plan_of("models=[mini_small]", "sources=[imagenet_a,imagenet_r]", "methods=[soup,lp_ft]", "seeds=[0,1]")
    assert len(plan.wanted) == 2 * 2 * 2
    assert plan.shared() == {"pretrained": 1, "finetune": 4, "ewc": 4, "lwf": 4, "linear_probe": 4, "Fisher": 2}
    seen: set[str] = set()
    for cell in plan.cells.values():
        assert seen.issuperset(cell.needs), f"{cell.label} stands before what it needs"
        seen.add(cell.id)


def test_what_the_grid_asks_for_and_another_cell_needs_is_one_cell(plan_of):
    plan = plan_of("models=[mini_small]", "sources=[imagenet_a]", "methods=[wise_ft,finetune]")
    assert [cell.spec.method for cell in plan.cells.values()] == ["pretrained", "finetune", "wise_ft"]
    assert len(plan.wanted) == 2


def test_an_axis_is_for_the_cells_that_have_its_option(plan_of):
    axes = "axes={method.ewc.strength:[0.1,10],optimizer.lr:[0.001,0.01]}"
    plan = plan_of("models=[mini_small]", "sources=[imagenet_a]", "methods=[finetune,ewc]", axes)
    values = [dict(cell.axes) for cell in plan.wanted]
    assert len([v for v in values if set(v) == {"optimizer.lr"}]) == 2
    assert len([v for v in values if set(v) == {"optimizer.lr", "method.ewc.strength"}]) == 4
    assert {cell.spec.options.get("method.ewc.strength") for cell in plan.wanted} == {None, 0.1, 10.0}


@pytest.mark.slow
def test_several_grids_are_one(plan_of):
    grids = "grids=[{methods:[finetune],seeds:[0,1,2]},{methods:[ewc],axes:{paper.ewc:[null,identity]}}]"
    plan = plan_of("models=[mini_small]", "sources=[imagenet_a]", grids)
    assert [cell.spec.method for cell in plan.wanted] == ["finetune"] * 3 + ["ewc"] * 2
    assert plan.wanted[-1].spec.config.method["ewc"]["fisher"] == "identity"


def test_an_axis_lists_its_values_by_the_kind_of_data_and_one_that_is_null_is_none(plan_of):
    axes = "axes={data.images_per_class:{mini:[1,2],user:[300]},steps:[3],epochs:null}"
    plan = plan_of("models=[mini_small]", "sources=[imagenet_a]", axes)
    assert [dict(cell.axes) for cell in plan.wanted] == [{"data.images_per_class": n, "steps": 3} for n in (1, 2)]


@pytest.mark.slow
def test_axes_take_the_place_of_a_studys(plan_of):
    study = ("study=size_study", "models=[mini_small]", "seeds=[0]")
    plan = plan_of(*study, "axes={data.images_per_class:[4],epochs:[2]}")
    assert [dict(cell.axes) for cell in plan.wanted] == [{"data.images_per_class": 4, "epochs": 2}]
    switched = plan_of(*study, "axes.steps=null", "axes.epochs=[5]")
    assert [dict(cell.axes)["epochs"] for cell in switched.wanted] == [5] * 6
    assert not any("steps" in cell.axes for cell in switched.wanted)


def test_a_studys_seeds_draw_images_of_their_own_nested_in_each(plan_of):
    plan = plan_of("study=size_study", "models=[mini_small]", "seeds=[0,1]")
    drawn = {(cell.axes["data.images_per_class"], cell.spec.config.seed): cell.spec.source for cell in plan.wanted}
    assert drawn[5, 0].digest != drawn[5, 1].digest
    for seed in (0, 1):
        assert set(drawn[1, seed].paths) < set(drawn[5, seed].paths) < set(drawn[20, seed].paths)
        assert (np.bincount(drawn[5, seed].labels) == 5).all()


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ("methods=[ewcc]",),
            "methods: expected a run folder or a method, got 'ewcc'; there is no method ewcc; did you mean ewc?",
        ),
        (("models=[mini_lagre]",), "models: mini_lagre: model=mini_lagre: there is no such model; did you mean"),
        (("sources=[imagenet_x]",), "there is no dataset imagenet_x"),
        (("seeds=[]",), "seeds: expected a list of at least one value, got []"),
        (
            ("axes={method.lwf.strength:[1]}",),
            "] has the option method.lwf.strength",
        ),
        (("axes={optimizer.lrr:[1]}",), "axes: optimizer.lrr: there is no such option; did you mean optimizer.lr?"),
        (("axes={steps:{mini:[3]}}",), "axes.steps: expected a list, or one for each kind of data, {mini: [..], user:"),
        (
            ("grids=[{model:[mini_small]}]",),
            "grids: expected an entry with any of models, sources, methods",
        ),
        (("+method=ewc",), "expected methods=[ewc] for a grid, got +method=ewc"),
    ],
)
def test_a_grid_that_makes_no_sense_is_one_sentence(plan_of, overrides, sentence):
    with pytest.raises(RibError) as error:
        plan_of("models=[mini_small]", *overrides)
    assert sentence in str(error.value)


def test_a_source_that_must_not_be_trained_on_is_a_refused_cell(plan_of, store, monkeypatch):
    from dataclasses import replace

    from rib.data import mini

    known = mini.catalog()
    specs = {**known.specs, "objectnet": replace(known["objectnet"], may_train=False, licence="No training.")}
    monkeypatch.setattr(mini, "catalog", lambda: replace(known, specs=specs))
    plan = plan_of("models=[mini_small]", "sources=[imagenet_a,objectnet]")
    outcome = grid_state(plan, RunStore(store))
    (reason,) = outcome.refused.values()
    assert "No training." in reason
    assert not outcome.failed


def test_planning_downloads_nothing_and_a_model_that_cannot_be_had_fails_alone(plan_of, tmp_path, monkeypatch):
    with stand_in() as hub:
        look_at(hub.url, tmp_path, monkeypatch)
        hub.files["timm/test_vit.r160_in1k/model.safetensors"] = file = tmp_path / "served"
        file.write_bytes(b"weights" * 1000)
        names = ("test_vit.r160_in1k", "test_vit2.r160_in1k")
        models = f"models=['timm model.name={names[0]}','timm model.name={names[1]}',mini_small]"
        plan = plan_of(models, "sources=[imagenet_a]")
    assert not [line for line in hub.asked if line.startswith("GET") and "resolve" in line]
    there, gone, mini = plan.wanted
    assert there.spec.start.num_bytes == 7000
    assert not there.spec.start.weights.exists()
    assert "its weights (timm/test_vit2.r160_in1k) are not in the cache" in gone.problem
    assert mini.problem is None


def test_a_cells_config_survives_its_file(plan_of, tmp_path):
    (cell,) = plan_of("models=[mini_small]", "sources=[imagenet_a]", "methods=[ewc]").wanted
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(cell.spec.config))
    assert load_config(file) == cell.spec.config


@pytest.mark.slow
def test_the_stand_and_the_cost_come_from_the_store(plan_of, ask_for, store, cache):
    short = ("data.images_per_class=2", "epochs=1", "suite.targets=[imagenet_a,imagenet_r]")
    one = ("models=[mini_small]", "sources=[imagenet_a]", "methods=[finetune,wise_ft]", *short)
    assert grid_state(plan_of(*one), RunStore(store)).done == set()
    run = finetune(ask_for("model=mini_small", "dataset=imagenet_a", *short))
    plan = plan_of(*one)
    outcome = grid_state(plan, RunStore(store))
    assert {plan.cells[id].spec.method for id in outcome.done} == {"pretrained", "finetune"}
    costs = Costs(RunStore(store))
    finetuned, merged = plan.wanted
    taken = run.metrics()["seconds"]
    assert costs.seconds(finetuned.spec) == taken["fit"] + taken["evaluate"]
    assert costs.seconds(merged.spec) is None
    longer = plan_of(*one[:2], "methods=[finetune]", *short, "epochs=3").wanted[0].spec
    assert costs.seconds(longer) == pytest.approx(3 * taken["fit"] + taken["evaluate"])
    assert 0.9 < costs.num_bytes(finetuned.spec) / run.weights_file.stat().st_size < 1.2
    report = read_status(plan, RunStore(store), costs)
    assert report["counts"] == {"done": 1, "running": 0, "failed": 0, "refused": 0, "missing": 1}
    assert json.loads(json.dumps(report)) == report


def test_the_benchmark_takes_what_train_takes():
    train, benchmark = (OmegaConf.to_container(compose_node(name)) for name in ("train", "benchmark"))
    assert {k: v for k, v in benchmark.items() if k in train} == train


def test_a_model_with_batch_norm_gets_its_control_once(plan_of, store, monkeypatch):
    plan = plan_of("models=[mini_small]", "sources=[imagenet_a]", "methods=[finetune,ewc]", "seeds=[0,1]")
    assert controls(plan, RunStore(store)).wanted == []
    monkeypatch.setattr("rib.sweeps.plan.metrics_if_current", lambda run, spec: {"notes": {"batch_norm.layers": 20}})
    lacking = controls(plan, RunStore(store)).wanted
    assert [(c.spec.method, c.spec.config.seed) for c in lacking] == [("finetune", 0), ("finetune", 1)]
    assert {str(c.spec.config.batch_norm) for c in lacking} == {"frozen"}
    plan = plan_of("models=[mini_small]", "sources=[imagenet_a]", "methods=[finetune]", "batch_norm=frozen")
    assert controls(plan, RunStore(store)).wanted == []


def test_control_runs_are_expected_before_anything_is_trained(plan_of, store):
    plan = plan_of("models=[mini_small]", "sources=[imagenet_a]", "methods=[pretrained,ewc,wise_ft]", "seeds=[0,1]")
    expected = controls(plan, RunStore(store), lambda spec: True).wanted
    assert [(c.spec.method, c.spec.config.seed) for c in expected] == [("finetune", 0), ("finetune", 1)]
    assert controls(plan, RunStore(store), lambda spec: False).wanted == []


def test_a_shared_fisher_is_expected_once(plan_of, store, monkeypatch):
    plan = plan_of("models=[mini_small]", "sources=[imagenet_a]", "methods=[ewc]", "seeds=[0,1]")
    costs, each = Costs(RunStore(store)), Calibration(0.0, 0.0, 7.0, 0.0, False)
    monkeypatch.setattr(costs, "calibration", lambda spec: each)
    images = len(plan.wanted[0].spec.source)
    start_up = costs.start_up("fork")
    besides = start_up.once + start_up.report + 3 * start_up.cell + 2 * START
    assert costs.grid_seconds([*plan.cells.values()], 1, "fork") == pytest.approx(besides + 7 * images)
