"""Runs that start from a probe: every method, the identities, a killed probe, and its weights as a plain network."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

import rib
from rib.models.build import build
from rib.models.features import head_input
from rib.models.weights import save_weights
from rib.pipeline import find_finished, finetune
from rib.runs.freshness import out_of_date_in
from rib.runs.images import data_of
from rib.runs.resolve import resolve
from rib.runs.run import Run, weights_digest
from rib.runs.store import RunStore
from rib.runtime.precision import exact_float32
from rib.runtime.weights_file import weights_file_digest
from rib.sweeps.rescore import evaluate
from rib.training import probe as fitting

QUICK = ("model=mini_tiny", "head=probe", "head.reference=imagenet_val", "suite.targets=[imagenet_r,imagenet_v2]")
SMALL = ("epochs=1", "data.images_per_class=2", "head.l2=[0.001,0.1]")


@pytest.fixture(scope="module")
def run(tmp_path_factory, cache) -> Run:
    """A fine-tuned run from a probe, in a store of its own."""
    return finetune(asked(tmp_path_factory.mktemp("probes") / "runs", cache))


def asked(store, cache, *more: str):
    from rib.config import compose

    here = (f"paths.runs={store}", f"paths.cache={cache}", "trainer=cpu", "data.root=null", "figures.format=png")
    return compose(*here, *QUICK, *SMALL, *more)


@pytest.fixture
def again(run, cache):
    """Another command in the same store, so that the probe is there."""
    return lambda *more: asked(run.folder.parents[4], cache, *more)


def pretrained_of(run: Run) -> Run:
    return Run(run.folder.parents[2] / "none" / "pretrained" / run.metrics()["before"])


def test_the_pretrained_run_is_scikit_learn_s_probe(run, again):
    spec = resolve(again()).of_pretrained()
    probe = pretrained_of(run)
    metrics = probe.metrics()
    assert metrics["protocol"]["head"] == run.metrics()["protocol"]["head"] == "reference:imagenet_val"
    notes = metrics["notes"]
    assert notes["probe.images"] == len(spec.head_images) and notes["probe.l2"] in (0.001, 0.1)
    assert 0.3 < notes["probe.held_out"] <= 1
    features, labels, logits = [], [], []
    model = build(spec.start.with_weights(probe.weights_file))
    with torch.no_grad(), exact_float32(), head_input(model.backbone, features.append):
        for images, own, _ in data_of(spec).loader_of(spec.head_images):
            logits.append(model(images))
            labels.append(own)
    x, y = torch.cat(features).double().numpy(), torch.cat(labels).numpy()
    theirs = LogisticRegression(C=1 / (notes["probe.l2"] * len(y)), tol=1e-8, max_iter=20_000).fit(x, y)
    ids = [group[0] for group in spec.head_images.spec.groups]
    outputs = torch.cat(logits).double()
    assert np.abs(outputs[:, ids].softmax(dim=1).numpy() - theirs.predict_proba(x)).max() < 1e-3
    # The outputs of no class take no part.
    rest = torch.ones(1000, dtype=torch.bool)
    rest[ids] = False
    assert float(outputs.softmax(dim=1)[:, rest].sum(dim=1).max()) < 1e-20
    assert not list(probe.folder.glob("features*"))


@pytest.mark.slow
def test_untouched_it_has_no_change_and_a_learning_rate_of_zero_none_either(run, again):
    still = finetune(again("optimizer.lr=0.0"))
    assert still.metrics()["robustness_improvement"]["value"] == 0
    tensors = (Run(folder).weights() for folder in (still.folder, pretrained_of(run).folder))
    assert all(torch.equal(a, b) for a, b in zip(*(t.values() for t in tensors), strict=True))
    assert still.metrics()["before"] == run.metrics()["before"]


@pytest.mark.slow
def test_a_strength_of_zero_is_plain_fine_tuning_bit_for_bit(run, again):
    plain = run.weights()
    for method in ("ewc", "l2sp"):
        free = finetune(again(f"+method={method}", f"method.{method}.strength=0.0")).weights()
        assert all(torch.equal(plain[name], tensor) for name, tensor in free.items())


def test_a_killed_probe_goes_on_from_its_features_to_the_same_bits(run, again, tmp_path, cache, monkeypatch):
    whole = pretrained_of(run).weights()
    config = asked(tmp_path / "runs", cache, "+method=pretrained")
    fit, extract = fitting.fit_probe, fitting._extract

    def killed(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(fitting, "fit_probe", killed)
    with pytest.raises(KeyboardInterrupt):
        finetune(config)
    (left,) = (tmp_path / "runs").rglob("features.safetensors")
    assert left.stat().st_size > 240 * 64 * 4
    monkeypatch.setattr(fitting, "fit_probe", fit)
    monkeypatch.setattr(fitting, "_extract", lambda *args: pytest.fail("the features are there"))
    made = finetune(config)
    assert all(torch.equal(whole[name], tensor) for name, tensor in made.weights().items())
    assert not list((tmp_path / "runs").rglob("features.safetensors"))
    monkeypatch.setattr(fitting, "_extract", extract)


@pytest.mark.slow
def test_a_probe_with_other_weights_outdates_the_runs_that_start_from_it(run, tmp_path, cache, capsys):
    shutil.copytree(run.folder.parents[4], tmp_path / "runs")
    config, store = asked(tmp_path / "runs", cache), RunStore(tmp_path / "runs")
    made = find_finished(config)
    probe = pretrained_of(made)
    assert made.metrics()["start"]["weights"] == weights_digest(probe) and not out_of_date_in(store)
    weights = probe.weights()
    save_weights({**weights, "head.bias": weights["head.bias"] + 1}, probe.weights_file)
    fit = {**probe.read_json("fit.json"), "weights": weights_file_digest(probe.weights_file)}
    probe.write_json("fit.json", fit)
    assert find_finished(config) is None and made.key in out_of_date_in(store)
    assert finetune(config).metrics()["start"]["weights"] == fit["weights"]
    assert "the probe that it starts from" in capsys.readouterr().err
    assert float(made.weights()["head.bias"].mean() - run.weights()["head.bias"].mean()) > 0.5


def test_its_weights_are_a_plain_network_and_are_scored_and_analysed(run, again, tmp_path):
    loaded = rib.load(run.folder)
    model, _ = loaded.model()
    assert model.head.out_features == 1000
    score = rib.score(
        model, "suite.targets=[imagenet_r,imagenet_v2]", before=run.folder, data="mini", datasets=["imagenet_v2"]
    )
    assert score.robustness_improvement["value"] == 0
    (other,) = evaluate(_evaluate(run, again))
    assert other.folder == run.folder and "imagenet_a" in other.metrics("mine")["scores"]
    from rib.analysis.subject import Subject
    from rib.config.command_schema import AnalyzeConfig

    subject = Subject.of(run.folder, AnalyzeConfig(str(run.folder)))
    assert torch.equal(subject.model().backbone.head.weight, run.weights()["head.weight"])
    assert subject.pretrained == pretrained_of(run).folder


def _evaluate(run: Run, again):
    from rib.config import check_config, compose_node
    from rib.config.command_schema import EvaluateConfig

    words = (
        f"runs={run.folder}",
        f"paths.cache={again().paths.cache}",
        "suite.name=mine",
        "suite.targets=[imagenet_a]",
    )
    return check_config(compose_node("evaluate", *words, "trainer=cpu", "suite.reported=[]"), EvaluateConfig)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", ["ewc", "lwf", "linear_probe", "lp_ft", "wise_ft", "lora", "soup", "rib_soup", "[lwf,wise_ft]"]
)
def test_every_method_starts_from_the_probe(method, run, again):
    made = finetune(again(f"+method={method}"))
    assert made.metrics()["before"] == run.metrics()["before"]
    start, weights = pretrained_of(run).weights(), made.weights()
    assert start.keys() == weights.keys()
    backbone = [name for name in weights if not name.startswith("head.")]
    moved = any(not torch.equal(start[name], weights[name]) for name in backbone)
    assert moved != (method == "linear_probe")


@pytest.mark.slow
def test_two_processes_fit_the_same_probe(cache, tmp_path):
    # 240 images: of three batches of 100 the last is shorter, and only the first process has it.
    for size in (100,):
        words = (*QUICK, *SMALL, "+method=pretrained", f"evaluation.batch_size={size}", "data.root=null")
        trainers = {"one": ("trainer=cpu",), "two": ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")}
        weights = []
        for name, trainer in trainers.items():
            here = (f"paths.runs={tmp_path / name / str(size)}", f"paths.cache={cache}")
            line = [sys.executable, "-m", "rib.train", *words, *trainer, *here]
            done = subprocess.run(line, capture_output=True, text=True, timeout=200)
            assert done.returncode == 0, done.stderr
            weights.append(Run(Path(done.stdout.splitlines()[-1])).weights())
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_store_holds_one_probe_for_all_sources(run, again):
    store = RunStore(run.folder.parents[4])
    other = resolve(again("dataset=imagenet_v2"))
    assert store.run_of(other.of_pretrained()).folder == pretrained_of(run).folder
