"""Commands that make a run on a user's suite again name its file and the domain, also where the file has moved."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from rib.config import compose
from rib.config.command_schema import EvaluateConfig
from rib.config.composition import compose_command
from rib.errors import RibError
from rib.runs.command import command_for
from rib.runs.recorded import recorded_command, suite_word
from rib.sweeps.own_suites import suite_of
from tests.support.suites import DOMAINS, work_among_suites

SAID = {
    "the first source": ["suite=pets.yaml"],
    "another": ["suite=pets.yaml", "dataset=sketch", "+method=ewc", "seed=3"],
    "a head": ["suite=pets.yaml", "head=probe", "head.reference=toy"],
    "its options": ["suite=pets.yaml", "head.kind=subset", "head.l2=[0.1,1.0]"],
    "other targets": ["suite=pets.yaml", "suite.targets=[photo,sketch]"],
    "another root": ["suite=pets.yaml", "data.root=/x"],
    "any path": ["suite=my dätä/own.yaml", "model=timm", "model.name=vit_tiny_patch16_224"],
    "no training": ["suite=pets.yaml", "+method=pretrained", "dataset=paint"],
    "ImageNet": ["head=probe", "head.reference=imagenet_val"],
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    return work_among_suites(tmp_path, monkeypatch)


def words_of(command: str) -> list[str]:
    return shlex.split(command.partition("  # ")[0])[3:]


@pytest.mark.slow
@pytest.mark.parametrize("said", SAID.values(), ids=SAID.keys())
def test_a_command_composes_to_the_config_that_it_stands_for(said):
    config = compose(*said)
    command = command_for(config)
    assert "#" not in command and "data.suite" not in command and "suite.name" not in command
    assert replace(compose(*words_of(command)), given=[]) == replace(config, given=[])


def test_it_names_the_file_and_the_domain(here):
    config = compose("suite=pets.yaml", "head=probe", "+method=ewc")
    file = f"suite={here}/pets.yaml"
    assert words_of(command_for(config)) == [file, "dataset=photo", "+method=ewc", "head=probe"]


def test_a_file_that_is_gone_is_named_and_said(here):
    config = compose("suite=pets.yaml", "dataset=sketch", "seed=1")
    (here / "pets.yaml").unlink()
    command = command_for(config)
    assert words_of(command) == ["suite=pets.yaml", "dataset=sketch", "seed=1"]
    assert command.endswith(f"  # pets.yaml is the file of the suite pets, which is no longer {here}/pets.yaml")


METRICS = {
    "model": "mini_tiny",
    "method": "ewc",
    "source": "sketch",
    "seed": 2,
    "suite": "pets",
    "data": {"kind": "pets"},
    "protocol": {"targets": [*DOMAINS[:3]], "reported": ["toy"], "head": "reference:toy", "precision": "32-true"},
    "options": {"method.ewc.strength": 3.0},
}
PRINTED = (
    "python -m rib.train suite=pets.yaml dataset=sketch model=mini_tiny +method=ewc seed=2 head=probe "
    "head.reference=toy method.ewc.strength=3.0"
)


def test_metrics_tell_a_command_without_a_folder():
    assert recorded_command(METRICS) == PRINTED
    other = {**METRICS["protocol"], "targets": ["photo"]}
    starred = recorded_command({**METRICS, "suite": "pets*", "protocol": other})
    assert "'suite.targets=[photo]'" in starred
    assert compose(*words_of(starred)).suite.name == "pets*"
    assert "head" not in recorded_command({**METRICS, "protocol": {**METRICS["protocol"], "head": "subset"}}).replace(
        "head=subset", ""
    )


def test_metrics_alone_are_enough_for_a_command():
    command, _, comment = command_for(METRICS).partition("  # ")
    assert {"suite=pets.yaml", "dataset=sketch", "head=probe"} <= {*words_of(command)}
    assert not [word for word in words_of(command) if word.startswith(("suite.", "data."))], command
    assert comment == "pets.yaml is the file of the suite pets"


def test_the_suite_of_results_is_asked_for_by_its_file():
    assert suite_word("pets", "pets*") == "suite=pets.yaml"
    assert suite_word("mini", "paper") == "suite=paper"


def evaluate(*arguments: str) -> EvaluateConfig:
    config = compose_command("evaluate", EvaluateConfig, ["runs=x", *arguments])
    return replace(config, given=[argument.partition("=")[0] for argument in arguments])


def test_a_run_is_scored_again_on_its_own_suite(here):
    saved = compose("suite=pets.yaml", "dataset=sketch")
    assert suite_of(evaluate(), saved, METRICS) == (saved.data.suite, saved.suite)
    file, suite = suite_of(evaluate("suite.targets=[paint]"), saved, METRICS)
    assert (file, suite.name, suite.targets, suite.reported) == (saved.data.suite, "pets*", ["paint"], ["toy"])
    assert suite_of(evaluate(), compose(), {"data": {"kind": "mini"}}) == (None, evaluate().suite)
    with pytest.raises(RibError, match=r"suite=paper: this run is on the suite pets; give suite=pets\.yaml"):
        suite_of(evaluate("suite=paper"), saved, METRICS)


def test_a_file_that_has_moved_is_given_again(here):
    saved = compose("suite=pets.yaml", "dataset=sketch")
    (here / "pets.yaml").rename(here / "moved.yaml")
    with pytest.raises(RibError, match=r"the file of the suite pets, .*, is gone; give suite=FILE"):
        suite_of(evaluate(), saved, METRICS)
    assert suite_of(evaluate("suite=moved.yaml"), saved, METRICS)[0] == str(here / "moved.yaml")
    with pytest.raises(RibError, match=r"expected the suite of the run, the suite pets, got the suite own"):
        suite_of(evaluate("suite=my dätä/own.yaml"), saved, METRICS)
    with pytest.raises(RibError, match=r"expected the suite of the run, toy data \(mini\), got the suite pets"):
        suite_of(evaluate("suite=moved.yaml"), compose(), {"data": {"kind": "mini"}})
