"""experiment=paper: the authors' choices and errors, each on its own switch, stamped, and changing nothing else."""

from __future__ import annotations

import pytest

from rib.errors import RibError
from rib.pipeline import finetune
from rib.runs.resolve import resolve

QUICK = ("model=mini_tiny", "data.limit=40", "epochs=1")


@pytest.fixture
def spec(ask_for):
    return lambda *overrides: resolve(ask_for(*QUICK, *overrides))


SWITCHES = [
    ("ewc", "paper.ewc=identity", ("method.ewc.fisher=identity", "method.ewc.strength=2")),
    ("lwf", "paper.lwf=restricted", ("method.lwf.logits=restricted",)),
    ("linear_probe", "paper.linear_probe=unfrozen_norms", ("method.linear_probe.train=unfrozen_norms",)),
    ("lora", "paper.lora=tokens_and_norms", ("method.lora.alpha=1", "method.lora.train=[tokens,norms]")),
    ("visual_prompt", "paper.visual_prompt=random", ("method.visual_prompt.init=randn", "optimizer.lr=.001")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "switch", "options"), SWITCHES, ids=[method for method, _, _ in SWITCHES])
def test_a_switch_is_the_options_that_it_stands_for(spec, method, switch, options):
    right, theirs = spec(f"+method={method}"), spec(f"+method={method}", switch)
    assert right.training_key != theirs.training_key
    assert theirs.training_key == spec(f"+method={method}", *options).training_key
    name, value = switch.split("=")
    assert theirs.protocol["switches"][name] == value
    assert right.protocol["switches"] == {}
    plain = spec("+method=finetune", switch)
    assert plain.training_key == spec("+method=finetune").training_key
    assert plain.protocol["switches"] == {}


def test_what_is_said_on_the_command_line_holds(spec):
    asked = spec("+method=ewc", "paper.ewc=identity", "method.ewc.strength=7")
    assert asked.config.method["ewc"]["strength"] == 7
    assert asked.config.method["ewc"]["fisher"] == "identity"


def test_the_probe_inside_lp_ft_is_theirs_too(spec):
    assert (
        spec("+method=lp_ft", "paper.linear_probe=unfrozen_norms").probe.key
        == spec("+method=linear_probe", "method.linear_probe.train=unfrozen_norms").training_key
    )


def test_objectnet_read_and_trained_as_theirs(spec):
    right, theirs = spec("dataset=objectnet"), spec("dataset=objectnet", "paper.objectnet=authors")
    assert str(theirs.config.data.label_rule) == "authors"
    assert right.training_key != theirs.training_key
    wrong_loss = spec("dataset=objectnet", "paper.objectnet_loss=unrestricted")
    assert wrong_loss.training_key != right.training_key
    assert wrong_loss.score_keys == right.score_keys
    elsewhere = spec("dataset=imagenet_r", "paper.objectnet_loss=unrestricted")
    assert elsewhere.training_key == spec("dataset=imagenet_r").training_key


def test_imagenet_c_cropped_again_is_another_way_of_scoring_it_and_nothing_else(spec):
    right, theirs = spec("suite=paper"), spec("suite=paper", "paper.resize_imagenet_c=true")
    assert right.training_key == theirs.training_key
    assert {name for name in right.score_keys if right.score_keys[name] != theirs.score_keys[name]} == {"imagenet_c"}
    assert theirs.protocol["switches"] == {"paper.resize_imagenet_c": True}
    assert right.scored["imagenet_c"].spec.precropped and not theirs.scored["imagenet_c"].spec.precropped


def test_the_experiment_turns_all_of_them_on_and_leaves_the_recipe(spec):
    asked = spec("experiment=paper", "+method=ewc")
    assert asked.config.suite.name == "paper"
    assert all(vars(asked.config.paper).values())
    assert asked.protocol["experiment"] == "paper"
    assert asked.protocol["switches"] == {
        "paper.ewc": "identity",
        "paper.objectnet": "authors",
        "paper.resize_imagenet_c": True,
    }
    usual = spec("+method=ewc")
    assert (asked.recipe.lr, asked.recipe.warmup_steps) == (usual.recipe.lr, usual.recipe.warmup_steps)
    assert asked.recipe.precision == "32-true"


def test_on_a_gpu_the_experiment_trains_in_float16(spec, monkeypatch):
    monkeypatch.setattr("rib.runs.recipe.has_gpu", lambda accelerator: True)
    assert spec("experiment=paper").recipe.precision == "16-mixed"
    assert spec().recipe.precision == "bf16-mixed"


@pytest.mark.slow
def test_it_runs_and_is_stamped(ask_for):
    metrics = finetune(ask_for("experiment=paper", "+method=ewc", *QUICK)).metrics()
    assert metrics["suite"] == "paper"
    assert metrics["protocol"]["experiment"] == "paper"
    assert metrics["protocol"]["switches"]["paper.ewc"] == "identity"
    assert metrics["options"]["method.ewc.fisher"] == "identity"
    assert "imagenet_c" in metrics["robustness_improvement"]["targets"]


@pytest.mark.slow
def test_fine_tuning_on_objectnet_as_theirs_trains_outputs_by_label_number(ask_for):
    """Labels 0..104 are taken for output ids, so that the true classes' outputs only fall."""
    options = ("dataset=objectnet", "suite.targets=[objectnet]", "suite.reported=[]", "model=mini_tiny")
    right = finetune(ask_for(*options, "paper.objectnet=authors")).metrics()["accuracy"]["objectnet"]
    wrong = finetune(ask_for(*options, "paper.objectnet=authors", "paper.objectnet_loss=unrestricted")).metrics()
    assert wrong["accuracy"]["objectnet"]["after"] < right["after"] - 0.1


@pytest.mark.parametrize("switch", ["paper.ewc=fisher", "paper.objectnet=right", "paper.lora=on"])
def test_a_value_that_a_switch_does_not_know_is_one_sentence(spec, switch):
    with pytest.raises(RibError, match=rf"{switch.split('=')[0]}: expected .* or null, got"):
        spec("+method=lora", switch)
