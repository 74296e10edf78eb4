"""Results on a user's own suites from Python: found, compared, by class, and with a probe per source."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import rib
from rib.data.suites.recorded import record_of
from rib.data.worlds import register, register_recorded
from rib.errors import RibError
from rib.metrics import originals_of
from rib.results.finished_run import FinishedRun
from tests.support.suite_store import add_run, suite


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("found")
    (root / "datasets").mkdir()
    pets = suite("pets", "Pets", {"photo": "Photographs", "web": "Web", "cut": "Cut-outs"}, 65, "web")
    art = suite("art", "Art", {"photo": "Photos", "paint": "Paintings", "draw": "Drawings"})
    for catalog in (pets, art):
        add_run(root, catalog, "photo", gain=-0.3)
        add_run(root, catalog, "photo", "ewc", gain=0.3)
    add_run(root, art, "paint", head="probe:paint")
    return root


def find(store, **filters) -> list[FinishedRun]:
    return list(rib.find_runs(runs=store, **filters))


def test_runs_of_a_suite_stand_together_and_show_as_a_table_of_their_own(store):
    found = rib.find_runs(runs=store)
    kinds = [run.metrics["data"]["kind"] for run in found]
    assert kinds == sorted(kinds)
    assert set(found.table()["data"]) == {"art", "pets"}
    html = found._repr_html_()
    assert html.count("<table>") == 2
    pets = html[html.index("<div>Pets</div>") :]
    assert "Web %" in pets
    assert "Web %" not in html[: html.index("<div>Pets</div>")]


def test_runs_on_two_suites_are_not_compared(store):
    art, pets = find(store, suite="art", source="photo")[0], find(store, suite="pets", source="photo")[0]
    with pytest.raises(RibError, match="one was scored on Art, the other on Pets"):
        rib.compare(art, pets)


def test_classes_have_the_names_that_a_run_was_scored_with(tmp_path):
    art = suite("art_before", "Art", {"photo": "Photos", "paint": "Paintings"})
    add_run(tmp_path, art, "photo", gain=0.3)
    register(replace(art, specs={name: replace(one, classes=one.classes[::-1]) for name, one in art.specs.items()}))
    (run,) = find(tmp_path, source="photo")
    assert run.images("paint")["label"]["class_1/0001.jpg"] == "class_1"


def test_a_damaged_file_of_another_suite_is_left_out_with_a_message(tmp_path, capsys):
    art = suite("art", "Art", {"photo": "Photos", "paint": "Paintings"})
    run, _ = add_run(tmp_path, art, "photo")
    (run.folder / "metrics.other.json").write_text("{")
    assert len(find(tmp_path)) == 2
    assert len(find(tmp_path, suite="art")) == 1
    assert "run left out: cannot read" in capsys.readouterr().err


def test_classes_have_the_suites_names(store):
    ewc, plain = (find(store, suite="pets", source="photo", method=name)[0] for name in ("ewc", "finetune"))
    table = rib.compare(ewc, plain).classes("cut")
    assert list(table.index) == [f"class_{i}" for i in range(60)]  # of 65 those with an image
    assert (table["images"] == 1).all()
    assert ewc.outputs("cut") == tuple((i,) for i in range(65))
    images = ewc.images("cut")
    assert list(images["label"][:2]) == ["class_0", "class_1"]
    assert images["correct"].mean() == pytest.approx(ewc.predictions("cut").accuracy)


def test_the_differences_of_classes_are_those_of_their_images(store):
    ewc, plain = (find(store, suite="art", source="photo", method=name)[0] for name in ("ewc", "finetune"))
    comparison = rib.compare(ewc, plain)
    table = comparison.classes("draw")
    label = ewc.predictions("draw").label
    right = ewc.predictions("draw").correct.astype(int) - plain.predictions("draw").correct.astype(int)
    means = [100 * right[label == i].mean() for i in range(7)]
    assert list(table["difference"]) == pytest.approx(means)
    assert (table["low"] <= table["difference"]).all()


def test_a_comparison_shows_whole_numbers_and_the_sources_of_both(store):
    first, second = find(store, suite="art", method="finetune")
    assert {first.metrics["source"], second.metrics["source"]} == {"photo", "paint"}
    html = rib.compare(first, second)._repr_html_()
    assert ">60<" in html
    assert "60.0" not in html.replace("60.00", "")
    assert "Photos (source)" in html
    assert "Paintings (source)" in html
    assert "(not in RI)" not in html


def test_each_probe_has_its_own_before_and_is_named(store):
    (probed,) = find(store, suite="art", source="paint")
    before = probed.before
    assert before is not None
    assert before.title == "vit, pretrained, probe on Paintings"
    assert before.key == probed.metrics["before"]


def test_outputs_of_a_subset_are_those_of_its_classes(tmp_path):
    art = suite("subset", "Subset", {"a": "A", "b": "B"}, 2)
    recorded = {**record_of(art), "outputs": [[1, 5], [7]]}
    run, metrics = add_run(tmp_path, art, "a")
    register_recorded("subset", recorded)
    metrics["data"] |= {"kind": "subset2", "suite": recorded}
    register_recorded("subset2", recorded)
    assert FinishedRun(run, metrics).outputs("b") == ((1, 5), (7,))


def test_photographs_of_two_classes_may_have_one_file_name():
    paths = ["dog/1.jpg", "cat/1.jpg", "dog/2.jpg"]
    assert len(set(originals_of(paths))) == 2
    assert len(set(originals_of(paths, np.array([0, 1, 0])))) == 3
    assert originals_of(["dog/1.png"], np.array([0])) == originals_of(["hound/1.jpg"], np.array([0]))
