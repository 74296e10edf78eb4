"""Every method of conf/: composed, built, and run through the whole pipeline on a few images."""

from __future__ import annotations

import inspect
import math
import re
from itertools import permutations
from pathlib import Path

import pytest

from rib.config.shipped import conf_dir, options, shipped_nodes
from rib.methods.base import Method
from rib.models.weights import equal
from rib.pipeline import finetune
from rib.runs import method_stack
from rib.runs.resolve import resolve
from rib.runs.store import RunStore
from rib.training.module import FineTuner

METHODS = [name for name in options("method") if name not in ("finetune", "pretrained")]
TRAIN = [name for name in METHODS if "ingredients" not in shipped_nodes("method")[name]]
QUICK = ("model=mini_tiny", "epochs=1", "data.images_per_class=2", "data.limit=40")


@pytest.mark.parametrize("name", METHODS)
def test_it_is_documented_and_made_from_its_file(ask_for, name):
    spec = resolve(ask_for(*QUICK, f"+method={name}"))
    method = method_stack.build_method(spec.config, name, probe=None)
    assert isinstance(method, Method)
    assert method.name == name
    text = type(method).__doc__ or ""
    assert "In a config::" in text or "in the module's docstring" in text
    documented = set(re.findall(r"^\s{4,12}(\w+): ", text, re.MULTILINE))
    node = shipped_nodes("method")[name]
    assert set(node) - {"_target_", "lr", "reestimate"} <= documented, name
    header = Path(conf_dir(), "method", f"{name}.yaml").read_text().split(f"\n{name}:")[0]
    assert "python -m rib.train" in header
    assert "Cost" in header
    assert re.search(r"\bCosts?\b", text)
    everywhere = " ".join((text + (inspect.getmodule(type(method)).__doc__ or "")).split())
    assert re.search(r"Differs from the official code \(\S+/\S+,|[Tt]here is no official code", everywhere)
    assert name == "rib_soup" or re.search(r"arXiv\s+\d{4}\.\d{5}", text + inspect.getmodule(type(method)).__doc__)
    assert re.search(r"\bDoes\s+not\s+stack\s+with\b|stacks\s+with|refused\s+where", text)


@pytest.mark.parametrize("pair", method_stack.CLASHES, ids=lambda pair: "+".join(sorted(pair)))
def test_what_cannot_be_stacked_is_in_both_docstrings(ask_for, pair):
    for one, other in permutations(pair):
        assert other in type(method_stack.build_method(ask_for(*QUICK, f"+method={one}"), one, probe=None)).__doc__


# One that penalises, one that has other weights, and one that merges.
AT_ONCE = ("ewc", "lora", "wise_ft")
RUNS = [name if name in AT_ONCE else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]


@pytest.mark.parametrize("name", RUNS)
def test_it_runs_to_its_number(ask_for, store, name):
    run = finetune(ask_for(*QUICK, f"+method={name}"))
    metrics = run.metrics()
    assert metrics["method"] == name
    assert math.isfinite(metrics["robustness_improvement"]["value"])
    assert metrics["robustness_improvement"]["low"] <= metrics["robustness_improvement"]["high"]
    if name not in ("output_ensemble", "visual_prompt"):
        start = RunStore(store).one(method="pretrained").weights()
        assert {n: t.shape for n, t in run.weights().items()} == {n: t.shape for n, t in start.items()}


class Killed(Exception):
    """Stands for kill -9."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TRAIN, "ema+ftp", "ewc+surgical"])
def test_a_killed_fit_goes_on_to_the_same_weights_bit_for_bit(ask_for, tmp_path, monkeypatch, name):
    steps = ("epochs=2", "batch_size=8", "data.limit=40", "data.images_per_class=1", "checkpoint.every_minutes=0")
    suite = ("suite.targets=[imagenet_a]", "suite.reported=[]", "model=mini_tiny")
    method = "+method=[" + name.replace("+", ",") + "]"
    more = ("+method.lp_ft.probe.epochs=1",) if name == "lp_ft" else ()
    whole = finetune(ask_for(method, *steps, *suite, *more, f"paths.runs={tmp_path / 'whole'}"))
    asked = ask_for(method, *steps, *suite, *more)

    def dying(self, batch, batch_idx):
        if self.global_step == 6 and {m.name for m in self.methods} >= set(name.split("+")):
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(FineTuner, "on_train_batch_start", dying)
        with pytest.raises(Killed):
            finetune(asked)
    again = finetune(asked)
    assert again.key == whole.key
    assert equal(again.weights(), whole.weights())
