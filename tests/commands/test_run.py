"""Whole runs on mini: identities that must hold exactly, and numbers recomputed without rib.metrics."""

from __future__ import annotations

import csv
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rib.errors import RibError
from rib.models.weights import distance
from rib.pipeline import finetune
from rib.runs.measure import read_paths
from rib.runs.resolve import resolve

SEVEN = [
    "imagenet_v2",
    "imagenet_a",
    "imagenet_r",
    "imagenet_sketch",
    "objectnet",
    "imagenet_cartoon",
    "imagenet_drawing",
]
SHORT = ("epochs=1", "data.images_per_class=6", "suite.targets=[imagenet_a,imagenet_r]", "model=mini_small")
"""A run of about a second: 144 images of ImageNet-R, two targets."""


def equal(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def start_weights(ask_for, *overrides):
    return finetune(ask_for(*SHORT, *overrides, "+method=pretrained")).weights()


def test_an_untouched_model_has_an_ri_of_exactly_zero(ask_for):
    run = finetune(ask_for("+method=pretrained"))
    metrics = run.metrics()
    improvement = metrics["robustness_improvement"]
    assert improvement["targets"] == SEVEN
    assert improvement["value"] == improvement["low"] == improvement["high"] == 0
    assert all(entry["before"] == entry["after"] for entry in metrics["accuracy"].values())
    assert metrics["seed"] is None
    assert metrics["source"] == "none"
    assert metrics["options"] == {}


@pytest.mark.slow
def test_a_learning_rate_of_zero_gives_exactly_zero(ask_for):
    run = finetune(ask_for(*SHORT, "optimizer.lr=0"))
    assert run.metrics()["robustness_improvement"]["value"] == 0
    assert equal(run.weights(), start_weights(ask_for))


@pytest.mark.slow
@pytest.mark.parametrize("fisher", ["diagonal", "identity"])
def test_ewc_of_strength_zero_is_plain_fine_tuning_bit_for_bit(ask_for, fisher):
    plain = finetune(ask_for(*SHORT))
    ewc = finetune(ask_for(*SHORT, "+method=ewc", "method.ewc.strength=0", f"method.ewc.fisher={fisher}"))
    assert ewc.folder != plain.folder
    assert equal(ewc.weights(), plain.weights())
    assert not equal(plain.weights(), start_weights(ask_for))


@pytest.mark.slow
def test_the_distance_from_the_start_shrinks_as_ewc_grows_stronger(ask_for):
    start = start_weights(ask_for)
    moved, capped = [], []
    for strength in (0, 0.1, 1, 10, 100, 1000, 1e6):
        run = finetune(ask_for(*SHORT, "+method=ewc", f"method.ewc.strength={strength}"))
        moved.append(distance(run.weights(), start))
        capped.append(run.metrics()["notes"]["ewc.capped_share"])
        assert all(t.isfinite().all() for t in run.weights().values())
    print("strength 0 .1 1 10 100 1000 1e6: moved", moved, "capped", capped)
    assert all(later < earlier for earlier, later in itertools.pairwise(moved))
    assert moved[-1] < 0.6 * moved[0]
    assert capped == sorted(capped)
    assert capped[0] == 0
    assert capped[-1] > 0.5  # the rest has no Fisher at all: outputs that no image of mini needs


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(ask_for, tmp_path):
    one = finetune(ask_for(*SHORT))
    again = finetune(ask_for(*SHORT, f"paths.runs={tmp_path / 'elsewhere'}"))
    other = finetune(ask_for(*SHORT, "seed=1"))
    assert one.key == again.key != other.key
    assert equal(one.weights(), again.weights())
    assert not equal(one.weights(), other.weights())


@pytest.mark.slow
def test_accumulated_batches_give_the_weights_of_one_larger_batch(ask_for):
    whole = finetune(ask_for(*SHORT, "batch_size=52", "+method=ewc"))
    parts = finetune(ask_for(*SHORT, "batch_size=26", "accumulate=2", "+method=ewc"))
    start = start_weights(ask_for)
    assert distance(whole.weights(), parts.weights()) < 1e-3 * distance(whole.weights(), start)


@pytest.mark.slow
def test_evaluation_batch_sizes_score_the_same(ask_for, tmp_path):
    small = finetune(ask_for(*SHORT, "evaluation.batch_size=7"))
    large = finetune(ask_for(*SHORT, "evaluation.batch_size=64", f"paths.runs={tmp_path / 'elsewhere'}"))
    assert small.key == large.key
    for dataset in ("imagenet_a", "imagenet_r", "imagenet_val"):
        one, other = small.predictions(dataset), large.predictions(dataset)
        assert np.array_equal(one.top5[:, 0], other.top5[:, 0])
        assert np.allclose(one.log_prob, other.log_prob, atol=1e-4)


@pytest.mark.parametrize(
    "source",
    [name if name in ("imagenet_r", "objectnet") else pytest.param(name, marks=pytest.mark.slow) for name in SEVEN],
)
def test_each_of_the_seven_is_a_source_and_a_target(ask_for, source):
    run = finetune(
        ask_for(f"dataset={source}", "epochs=1", "data.images_per_class=2", "model=mini_tiny", "data.limit=80")
    )
    metrics = run.metrics()
    assert metrics["robustness_improvement"]["targets"] == [name for name in SEVEN if name != source]
    assert set(metrics["accuracy"]) == {*SEVEN, "imagenet_val"}
    assert math.isfinite(metrics["robustness_improvement"]["value"])


@pytest.mark.slow
def test_metrics_can_be_recomputed_from_the_predictions_without_rib_metrics(ask_for, store):
    run = finetune(ask_for("suite=paper", "dataset=imagenet_cartoon", "epochs=1"))
    metrics = json.loads((run.folder / "metrics.json").read_text())
    before_folder = next((store / "mini" / "mini_large" / "none" / "pretrained").iterdir())

    def columns(folder: Path, dataset: str):
        return np.load(folder / "predictions" / f"{dataset}.{metrics['scores'][dataset]['key']}.npz")

    def accuracy(folder: Path, dataset: str) -> float:
        hit = (lambda c: c["top5"][:, 0] == c["label"])(columns(folder, dataset))
        if dataset != "imagenet_c":
            return hit.mean()
        cells: dict[str, dict[str, list[bool]]] = {}
        for path, h in zip(read_paths(store, metrics["scores"][dataset]["images"]), hit, strict=True):
            corruption, severity = path.split("/")[-4:-2]
            cells.setdefault(corruption, {}).setdefault(severity, []).append(h)
        return np.mean([np.mean([np.mean(hits) for hits in c.values()]) for c in cells.values()])

    for dataset, entry in metrics["accuracy"].items():
        assert entry["before"] == pytest.approx(accuracy(before_folder, dataset), abs=1e-12)
        assert entry["after"] == pytest.approx(accuracy(run.folder, dataset), abs=1e-12)
    targets = [d for d in [*SEVEN, "imagenet_c"] if d != "imagenet_cartoon"]
    expected = 100 * np.mean([accuracy(run.folder, d) - accuracy(before_folder, d) for d in targets])
    improvement = metrics["robustness_improvement"]
    assert improvement["targets"] == targets
    assert improvement["value"] == pytest.approx(expected, abs=1e-9)
    own = [d for d in targets if d not in ("imagenet_drawing", "imagenet_c")]
    expected = 100 * np.mean([accuracy(run.folder, d) - accuracy(before_folder, d) for d in own])
    assert improvement["without_derived"]["value"] == pytest.approx(expected, abs=1e-9)
    assert improvement["without_derived"]["targets"] == own
    assert improvement["low"] < improvement["value"] < improvement["high"]


def test_what_a_run_leaves_behind(ask_for):
    run = finetune(ask_for(*SHORT, "+method=ewc"))
    names = {p.name for p in run.folder.iterdir()}
    assert {"config.yaml", "metrics.json", "weights.safetensors", "predictions", "env.json", "log", "figures"} <= names
    assert "last.ckpt" not in names
    assert {p.name for p in (run.folder / "figures").iterdir()} == {
        f"{name}.{ending}" for name in ("change", "loss") for ending in ("png", "txt")
    }
    assert all(t.dtype == torch.float32 for t in run.weights().values())
    assert not any(name.startswith(("model.", "backbone.")) for name in run.weights())
    rows = list(csv.DictReader((run.folder / "log" / "version_0" / "metrics.csv").read_text().splitlines()))
    steps = [r for r in rows if r["loss"]]
    assert len(steps) == 3
    assert float(steps[0]["penalty/ewc"]) == 0
    environment = json.loads((run.folder / "env.json").read_text())
    assert set(environment) == {"versions", "platform", "device", "threads", "command", "git"}
    metrics = run.metrics()
    for key in (
        "schema",
        "model",
        "source",
        "method",
        "options",
        "seed",
        "suite",
        "fingerprint",
        "data",
        "protocol",
        "seconds",
        "num_parameters",
    ):
        assert key in metrics
    assert metrics["protocol"]["precision"] == "32-true"
    assert metrics["protocol"]["warmup_steps"] == 0


@pytest.mark.slow
def test_the_same_question_is_answered_from_the_store(ask_for, monkeypatch):
    run = finetune(ask_for(*SHORT))
    stamp = (run.folder / "metrics.json").stat().st_mtime_ns
    monkeypatch.setattr("rib.pipeline.make", lambda *_: pytest.fail("it was made again"))
    assert finetune(ask_for(*SHORT)).folder == run.folder
    assert finetune(ask_for(*SHORT, "data.workers=0", "evaluation.batch_size=9")).folder == run.folder
    assert (run.folder / "metrics.json").stat().st_mtime_ns == stamp


@pytest.mark.slow
def test_force_runs_again_and_leaves_one_run(ask_for):
    run = finetune(ask_for(*SHORT))
    stamp, weights = (run.folder / "metrics.json").stat().st_mtime_ns, run.weights()
    again = finetune(ask_for(*SHORT, "force=true"))
    assert again.folder == run.folder
    assert (again.folder / "metrics.json").stat().st_mtime_ns > stamp
    assert equal(again.weights(), weights)
    assert [p.name for p in run.folder.parent.iterdir()] == [run.folder.name]


@pytest.mark.slow
def test_another_suite_scores_only_what_is_missing(ask_for, monkeypatch):
    run = finetune(ask_for("model=mini_tiny", "epochs=1", "data.images_per_class=2"))
    scored = {p.name: p.stat().st_mtime_ns for p in (run.folder / "predictions").iterdir()}
    monkeypatch.setattr("rib.pipeline.fit", lambda *_: pytest.fail("it was trained again"))
    config = ask_for("model=mini_tiny", "epochs=1", "data.images_per_class=2", "suite=paper")
    pretrained = resolve(config).of_pretrained()
    assert finetune(config).folder == run.folder
    now = {p.name: p.stat().st_mtime_ns for p in (run.folder / "predictions").iterdir()}
    assert {n for n in now if n not in scored} == {f"imagenet_c.{pretrained.score_keys['imagenet_c']}.npz"}
    assert all(now[n] == scored[n] for n in scored)
    assert run.metrics("seven")["suite"] == "seven"
    assert "imagenet_c" in run.metrics("paper")["robustness_improvement"]["targets"]
    assert run.metrics("paper")["accuracy"]["imagenet_c"]["cells"]


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_with_step_and_remedy(ask_for):
    with pytest.raises(RibError, match=r"became NaN or infinite at step \d+ \(lr .*try a smaller optimizer\.lr"):
        finetune(ask_for(*SHORT, "epochs=20", "optimizer.lr=1e6", "optimizer.warmup_steps=0"))


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("method.ewc.strength=-1", "method.ewc.strength: expected a finite number of 0 or more, got -1"),
        ("method.ewc.fisher=full", "method.ewc.fisher: expected diagonal or identity, got 'full'"),
        ("method.ewc.samples=0", "method.ewc.samples: expected at least 1 image"),
        ("optimizer.lr=-1", "optimizer.lr: expected a number of 0 or more, got -1"),
        ("epochs=-1", "epochs: expected a number of 0 or more, got -1"),
        ("data.holdout=1", "data.holdout: expected a fraction of at least 0 and below 1"),
        ("evaluation.precision=half", "evaluation.precision: expected one of"),
        ("data.root=/nowhere", "data.root: there is no folder /nowhere"),
        ("model.weights=/nowhere.pt", "model.weights: /nowhere.pt does not exist"),
    ],
)
def test_a_wrong_value_is_one_sentence(ask_for, override, sentence):
    with pytest.raises(RibError) as error:
        finetune(ask_for(*SHORT, "+method=ewc", override))
    assert sentence in str(error.value)


