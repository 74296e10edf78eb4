"""Runs that stand apart: each command that is printed makes a run that no longer does.

Runs are made up from their specs: what a command would make is resolved, not trained, except in the slow tests.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from rib.config import compose
from rib.config.check import check_config
from rib.config.command_schema import EvaluateConfig
from rib.config.composition import load_config, to_yaml
from rib.config.schema import Config
from rib.config.unchecked import compose_node
from rib.errors import RibError
from rib.reporting.comparability import group_comparable
from rib.reporting.remedies import SHOWN, remedies
from rib.runs.keys import NUMERICS
from rib.runs.resolve import Resolver, resolve
from rib.runs.run import Result, Run
from rib.runs.store import RunStore
from rib.sweeps.external import external_job
from rib.sweeps.rescore import _with_scoring_of
from tests.support import whole

RESOLVER = Resolver()


@pytest.fixture
def make(store: Path, cache: Path):
    """Write what a run of these options would leave in the store, without training it."""

    def make(*words: str, **changes: Any) -> Result:
        given = (f"paths.runs={store}", f"paths.cache={cache}", "trainer=cpu", "data.root=null", "model=mini_tiny")
        return made_of(compose(*given, *words), store, **changes)

    return make


def made_of(config: Config, store: Path, **changes: Any) -> Result:
    spec = resolve(config, RESOLVER)
    run = RunStore(store).run_of(spec)
    targets = [name for name in config.suite.targets if name != spec.source_name]
    entry = whole.metrics()["accuracy"]["imagenet_a"]
    metrics = whole.metrics(
        model=spec.start.name,
        source=spec.source_name,
        method=spec.method,
        options=spec.options,
        seed=config.seed,
        suite=spec.suite,
        fingerprint=spec.training_key,
        before=spec.of_pretrained().training_key,
        data={"kind": spec.catalog.kind, "digest": spec.data_digest},
        protocol=spec.protocol,
        accuracy=dict.fromkeys(spec.scored, entry),
        scores=dict(spec.scores),
    )
    metrics["robustness_improvement"]["targets"] = targets
    metrics = json.loads(json.dumps({**metrics, **changes}))
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "config.yaml").write_text(to_yaml(spec.config))
    (run.folder / "metrics.json").write_text(json.dumps(metrics))
    return run, metrics


def obey(command: str, store: Path) -> Result | None:
    """Do what a command would do, up to training and scoring."""
    words = shlex.split(command)
    if words[0] == "rm":
        subprocess.run(words, check=True)
        return None
    assert "#" not in words, "nothing is left to fill in"
    if words[2] == "rib.train":
        return made_of(compose(*words[3:]), store)
    config = check_config(compose_node("evaluate", *words[3:]), EvaluateConfig)
    assert config.runs is not None
    run = Run(Path(config.runs))
    metrics = run.metrics()
    saved = load_config(run.folder / "config.yaml")
    return made_of(_with_scoring_of(config, saved, metrics, RunStore(store)), store)


def heal(results: list[Result], store: Path) -> tuple[str, list[Result]]:
    """Obey the commands for runs that stand apart; return what was said, and the runs that are then there."""
    (remedy,) = remedies(group_comparable(results))
    assert remedy.commands, remedy
    made = [obey(command, store) for command in remedy.commands]
    left = [(run, m) for run, m in results if run.folder.exists()]
    return "\n".join(remedy.lines), [*left, *(result for result in made if result is not None)]


CASES = {
    "limit": ((), ("data.limit=40",), "data.limit 40, not null"),
    "suite": ((), ("suite.targets=[imagenet_a,imagenet_v2]",), "targets imagenet_a, imagenet_v2, not"),
    "reported": ((), ("suite.reported=[]",), "reported datasets none, not imagenet_val"),
    "evaluation": ((), ("evaluation.precision=bf16-mixed",), "evaluation.precision bf16-mixed, not 32-true"),
    "precision": ((), ("precision=bf16-mixed",), "precision bf16-mixed, not 32-true"),
    "label rule": ((), ("data.label_rule=first",), "data.label_rule first, not max"),
    "backend": ((), ("data.image_backend=pil",), "data.image_backend pil, not torchvision"),
    "experiment": ((), ("experiment=paper", "suite=seven", "+method=ewc"), "experiment paper, not null"),
    "resized": ((), ("paper.resize_imagenet_c=true",), "paper.resize_imagenet_c True, not False"),
    "objectnet": ((), ("paper.objectnet=authors",), "data.label_rule authors, not max"),
    "to a limit": (("data.limit=40",), ("data.limit=40", "precision=bf16-mixed"), "precision bf16-mixed, not 32-true"),
    "to the paper": (("experiment=paper", "suite=seven"), ("+method=ewc",), "experiment null, not paper"),
    "loss": (
        ("dataset=objectnet",),
        ("dataset=objectnet", "paper.objectnet_loss=unrestricted"),
        "switches.paper.objectnet_loss unrestricted, not null",
    ),
}


QUICK = ("limit", "suite", "to the paper")


@pytest.mark.parametrize(
    ("table", "apart", "said"),
    [pytest.param(*case, marks=() if name in QUICK else pytest.mark.slow, id=name) for name, case in CASES.items()],
)
def test_the_command_that_is_printed_makes_a_comparable_run(make, store, table, apart, said):
    results = [make(*table), make(*table, "seed=1"), make(*apart, "seed=2")]
    assert len(group_comparable(results)) == 2
    text, healed = heal(results, store)
    assert said in text
    assert len(healed) == 4
    first = group_comparable(healed)[0]
    assert len(first.results) == 3, "the new run shares the table"
    assert {m["seed"] for _, m in first.results} == {0, 1, 2}
    # The old run is still there, and has nothing left to ask for.
    (later,) = remedies(group_comparable(healed))
    assert later.commands == ()
    assert "each of them has a comparable run in the first table" in later.lines[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["suite", "reported", "evaluation"])
def test_a_run_that_only_needs_other_scores_is_not_trained_again(make, name):
    table, apart, _ = CASES[name]
    groups = group_comparable([make(*table), make(*table, "seed=1"), make(*apart, "seed=2")])
    (command,) = remedies(groups)[0].commands
    assert command.startswith("python -m rib.evaluate runs=")
    assert groups[1].results[0][0].folder.name in command


@pytest.mark.slow
def test_runs_of_an_older_version_are_made_again(make, store):
    old = make("seed=1")
    old[1]["protocol"]["numerics"] = NUMERICS - 1
    text, healed = heal([make(), old], store)
    assert "summary_2: 1 run: each was made by an older version of rib" in text
    assert len(group_comparable(healed)[0].results) == 2
    alone = remedies(group_comparable([old]))
    assert [len(remedy.commands) for remedy in alone] == [1], "also where nothing else is there"
    assert alone[0].advice == "make them again with:"


@pytest.mark.slow
def test_runs_of_a_newer_version_are_made_with_this_one(make, store):
    new = make("seed=2")
    new[1]["protocol"]["numerics"] = NUMERICS + 1
    text, healed = heal([make(), make("seed=1"), new], store)
    assert f"version of the numerics {NUMERICS + 1}, not {NUMERICS}" in text
    assert len(group_comparable(healed)[0].results) == 3


@pytest.mark.slow
@pytest.mark.parametrize("older", ["apart", "table"])
def test_runs_made_before_images_changed_are_made_again(make, store, older):
    several, one = [make(), make("seed=1")], make("seed=2")
    outdated = [one] if older == "apart" else several
    for run, metrics in outdated:
        metrics["data"]["digest"] = "0" * 16
        metrics["scores"]["imagenet_a"]["images"] = "gone"
        os.utime(run.folder / "metrics.json", (1, 1))
    groups = group_comparable([*several, one])
    (remedy,) = remedies(groups)
    assert "different images of imagenet_a; images or defaults have changed since the earlier" in remedy.lines[0]
    assert len(remedy.commands) == len(outdated)
    healed = [*several, one, *(obey(command, store) for command in remedy.commands)]
    assert {m["seed"] for _, m in group_comparable(healed)[0].results} == {0, 1, 2}
    assert all(not remedy.commands for remedy in remedies(group_comparable(healed)))


@pytest.mark.slow
def test_a_default_warm_up_that_has_changed_is_a_reason_to_make_the_earlier_run_again(make, store):
    old = make("seed=1")
    old[1]["protocol"]["warmup_steps"] += 1
    os.utime(old[0].folder / "metrics.json", (1, 1))
    text, healed = heal([make(), old], store)
    assert "mini_tiny finetune on imagenet_r: optimizer.warmup_steps" in text
    assert len(group_comparable(healed)[0].results) == 2


@pytest.mark.slow
def test_a_run_of_several_processes_is_made_again_with_those_of_its_cell(make, store):
    parallel = make("seed=1", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    # As for a model with BatchNorm, whose statistics differ by process.
    parallel[1]["protocol"]["processes"] = 2
    text, healed = heal([make(), parallel], store)
    assert "number of processes 2, not 1" in text
    assert "trainer=ddp" not in text
    assert len(group_comparable(healed)[0].results) == 2


@pytest.mark.slow
def test_images_identified_otherwise_are_a_reason_to_make_the_run_again(make, store):
    other = make("seed=1")
    other[1]["protocol"]["identity"] = "listing"
    os.utime(other[0].folder / "metrics.json", (1, 1))
    text, healed = heal([make(), other], store)
    assert "data.identity listing, not pixels" in text
    assert len(group_comparable(healed)[0].results) == 2


def test_of_a_run_that_is_there_twice_the_earlier_one_may_be_removed(make, store):
    first, second = make(), make("epochs=2")
    second[1].update(options=first[1]["options"], protocol=first[1]["protocol"])
    os.utime(first[0].folder / "metrics.json", (1, 1))
    (remedy,) = remedies(group_comparable([first, second]))
    assert "appears twice" in remedy.lines[0]
    assert remedy.commands == (shlex.join(["rm", "-r", str(first[0].folder)]),)
    _, left = heal([first, second], store)
    assert [run for run, _ in left] == [second[0]]


@pytest.mark.slow
def test_a_toy_model_has_no_counterpart_on_real_data_and_a_real_model_has_one(make):
    def on(kind: str, model: str, *words: str) -> Result:
        run, metrics = make(*words)
        metrics["data"] = {"kind": kind, "digest": kind * 4}
        return run, {**metrics, "model": model}

    real = on("user", "net")
    (remedy,) = remedies(group_comparable([real, on("mini", "mini_tiny", "seed=1")]))
    assert remedy.commands == ()
    assert "data.kind mini, not user; a toy model on toy data has no counterpart on real data" in remedy.lines[0]
    config = (real[0].folder / "config.yaml").read_text()
    forgotten = on("mini", "net", "seed=1")
    (real[0].folder / "config.yaml").write_text(config.replace("root: null", "root: /data/imagenet"))
    (remedy,) = remedies(group_comparable([real, forgotten]))
    assert "data.root=/data/imagenet" in remedy.commands[0]


@pytest.mark.slow
def test_only_a_few_commands_are_printed_and_unreadable_options_are_no_error(make):
    many = [make("data.limit=40", f"seed={seed}") for seed in range(2, 2 + SHOWN + 2)]
    (remedy,) = remedies(group_comparable([make(), *many]))
    assert len(remedy.commands) == SHOWN + 2
    assert len(remedy.lines) == 1 + SHOWN + 1
    assert remedy.lines[-1] == "  and 2 more in remedies.sh"
    gone = make("data.limit=40", "seed=9")
    (gone[0].folder / "config.yaml").unlink()
    gone[1]["options"]["optimizer.gone"] = 1
    (remedy,) = remedies(group_comparable([make(), gone]))
    assert "this version of rib cannot read their options" in remedy.lines[0]


def external(store: Path, cache: Path, file: Path, *words: str) -> Any:
    given = (f"paths.runs={store}", f"paths.cache={cache}", "trainer=cpu", "data.root=null", "model=mini_tiny")
    return external_job(check_config(compose_node("evaluate", f"weights={file}", *given, *words), EvaluateConfig))


@pytest.mark.slow
def test_external_weights_are_scored_again_from_the_copy_in_the_store(make, store, cache, tmp_path):
    from rib.models.build import build
    from rib.pipeline import finetune
    from rib.sweeps.rescore import evaluate

    given = (f"paths.runs={store}", f"paths.cache={cache}", "trainer=cpu", "data.root=null", "model=mini_tiny")
    job_config = compose(*given)
    spec = resolve(job_config, RESOLVER)
    file = tmp_path / "mine.pt"
    torch.save(build(spec.start).backbone.state_dict(), file)
    trained = finetune(compose(*given, "epochs=1", "data.limit=40"))
    line = (f"weights={file}", *given, "suite=seven")
    (run,) = evaluate(check_config(compose_node("evaluate", *line), EvaluateConfig))
    file.unlink()
    results = [(r, r.metrics()) for r in (trained, run)]
    groups = group_comparable(results)
    (remedy,) = remedies(groups)
    # All images come first: it is the run on 40 images that stands apart.
    assert "data.limit=40" not in remedy.commands[0]
    (other,) = remedies([groups[1], groups[0]])
    (command,) = other.commands
    words = shlex.split(command)
    assert words[2] == "rib.evaluate"
    (again,) = evaluate(check_config(compose_node("evaluate", *words[3:]), EvaluateConfig))
    assert again.folder != run.folder
    (group,) = group_comparable([results[0], (again, again.metrics())])
    assert len(group.results) == 2
    with pytest.raises(RibError, match="other weights already have the name mine"):
        torch.save({}, file)
        external(store, cache, file)
