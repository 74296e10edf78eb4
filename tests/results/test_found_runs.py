"""What a store holds, narrowed by what a user knows of a run; an unknown name says the nearest."""

from __future__ import annotations

import re

import pandas as pd
import pytest

import rib
from rib.results.finished_run import EXTERNAL_NAME, FinishedRun
from rib.results.found_runs import FoundRuns
from rib.runs.run import Run
from tests.results.test_finished_run import Cells


@pytest.fixture
def find(toy):
    return lambda **what: rib.find_runs(runs=toy.root, **what)


def test_a_search_is_a_sequence_and_a_table(toy, find):
    found = find(model="mini_tiny", source="imagenet_a")
    assert {run.key for run in found} == {toy.plain.key, toy.ewc.key}
    assert list(found) == [found[i] for i in range(len(found))] == [*found[:1], *found[1:]]
    assert isinstance(found[1:], FoundRuns) and toy.ewc in found and toy.other_model not in found
    table = found.table()
    assert table.loc[toy.ewc.key, "ri"] == toy.ewc.ri.value
    assert table.loc[toy.ewc.key, "source_after"] == 100 * toy.ewc.metrics["accuracy"]["imagenet_a"]["after"]
    assert {"steps=4", "data.limit=40", "optimizer.lr=0.05"} == set(table.loc[toy.plain.key, "options"].split(", "))
    assert not table["trial"].any()


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ({"method": "ewc"}, {"ewc"}),
        ({"method": ["ewc", "finetune"], "seed": 0}, {"plain", "ewc", "other_model"}),
        ({"seed": [1, 2]}, set()),
        ({"method": "finetune", "model": "mini_small"}, {"other_model"}),
        ({"method": "finetune", "model": "mini_tiny", "where": "data.limit=40"}, {"plain"}),
        ({"where": "data.limit=30"}, {"other_images"}),
        ({"where": {"data.limit": 30, "model": "mini_tiny"}}, {"other_images"}),
        ({"where": "method.ewc.strength=1"}, {"ewc"}),  # a default
        ({"where": ["method.ewc.strength=1.0", "seed=0"], "suite": "seven"}, {"ewc"}),
        ({"method": ["ewc"], "where": "optimizer.lr<=5e-2"}, {"ewc"}),
        ({"method": "e*", "model": "mini_*"}, {"ewc"}),
        ({"method": "ewc", "where": "optimizer.momentum=0.9"}, {"ewc"}),
        ({"method": "ewc", "where": "optimizer.lr=0.01"}, set()),
        ({"method": "lwf"}, set()),  # rib knows it, the store has none
        ({"method": ["ewc", "lwf"], "source": "imagenet_r"}, set()),
    ],
)
def test_a_search_finds_what_matches_all(toy, find, what, names):
    assert {run.key for run in find(**what)} == {getattr(toy, name).key for name in names}


def test_the_pretrained_models_are_found_too(toy, find):
    found = find(source="none")
    assert toy.plain.before in found and {run.metrics["method"] for run in found} == {"pretrained"}


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ({"method": "ewcc"}, "method: none of the runs in "),
        ({"method": "ewcc"}, "; did you mean ewc?"),
        ({"method": "lwf+wiseft"}, "has method lwf+wiseft; available: "),
        ({"model": "mini_tinny"}, "has model mini_tinny; available: mini_small, mini_tiny; did you mean mini_tiny?"),
        ({"source": "imagenet-a"}, "has source imagenet-a; available: imagenet_a, none; did you mean imagenet_a?"),
        ({"suite": "sevn"}, "has suite sevn; available: seven"),
        ({"where": "optimizer.lrr=0.1"}, "where: optimizer.lrr: there is no such option; did you mean optimizer.lr?"),
        ({"where": "optimizer.lr"}, "where: "),
    ],
)
def test_a_search_for_what_does_not_exist_says_the_nearest(find, what, sentence):
    with pytest.raises(rib.RibError, match=re.escape(sentence)):
        find(**what)


def test_an_empty_search_says_what_there_is(toy, find):
    for what, end in (
        ({"method": "lora"}, "has method lora; available: "),
        ({"model": "mini_small", "method": "lora"}, "with model=mini_small has method lora; available: "),
        ({"seed": 7}, "has seed 7; available: 0"),
        ({"where": "optimizer.lr=7"}, "found none; their optimizer.lr is "),
    ):
        found = find(**what)
        assert len(found) == 0 and end in repr(found) and end in found._repr_html_(), repr(found)
        assert repr(found[:1]).endswith("runs in " + str(toy.root) + ">"), "a slice was not searched for"


def test_it_shows_as_a_table(toy, find):
    found = find()
    page = Cells(found._repr_html_())
    texts = [text for _, text in page.texts]
    assert texts[0] == f"{len(found)} runs in {toy.root}" and "at most 40 images" in texts[1]
    assert toy.ewc.key[:8] in texts
    many = FoundRuns([toy.ewc] * 30, found._store)
    assert "and 10 more" in many._repr_html_() and many._repr_html_().count("<tr>") == 22
    assert repr(many).splitlines()[-1].strip() == "and 10 more" and len(repr(many).splitlines()) == 22


def test_a_table_reads_no_metrics_and_a_run_reads_its_own_when_asked(toy, find, monkeypatch):
    whole = FoundRuns([FinishedRun(run.run, run.metrics) for run in find()], find()._store)
    found = find()
    monkeypatch.setattr(Run, "metrics", lambda *_: None)
    pd.testing.assert_frame_equal(found.table(), whole.table(), check_exact=True)
    with pytest.raises(rib.RibError, match=r"has no metrics.json any more; list the runs of its store again"):
        found[0].title  # noqa: B018
    monkeypatch.undo()
    assert found[0] == whole[0] and found[0].metrics == whole[0].metrics


def test_nothing_found_is_an_empty_table(toy, find, tmp_path):
    for none in (find(method="lwf"), rib.find_runs(runs=tmp_path), rib.find_runs(runs=tmp_path, seed=0)):
        assert not none and len(none) == 0 and none.table().empty
        assert "ri" in none.table().columns and "0 runs in" in none._repr_html_() and "0 runs in" in repr(none)


def test_seeds_are_integers_external_weights_have_their_name_and_pretrained_models_no_ri(toy, find):
    table = find().table()
    assert (
        str(table["seed"].dtype) == "Int64"
        and table.loc[toy.ewc.key, "seed"] == 0
        and "0.0 " not in repr(table["seed"])
    )
    start = toy.plain.before
    assert start.metrics["robustness_improvement"]["value"] == 0, "the file has one"
    assert start.ri is None and pd.isna(table.loc[start.key, "ri"]) and "RI" not in repr(start)
    named = FinishedRun(toy.ewc.run, {**toy.ewc.metrics, "method": "external", "options": {EXTERNAL_NAME: "bare"}})
    row = FoundRuns([named], find()._store).table().iloc[0]
    assert (row["method"], row["options"]) == ("bare", "") and named.title == "mini_tiny, bare on mini A, seed 0"
    assert "mini_tiny, bare (external) on mini A" in repr(named)
    assert "bare (external)" in repr(FoundRuns([named], find()._store))