@pytest.mark.slow
def test_what_is_in_the_key_and_what_is_not(ask_for):
    base = resolve(ask_for(*SHORT, "+method=ewc"))
    same = (
        "data.workers=1",
        "evaluation.batch_size=3",
        "trainer.devices=2",
        "checkpoint.every_minutes=1",
        "suite=paper",
    )
    for override in same:
        assert resolve(ask_for(*SHORT, "+method=ewc", override)).training_key == base.training_key, override
    other = (
        "seed=1",
        "batch_size=32",
        "epochs=2",
        "optimizer.lr=.5",
        "optimizer.momentum=0",
        "method.ewc.strength=2",
        "data.limit=100",
        "data.images_per_class=3",
        "data.holdout=.2",
        "data.augment=flip",
        "data.image_backend=pil",
        "batch_norm=frozen",
        "clip=1",
        "accumulate=2",
        "precision=bf16-mixed",
        "model=mini_large",
        "dataset=imagenet_a",
    )
    keys = {resolve(ask_for(*SHORT, "+method=ewc", override)).training_key for override in other}
    assert len(keys | {base.training_key}) == len(other) + 1
    pretrained = base.of_pretrained()
    assert pretrained.training_key == replace(pretrained, config=ask_for(*SHORT, "seed=5")).training_key
    assert pretrained.score_keys == base.score_keys


