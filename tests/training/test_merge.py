"""Runs made from others: ingredients found or made first, merged, scored in one pass, invalid ones refused."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch

from rib.data.scan import scan
from rib.data.transform import Transform, read_image
from rib.data.worlds import find_data
from rib.errors import RibError
from rib.models.weights import average, equal, interpolate, save_weights
from rib.pipeline import finetune
from rib.runs.resolve import resolve
from rib.runs.store import RunStore

QUICK = ("model=mini_tiny", "epochs=1", "data.images_per_class=3", "data.limit=60")


@pytest.fixture
def made(ask_for):
    """Makes a run of a few images, and gives it back."""
    return lambda *overrides: finetune(ask_for(*QUICK, *overrides))


@pytest.fixture
def shared_store(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")


@pytest.mark.slow
def test_wise_ft_makes_its_ingredient_and_is_between(made, store, capfd):
    run = made("+method=wise_ft", "method.wise_ft.alpha=.25")
    assert "wise_ft needs finetune (source mini R, seed 0)" in capfd.readouterr().err
    end, start = RunStore(store).one(method="finetune"), RunStore(store).one(method="pretrained")
    assert equal(run.weights(), interpolate(start.weights(), end.weights(), 0.25))
    metrics = run.metrics()
    assert metrics["method"] == "wise_ft"
    assert metrics["options"]["method.wise_ft.alpha"] == 0.25
    used = {"label": "finetune", "source": "imagenet_r", "fingerprint": end.key}
    assert metrics["ingredients"] == [{**used, "weights": end.read_json("fit.json")["weights"]}]
    assert metrics["protocol"]["epochs"] == 1
    assert len(RunStore(store).finished()) == 3


@pytest.mark.slow
def test_alpha_1_is_the_ingredient_and_alpha_0_the_start(made, store):
    ends = [made("+method=wise_ft", f"method.wise_ft.alpha={alpha}") for alpha in (0, 1)]
    assert equal(ends[0].weights(), RunStore(store).one(method="pretrained").weights())
    assert equal(ends[1].weights(), RunStore(store).one(method="finetune").weights())
    assert ends[0].metrics()["robustness_improvement"]["value"] == 0
    fine = RunStore(store).one(method="finetune").metrics()["robustness_improvement"]
    assert ends[1].metrics()["robustness_improvement"] == fine


@pytest.mark.slow
def test_a_curve_in_one_pass_equals_runs_of_their_own(made):
    curve = made("+method=wise_ft", "method.wise_ft.curve=[0,.25,1]")
    alone = made("+method=wise_ft", "method.wise_ft.alpha=.25")
    points = {point["label"]: point for point in curve.metrics()["curve"]}
    assert list(points) == ["0", "0.25", "0.5", "1"]
    assert points["0.25"]["accuracy"] == alone.metrics()["accuracy"]
    assert points["0.25"]["robustness_improvement"] == alone.metrics()["robustness_improvement"]
    assert points["0.5"]["accuracy"] == curve.metrics()["accuracy"]
    with (curve.folder / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["alpha"]) for row in rows] == [0, 0.25, 0.5, 1]
    assert float(rows[1]["ri"]) == pytest.approx(alone.metrics()["robustness_improvement"]["value"])
    assert (curve.folder / "figures" / "curve.png").is_file()


@pytest.mark.slow
def test_a_killed_curve_is_scored_again_where_it_stopped(made, monkeypatch):
    whole = made("+method=wise_ft", "method.wise_ft.curve=[0,1]")
    expected = (whole.folder / "metrics.json").read_text()
    (whole.folder / "metrics.json").unlink()
    lost = next(whole.folder.glob("predictions/imagenet_a.*.npz"))
    kept = next(whole.folder.glob("predictions/imagenet_r.*.npz"))
    lost.unlink()
    before = kept.stat().st_mtime_ns
    again = made("+method=wise_ft", "method.wise_ft.curve=[0,1]")
    assert lost.is_file()
    assert kept.stat().st_mtime_ns == before
    a, b = again.metrics(), __import__("json").loads(expected)
    assert [a[key] for key in ("accuracy", "robustness_improvement", "curve")] == [
        b[key] for key in ("accuracy", "robustness_improvement", "curve")
    ]


@pytest.mark.slow
def test_alpha_is_chosen_on_what_was_held_out(made):
    # Enough images of each class that one can be spared.
    run = made(
        "+method=wise_ft", "method.wise_ft.choose=true", "data.holdout=.3", "data.images_per_class=5", "data.limit=300"
    )
    metrics = run.metrics()
    assert 0 <= metrics["notes"]["wise_ft.chosen_alpha"] <= 1
    assert metrics["protocol"]["holdout"] == 0.3


def test_choosing_without_a_held_out_part_is_refused_before_anything_is_trained(made, store):
    for wrong in (("+method=wise_ft", "method.wise_ft.choose=true"), ("+method=soup", "method.soup.choice=greedy")):
        with pytest.raises(RibError, match=r"expected held-out images, by the accuracy on which.*data\.holdout"):
            made(*wrong)
    assert RunStore(store).finished() == []


@pytest.mark.slow
def test_an_ingredient_that_was_trained_on_what_chooses_is_refused(made):
    whole = made("+method=finetune", "data.limit=300", "suite.targets=[imagenet_a]", "suite.reported=[]")
    for ingredient in (str(whole.folder), "'finetune data.holdout=0'", "'finetune data.subset_seed=4'"):
        with pytest.raises(
            RibError, match=r"may have been trained on the held-out images: expected data\.holdout=0\.3"
        ):
            made("+method=wise_ft", f"method.wise_ft.ingredients=[{ingredient}]", "data.holdout=.3", "data.limit=300")


def test_an_ingredient_that_was_trained_on_the_same_photographs_is_refused_where_something_chooses(made):
    ask_it = ("+method=wise_ft", "dataset=imagenet_drawing", "data.holdout=.3", "data.limit=300")
    with pytest.raises(RibError, match="trained on photographs that imagenet_drawing is made from as well"):
        made(*ask_it, "method.wise_ft.ingredients=['finetune dataset=imagenet_cartoon']")


@pytest.mark.slow
def test_the_papers_soup_is_the_mean_of_its_four(made, store):
    run = made("+method=soup")
    names = ("pretrained", "finetune", "ewc", "lwf")
    four = [RunStore(store).one(method=name).weights() for name in names]
    assert equal(run.weights(), average(four))
    assert set(run.metrics()["best_ingredient"]) == set(run.metrics()["accuracy"])
    assert run.metrics()["notes"]["soup.ingredients"] == 4


@pytest.mark.slow
def test_a_stack_is_the_method_over_the_rest(made, store):
    run = made("+method=[ewc,lines]", "method.ewc.strength=3")
    part = RunStore(store).one(method="ewc")
    assert part.metrics()["options"]["method.ewc.strength"] == 3
    assert run.metrics()["method"] == "ewc+lines"
    assert run.metrics()["ingredients"][0]["fingerprint"] == part.key


@pytest.mark.slow
def test_ingredients_by_text_and_by_folder(made, store):
    other = made("+method=finetune", "seed=3")
    run = made("+method=soup", f"method.soup.ingredients=['finetune seed=+1','{other.folder}',pretrained]")
    seeds = sorted(r.metrics()["seed"] for r in RunStore(store).finished(method="finetune"))
    assert seeds == [1, 3]
    assert [part["fingerprint"] for part in run.metrics()["ingredients"]][1] == other.key


@pytest.mark.slow
def test_the_rib_soup_scores_each_target_without_its_own_fine_tune(made, store):
    suite = "suite.sources=[imagenet_a,imagenet_r,imagenet_sketch]"
    run = made("+method=rib_soup", suite, "suite.targets=[imagenet_a,imagenet_r,imagenet_sketch,imagenet_v2]")
    parts = {m["source"]: r for r in RunStore(store).finished(method="finetune") for m in [r.metrics()]}
    assert set(parts) == {"imagenet_a", "imagenet_sketch"}
    assert equal(run.weights(), average([parts["imagenet_sketch"].weights(), parts["imagenet_a"].weights()])) or equal(
        run.weights(), average([parts["imagenet_a"].weights(), parts["imagenet_sketch"].weights()])
    )
    # On A only the fine-tune on Sketch is left, on Sketch only that on A.
    for target, left in (("imagenet_a", "imagenet_sketch"), ("imagenet_sketch", "imagenet_a")):
        assert np.array_equal(run.predictions(target).top5, parts[left].predictions(target).top5)
    assert run.metrics()["best_ingredient"]["imagenet_a"]["gain"] == 0


@pytest.mark.slow
def test_a_rib_soup_that_leaves_out_a_family_is_compared_with_none_of_it(made):
    suite = ("suite.sources=[imagenet_cartoon,imagenet_r,imagenet_sketch]", "suite.targets=[imagenet_drawing]")
    run = made("+method=rib_soup", *suite, "suite.reported=[]", "method.rib_soup.leave_out=family", "epochs=2")
    (best,) = run.metrics()["best_ingredient"].values()
    assert best["label"] == "finetune on imagenet_sketch"
    assert best["gain"] == 0


@pytest.mark.slow
def test_an_ensemble_from_stored_logits_is_the_ensemble_of_a_pass(made, store):
    passed = made("+method=output_ensemble")
    assert not passed.weights_file.exists()
    logits = made("+method=output_ensemble", "predictions.logits=true")
    a, b = passed.predictions("imagenet_v2"), logits.predictions("imagenet_v2")
    assert np.allclose(a.log_prob, b.log_prob, atol=1e-6)
    start, end = (RunStore(store).one(method=m) for m in ("pretrained", "finetune"))
    both = [torch.tensor(r.predictions("imagenet_v2").log_prob).exp() for r in (start, end)]
    assert np.allclose(np.exp(a.log_prob), (both[0] + both[1]) / 2, atol=1e-6)
    assert passed.metrics()["num_parameters"] == 2 * end.metrics()["num_parameters"]


@pytest.mark.slow
def test_lp_ft_shares_its_probe_with_linear_probe(made, store):
    probe = made("+method=linear_probe")
    run = made("+method=lp_ft")
    assert [r.key for r in RunStore(store).finished(method="linear_probe")] == [probe.key]
    assert run.metrics()["seed"] == 0
    made("+method=lp_ft", "method.lp_ft.probe.epochs=2")
    assert len(RunStore(store).finished(method="linear_probe")) == 2
    assert len(RunStore(store).finished(method="lp_ft")) == 2


@pytest.mark.slow
def test_at_learning_rate_zero_lp_ft_is_its_probe(made, store):
    run = made("+method=lp_ft", "optimizer.lr=0", "method.lp_ft.probe.lr=.01")
    assert equal(run.weights(), RunStore(store).one(method="linear_probe").weights())
    assert not equal(run.weights(), RunStore(store).one(method="pretrained").weights())


@pytest.mark.slow
def test_what_an_ingredient_is_asked_decides_the_key(ask_for):
    def key(*overrides):
        return resolve(ask_for(*QUICK, "+method=wise_ft", *overrides)).training_key

    assert key() == key("trainer=ddp", "data.workers=2")
    different = {key(), key("seed=1"), key("method.wise_ft.alpha=.4"), key("epochs=2"), key("dataset=imagenet_a")}
    assert len(different) == 5
    assert key("method.wise_ft.ingredients=[ewc]") == resolve(ask_for(*QUICK, "+method=[ewc,wise_ft]")).training_key


@pytest.fixture
def on_a_batch_norm_net(ask_for, tmp_path):
    """Runs of a small ConvNet with BatchNorm, its weights random."""
    model = timm.create_model("mobilenetv3_small_050")
    save_weights(model.state_dict(), tmp_path / "net.safetensors")
    options = ("model=timm", "model.name=mobilenetv3_small_050", f"model.weights={tmp_path / 'net.safetensors'}")
    quick = ("model.transform.size=32", "suite.targets=[imagenet_a]", "suite.reported=[]", "data.limit=60", "epochs=1")
    return lambda *overrides: finetune(ask_for(*options, *quick, "batch_size=16", *overrides))


@pytest.mark.slow
def test_a_last_image_left_alone_is_not_worth_a_batch_of_statistics(on_a_batch_norm_net):
    even, odd = (on_a_batch_norm_net("+method=wise_ft", f"data.limit={n}", "batch_size=20") for n in (64, 65))
    assert even.metrics()["notes"]["batch_norm.images"] == odd.metrics()["notes"]["batch_norm.images"] == 64


@pytest.mark.slow
def test_batch_norm_statistics_are_estimated_anew_after_averaging_but_never_at_an_end(on_a_batch_norm_net, store):
    half = on_a_batch_norm_net("+method=wise_ft")
    kept = on_a_batch_norm_net("+method=wise_ft", "method.wise_ft.reestimate=false")
    end = on_a_batch_norm_net("+method=wise_ft", "method.wise_ft.alpha=1")
    fine, start = RunStore(store).one(method="finetune"), RunStore(store).one(method="pretrained")
    between = interpolate(start.weights(), fine.weights(), 0.5)
    assert equal(kept.weights(), between)
    assert equal(end.weights(), fine.weights())
    assert half.metrics()["notes"]["batch_norm.images"] == 60
    assert "batch_norm.images" not in kept.metrics()["notes"]
    weights = half.weights()
    moved = {name for name in between if not torch.equal(between[name], weights[name])}
    assert moved
    assert all("running" in name or "num_batches" in name for name in moved)
    frozen = on_a_batch_norm_net("+method=wise_ft", "batch_norm=frozen")
    (fine,) = (r for r in RunStore(store).finished(method="finetune") if r.key != fine.key)
    assert equal(frozen.weights(), interpolate(start.weights(), fine.weights(), 0.5))
    assert fine.metrics()["notes"]["batch_norm.layers"] > 0


@pytest.mark.slow
def test_new_statistics_are_those_of_the_source_through_the_merged_weights(on_a_batch_norm_net, ask_for, store):
    """The first BatchNorm's mean and variance, by hand from the images that the run was trained on."""
    run = on_a_batch_norm_net("+method=wise_ft")
    weights = run.weights()
    catalog, root = find_data(ask_for())
    tree = scan(catalog["imagenet_r"], root).limit(60)
    transform = Transform(32, 0.875, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    images = torch.stack([read_image(tree.folder / path, transform) for path in tree.paths]) / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (transform.mean, transform.std))
    features = torch.nn.functional.conv2d((images - mean) / std, weights["conv_stem.weight"], stride=2, padding=1)
    assert torch.allclose(weights["bn1.running_mean"], features.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(weights["bn1.running_var"], features.var((0, 2, 3)), rtol=1e-3)


@pytest.mark.slow
def test_lwf_on_a_folder_of_images_is_keyed_by_what_is_in_it(made, ask_for, tmp_path):
    from PIL import Image

    own = tmp_path / "own"
    own.mkdir()
    for i in range(4):
        Image.new("RGB", (60, 50), (60 * i, 20, 90)).save(own / f"{i}.png")
    folder = f"method.lwf.inputs={own}"
    run = made("+method=lwf", folder, "suite.targets=[imagenet_a]", "suite.reported=[]")
    plain = made("+method=lwf", "suite.targets=[imagenet_a]", "suite.reported=[]")
    assert not equal(run.weights(), plain.weights())
    copied = tmp_path / "copied"
    shutil.copytree(own, copied)

    def key(place):
        return resolve(ask_for(*QUICK, "+method=lwf", f"method.lwf.inputs={place}")).training_key

    assert key(copied) == key(own) == run.key
    Image.new("RGB", (60, 50)).save(copied / "4.png")
    assert key(copied) != key(own)


WRONG = [
    (("+method=[wise_ft,soup]",), "wise_ft and soup both merge finished runs"),
    (("+method=[linear_probe,lora]",), "linear_probe and lora cannot be stacked: a linear probe freezes everything"),
    (("+method=[lora,ewc]",), "ewc and lora cannot be stacked: ewc would hold the adapter"),
    (("+method=[pretrained,ewc]",), "pretrained trains nothing and cannot be stacked"),
    (("+method=wise_ft", "method.wise_ft.ingredients=[]"), "expected a list of runs"),
    (("+method=wise_ft", "method.wise_ft.ingredients=[finetun]"), "expected a run folder or a method, got 'finetun'"),
    (
        ("+method=wise_ft", "method.wise_ft.ingredients=['ewc method.ewc.strenth=1']"),
        "did you mean method.ewc.strength",
    ),
    (("+method=wise_ft", "method.wise_ft.ingredients=[finetune,ewc]"), "expected one run, got 2"),
    (("+method=wise_ft", "method.wise_ft.ingredients=[visual_prompt]"), "cannot be averaged .* its prompt"),
    (("+method=soup", "method.soup.ingredients=[output_ensemble]"), "cannot be averaged .* no weights"),
    (
        ("+method=[ewc,output_ensemble]", "method.output_ensemble.ingredients=[lwf]"),
        "expected an entry finetune, which stands for the run's other methods",
    ),
    (("+method=lp_ft", "+method.lp_ft.probe.stength=1"), "method.lp_ft.probe"),
    (("+method=wise_ft", "method.wise_ft.alpha=1.5"), "method.wise_ft.alpha: expected a number from 0"),
    (("+method=[ewc,wise_ft]", "method.ewc.strength=-1"), "ewc.strength"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("overrides", "sentence"), WRONG, ids=[" ".join(o) for o, _ in WRONG])
def test_misuse_is_one_sentence(made, overrides, sentence):
    with pytest.raises(RibError, match=sentence) as error:
        made(*overrides, "suite.targets=[imagenet_a]", "suite.reported=[]")
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_folder_that_is_no_run_or_of_another_model_is_refused(made, store, tmp_path):
    with pytest.raises(RibError, match=r"is not a finished run; expected a folder with metrics\.json"):
        made("+method=wise_ft", f"method.wise_ft.ingredients=[{tmp_path}]")
    other = made("model=mini_small", "+method=finetune")
    with pytest.raises(RibError, match=r"fine-tuned from other pretrained weights \(mini_small\) than model=mini_tiny"):
        made("+method=wise_ft", f"method.wise_ft.ingredients=[{other.folder}]")


@pytest.mark.slow
def test_an_ingredient_that_fails_is_named(made):
    with pytest.raises(RibError, match="wise_ft needs finetune, which failed: training diverged: the loss became NaN"):
        made("+method=wise_ft", "optimizer.lr=1e30", "epochs=3")


@pytest.mark.slow
def test_two_processes_that_need_the_same_ingredient_make_it_once(store, cache):
    line = [sys.executable, "-m", "rib.train", *QUICK, f"paths.runs={store}", f"paths.cache={cache}", "data.root=null"]
    both = [
        subprocess.Popen(
            [*line, "trainer=cpu", "+method=wise_ft", f"method.wise_ft.alpha={alpha}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ,
        )
        for alpha in (0.2, 0.4)
    ]
    outputs = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    trained = sum(err.count("scoring finetune: 420/420") for _, err in outputs)
    assert trained <= 1
    assert len(RunStore(store).finished(method="finetune")) == 1
    assert len(RunStore(store).finished(method="wise_ft")) == 2
