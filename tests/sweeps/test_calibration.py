"""What a run that nobody made yet is expected to cost, by the time of its model."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rib.sweeps.calibration import START, Calibration, read_calibration

EACH = Calibration(train=4.0, score=1.0, fisher=20.0, read=0.5, batch_norm=True)


def run(method=None, seen=1000, source=200, augment="none", cache="auto", trained=True, **options):
    """Return what an estimate reads of a run: 200 source images, five epochs in batches of 25, 300 images to score."""
    return SimpleNamespace(
        trains=trained,
        source=range(source) if method != "pretrained" else None,
        images_trained=seen if trained else 0,
        images={"a": range(100), "b": range(200)},
        config=SimpleNamespace(
            method={} if method in (None, "pretrained") else {method: options},
            data=SimpleNamespace(augment=augment, cache=cache),
            trainer={"accelerator": "cpu"},
            batch_size=25,
        ),
    )


@pytest.mark.parametrize(
    ("spec", "fit"),
    [
        (run(), 4100),
        (run("l2sp", strength=1.0), 4100),
        (run("linear_probe", train="frozen"), 200),
        (run("linear_probe", train="unfrozen_norms"), 4100),
        (run("linear_probe", train="frozen", augment="flip"), 1000),
        (run("lwf"), 4300),
        (run("lwf", augment="flip"), 5100),
        (run("lwf", seen=200), 1100),
        (run("ewc", samples=50), 5100),
        (run("ewc", samples=1000), 8100),
        (run("ewc", samples=50, fisher="identity"), 4100),
    ],
)
def test_a_fit_costs_its_passes_through_the_network(spec, fit):
    assert EACH.fit(spec) == pytest.approx(START + fit)


def test_what_trains_nothing_costs_no_fit():
    assert EACH.fit(run("pretrained", trained=False)) == EACH.fit(run("wise_ft", trained=False)) == 0


def test_scoring_counts_every_model_of_a_curve():
    assert EACH.evaluate(run()) == 300
    assert EACH.evaluate(run("wise_ft", curve=None)) == 300
    assert EACH.evaluate(run("wise_ft", curve=[0.0, 1.0])) == 900


def test_the_first_pass_decodes_and_later_ones_do_not():
    assert EACH.reading(run("pretrained", trained=False)) == 150
    assert EACH.reading(run()) == 0
    assert EACH.reading(run(cache="off")) == 650


@pytest.mark.parametrize("content", ["{", '{"train": 1.0, "score": 1.0}', '{"train": "x"}'])
def test_a_calibration_of_another_version_is_none(tmp_path, content):
    (tmp_path / "file.json").write_text(content)
    assert read_calibration(tmp_path / "file.json") is None