@pytest.mark.slow
def test_the_fisher_is_made_once_for_all_strengths(ask_for, store, monkeypatch):
    finetune(ask_for(*SHORT, "+method=ewc"))
    kept = list((store / "memo").iterdir())
    assert [p.name.startswith("fisher-") for p in kept] == [True]
    monkeypatch.setattr("rib.methods.ewc.fisher_diagonal", lambda *_: pytest.fail("it was made again"))
    finetune(ask_for(*SHORT, "+method=ewc", "method.ewc.strength=7", "seed=3"))
    monkeypatch.undo()
    finetune(ask_for(*SHORT, "+method=ewc", "method.ewc.samples=20"))
    assert len(list((store / "memo").iterdir())) == 2


@pytest.mark.slow
def test_another_way_of_scoring_stands_beside_the_first(ask_for):
    quick = ("model=mini_tiny", "epochs=1", "data.images_per_class=1")
    run = finetune(ask_for(*quick))
    first = (run.folder / "metrics.json").read_bytes()
    for rule in ("first", "authors"):
        assert finetune(ask_for(*quick, f"data.label_rule={rule}")).folder == run.folder
    assert (run.folder / "metrics.json").read_bytes() == first
    assert [view["protocol"]["label_rule"] for view in run.all_metrics()].count("max") == 1
    assert {view["protocol"]["label_rule"] for view in run.all_metrics()} == {"max", "first", "authors"}


