"""Cost of a run: images trained and scored, seconds, device; also of runs that older versions made."""

from __future__ import annotations

import itertools

import pytest

from rib.data.sampler import EpochBatches
from rib.pipeline import finetune
from rib.reporting.formatting import cost_line, cost_of, duration
from rib.runs.recipe import Recipe
from rib.runtime.processes import device_name
from tests.support.whole import metrics

SMALL = ("model=mini_tiny", "data.images_per_class=2", "suite.targets=[imagenet_a,imagenet_r]", "suite.reported=[]")


@pytest.mark.parametrize(("images", "batch", "accumulate"), [*itertools.product((1, 7, 8, 9), (2, 4), (1, 3))])
def test_images_trained_are_those_of_the_batches(images, batch, accumulate):
    sampler = EpochBatches(images, batch, seed=0)
    steps_per_epoch = -(-len(sampler) // accumulate)
    for steps in range(2 * steps_per_epoch + 1):
        batches, seen = itertools.cycle(range(len(sampler))), 0
        for step in range(steps):
            last = step % steps_per_epoch == steps_per_epoch - 1
            group = accumulate if not last else len(sampler) - accumulate * (steps_per_epoch - 1)
            seen += sum(sampler.size(next(batches)) for _ in range(group))
        epochs = -(-steps // steps_per_epoch)
        assert Recipe(epochs, 0.1, 0, "32-true", steps).images_trained(images, batch * accumulate) == seen
    assert Recipe(3, 0.1, 0, "32-true").images_trained(images, batch * accumulate) == 3 * images


@pytest.mark.slow
def test_a_run_records_its_cost_and_shows_it_again_from_the_store(ask_for, capsys):
    asked = ask_for(*SMALL, "steps=3", "batch_size=4")
    made = finetune(asked).metrics()
    scored = made["accuracy"]["imagenet_a"]["num_images"] + made["accuracy"]["imagenet_r"]["num_images"]
    assert made["cost"] == {"images_trained": 12, "images_scored": scored, "device": device_name("cpu")}
    line = cost_line(made)
    assert line.startswith(f"12 images trained, {scored:,} scored, ")
    assert line.endswith(" s on " + device_name("cpu"))
    told, store = capsys.readouterr(), "in the store since "
    assert line in told.out and store not in told.err
    finetune(asked)
    told = capsys.readouterr()
    assert line in told.out and store in told.err and "nothing was trained" in told.err
    before = finetune(ask_for(*SMALL, "+method=pretrained")).metrics()
    assert before["cost"]["images_trained"] == 0
    assert cost_line(before).startswith(f"{scored:,} images scored, ")


@pytest.mark.slow
def test_a_curve_is_scored_at_each_of_its_points(ask_for):
    run = finetune(ask_for(*SMALL, "epochs=1", "+method=wise_ft", "method.wise_ft.curve=[0.2,0.8]")).metrics()
    images = sum(entry["num_images"] for entry in run["accuracy"].values())
    assert run["cost"]["images_scored"] == images * (1 + len(run["curve"]))
    assert ", not counting the runs that it is made from" in cost_line(run)


def test_an_older_run_shows_what_is_known():
    old = metrics()
    assert cost_of(old) == {"images_trained": 0, "images_scored": 9}
    old = metrics(trained_on={"num_images": 300, "digest": "d"}, options={"steps": 2})
    assert cost_of(old)["images_trained"] == 2 * 64
    old = metrics(trained_on={"num_images": 3000, "digest": "d"}, seconds={"fit": 300.0, "evaluate": 100.0})
    assert cost_line(old) == "3,000 images trained, 9 scored, 7 min"


def test_a_duration_is_short():
    assert [duration(s) for s in (0.04, 8.84, 9.96, 89, 91, 12_600)] == [
        "0.0 s",
        "8.8 s",
        "10 s",
        "89 s",
        "2 min",
        "3.5 h",
    ]
