"""Filters of runs: names with wildcards, conditions on recorded options, and what is said if nothing matches."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from rib.errors import RibError
from rib.reporting.selection import describe_filters, options_of, select_runs
from rib.runs.run import Run
from tests.support import whole


def made(folder: Path, config: str = "", **fields):
    """A result whose config.yaml has the given text."""
    folder.mkdir(parents=True)
    if config:
        (folder / "config.yaml").write_text(config)
    metrics = copy.deepcopy(whole.metrics(**{"model": "mini_tiny", "source": "imagenet_r", **fields}))
    return Run(folder), metrics


@pytest.fixture
def runs(tmp_path):
    rate = "optimizer:\n  lr: null\n  momentum: 0.9\nmethod:\n  ewc:\n    strength: 3.0\ngiven:\n- seed\n"
    several = [
        made(tmp_path / "a", "optimizer:\n  lr: null\n  momentum: 0.9\n", method="finetune"),
        made(tmp_path / "b", rate, method="ewc", seed=1),
        made(tmp_path / "c", method="lwf+wise_ft", model="mini_small", options={"optimizer.lr": 0.1}),
        made(tmp_path / "d", method="external", seed=None, options={"method.external.name": "mine"}),
    ]
    for run, metrics in several:
        metrics["protocol"]["lr"] = {"c": 0.1, "d": None}.get(run.folder.name, 0.005)
    return several


def names(found):
    return "".join(run.folder.name for run, _ in found)


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, "abcd"),
        ({"models": "mini_*"}, "abcd"),
        ({"models": ["mini_small"]}, "c"),
        ({"methods": "ewc"}, "b"),
        ({"methods": ["ewc", "lwf*"]}, "bc"),
        ({"methods": "mine"}, "d"),
        ({"methods": ["ewc", "lora"]}, "b"),
        ({"sources": ["imagenet_r", "imagenet_a"]}, "abcd"),
        ({"seeds": 1}, "b"),
        ({"seeds": [1, None]}, "bd"),
        ({"suites": "seven"}, "abcd"),
        ({"where": "optimizer.lr=0.005"}, "ab"),
        ({"where": {"optimizer.lr": [0.005, 0.1]}}, "abc"),
        ({"where": "optimizer.lr>0.01"}, "c"),
        ({"where": "method.ewc.strength=3"}, "b"),
        ({"where": "model=mini_small"}, "c"),
        ({"where": "optimizer.momentum=0.9,seed=1"}, "b"),
        ({"models": "mini_tiny", "methods": "*", "where": ["optimizer.lr<1", "seed=0"]}, "a"),
    ],
    ids=str,
)
def test_runs_are_selected_by_every_filter_given(runs, filters, found):
    assert names(select_runs(runs, **filters)) == found


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        (
            {"models": "mini_tinny"},
            "models: expected models with runs, got mini_tinny; available: mini_tiny, mini_small; did you mean",
        ),
        ({"methods": ["ewc", "lwff"]}, "got lwff; available: finetune, ewc, lwf+wise_ft, mine; did you mean"),
        ({"methods": "lora"}, "got lora; available: finetune"),
        ({"seeds": 7}, "seeds: expected seeds with runs, got 7; available: 0, 1"),
        ({"suites": "papr"}, "suites: expected suites with runs, got papr; available: seven; did you mean paper?"),
        ({"models": "mini_small", "methods": "ewc"}, "with runs with models=mini_small, got ewc; available: lwf+wise_"),
        ({"where": "optimizer.lrr=1"}, "where: optimizer.lrr: there is no such option; did you mean optimizer.lr?"),
        ({"where": "lr=0.005"}, "where: lr: there is no such option; did you mean optimizer.lr?"),
        ({"where": "strengh=3"}, "where: strengh: there is no such option; did you mean method."),
        (
            {"where": "optimizer.lr=0.5"},
            "expected runs with optimizer.lr=0.5, found none; their optimizer.lr is 0.005 (2 times), 0.1",
        ),
        ({"where": "method.lora.rank=4"}, "none of them has the option method.lora.rank"),
    ],
    ids=str,
)
def test_a_filter_without_a_match_names_the_nearest_or_the_known(runs, filters, said):
    with pytest.raises(RibError) as caught:
        select_runs(runs, **filters)
    assert said in str(caught.value)


def test_an_option_that_rib_chose_has_the_chosen_value(runs):
    options = options_of(*runs[1])
    assert options["optimizer.lr"] == 0.005
    assert options["method.ewc.strength"] == 3.0
    assert (options["model"], options["dataset"], options["method"]) == ("mini_tiny", "imagenet_r", "ewc")
    assert "given" not in options


def test_filters_are_spelt_as_on_the_command_line():
    assert describe_filters(methods="ewc", seeds=[0, None], where="epochs>=5") == (
        "methods=ewc seeds=[0,null] where='epochs>=5'"
    )
    assert describe_filters(models=None, where=None) == ""