@pytest.mark.slow
def test_one_question_has_one_key_however_it_is_spelt(ask_for):
    base = resolve(ask_for("+method=ewc"))
    for spelling in (
        ["method.ewc.strength=1"],
        ["optimizer.lr=0.005"],
        ["epochs=5"],
        ["optimizer.weight_decay=0"],
        ["precision=32-true"],
        [f"optimizer.warmup_steps={base.recipe.warmup_steps}"],
    ):
        same = resolve(ask_for("+method=ewc", *spelling))
        assert same.training_key == base.training_key, spelling
        assert same.options == {}, spelling
    assert resolve(ask_for("+method=[ewc,finetune]")).method == "ewc"
    assert resolve(ask_for("+method=[finetune,ewc]")).training_key == base.training_key
    other = resolve(ask_for("+method=ewc", "recipe.mini.lr=.01"))
    assert other.training_key != base.training_key
    assert other.options == {"optimizer.lr": 0.01}
    assert resolve(ask_for("+method=ewc", "trainer.sync_batchnorm=true")).training_key != base.training_key
    assert resolve(ask_for("+method=pretrained", "epochs=1", "seed=3", "optimizer.lr=1")).options == {}


@pytest.mark.slow
@pytest.mark.parametrize("strength", ["1e30", "1e300"])
def test_no_strength_makes_ewc_diverge(ask_for, strength):
    run = finetune(ask_for(*SHORT, "+method=ewc", f"method.ewc.strength={strength}"))
    assert all(t.isfinite().all() for t in run.weights().values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("optimizer.lr=abc", "optimizer.lr: expected a number of 0 or more, got 'abc'"),
        ("optimizer.warmup_steps=ten", "optimizer.warmup_steps: expected a number of steps, 0 or more, got 'ten'"),
        ("optimizer.warmup_steps=-1", "optimizer.warmup_steps: expected a number of steps"),
        ("optimizer.momentum=-1", "optimizer: Invalid momentum value: -1"),
        ("dataset.name=imagenet_x", "there is no dataset imagenet_x; did you mean imagenet_"),
        ("suite.targets=[foo]", "there is no dataset foo"),
        ("evaluation.batch_size=0", "evaluation.batch_size: expected 1 or more, got 0"),
        ("data.workers=-1", "data.workers: expected 0 or more, got -1"),
        ("clip=-1", "clip: expected a gradient norm above 0"),
        ("precision=foo", "precision: expected one of "),
        ("trainer.accelerator=foo", "trainer: "),
        ("paths.runs=/dev/null/x", "paths.runs: cannot make the folder /dev/null/x"),
        ("paths.cache=/dev/null/x", "paths.cache: cannot make the folder /dev/null/x"),
        ("method.ewc.samples=10.5", "method.ewc.samples: expected a value like 1000, got 10.5"),
        ("method.ewc.strength=null", "method.ewc.strength: expected a value like 1.0, got None"),
    ],
)
def test_a_value_of_the_wrong_kind_is_one_sentence(ask_for, override, sentence):
    with pytest.raises(RibError) as error:
        finetune(ask_for(*SHORT, "+method=ewc", override))
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_forced_run_that_was_killed_in_the_swap_is_found_again(ask_for):
    run = finetune(ask_for(*SHORT))
    weights = run.weights()
    run.folder.rename(run.folder.with_name(f"{run.key}.again"))
    assert equal(finetune(ask_for(*SHORT)).weights(), weights)
    assert [p.name for p in run.folder.parent.iterdir()] == [run.folder.name]
