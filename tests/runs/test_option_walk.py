"""Effect of every option of a run on its keys: another value changes the run, a score, or neither.

The table has a row for every leaf of every config group that a run is composed of; a new option without a row fails.
A row says in which command the option matters, another value for it, and what must change: the training key (T), the
score key of some dataset (S), the key of EWC's Fisher (F), the metrics file for the suite (V), or nothing. What changes
no training key must change no weight: a slow test trains both ways and compares the files.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from rib.config.flatten import flat
from rib.config.shipped import options, shipped_nodes
from rib.config.unchecked import compose_node
from rib.data.catalog import Catalog, real
from rib.pipeline import finetune
from rib.runs.fields import fisher_key
from rib.runs.keys import ALWAYS, LEFT_OUT, METHOD_LEFT_OUT, METHOD_RESOLVED, NEUTRAL, RESOLVED, find_entry
from rib.runs.resolve import resolve
from rib.runs.spec import RunSpec
from rib.runs.store import RunStore
from rib.runtime.weights_file import weights_file_digest
from tests.data.trees import few, fill
from tests.support.suites import make_photo_suite

GROUPS = (
    *("model", "dataset", "suite", "optimizer", "trainer", "logger", "paths", "figures", "data", "head", "experiment"),
)
"""Those that a run is composed of; `analysis`, `study`, `pretrain` and `hydra` are of other commands."""


class Row(NamedTuple):
    """An option that matters in ``base`` and gets ``value``; ``moves`` is what must change."""

    base: str
    value: str
    moves: str
    trains: bool = True
    """Whether the slow test can train both ways here (no GPU, no second machine, no real weights)."""


SUBSET = "data.images_per_class=3"
LAST = "suite.targets=[imagenet_v2]"
ROOT = "data.root=USER suite.targets=[imagenet_a,imagenet_r,objectnet] suite.reported=[]"
REFERENCE = "head=probe head.reference=imagenet_train"
SPLIT = "head=probe dataset=imagenet_v2"
TIMM = f"{ROOT} model=timm model.name=resnet50.tv_in1k model.weights=WEIGHTS"

WALK: dict[str, Row] = {
    "experiment": Row("", "paper", "SV", trains=False),
    "epochs": Row("", "2", "T"),
    "steps": Row("epochs=null", "1", "T"),
    "batch_size": Row("", "16", "T"),
    "accumulate": Row("", "2", "T"),
    "clip": Row("", "0.1", "T"),
    "precision": Row("", "bf16-mixed", "T"),
    "gpu_precision": Row("", "16-mixed", ""),
    "batch_norm": Row("", "frozen", "T"),
    "seed": Row("", "1", "T"),
    "force": Row("", "true", ""),
    "given": Row("+method=ewc paper.ewc=identity", "[method.ewc.fisher]", "T"),
    "keep_memory": Row("", "false", ""),
    "compile": Row("", "true", "T"),
    "gradient_checkpointing": Row("", "true", ""),
    "profile": Row("", "true", ""),
    "recipe.user.epochs": Row(f"{ROOT} epochs=null", "3", "T"),
    "recipe.user.lr": Row(ROOT, "0.1", "T"),
    "recipe.user.warmup_steps": Row(f"{ROOT} epochs=1000", "3", "T"),
    "recipe.mini.epochs": Row("epochs=null", "3", "T"),
    "recipe.mini.lr": Row("", "0.1", "T"),
    "recipe.mini.warmup_steps": Row("epochs=9", "5", "T"),
    "evaluation.batch_size": Row("", "7", ""),
    "evaluation.precision": Row("", "bf16-mixed", "S"),
    "predictions.logits": Row("", "true", "S"),
    "paper.linear_probe": Row("+method=linear_probe", "unfrozen_norms", "TF"),
    "paper.ewc": Row("+method=ewc", "identity", "T"),
    "paper.lwf": Row("+method=lwf", "restricted", "T"),
    "paper.lora": Row("+method=lora", "tokens_and_norms", "TF"),
    "paper.visual_prompt": Row("+method=visual_prompt", "random", "TF"),
    "paper.objectnet": Row("dataset=objectnet", "authors", "TSF"),
    "paper.objectnet_loss": Row("dataset=objectnet", "unrestricted", "TF"),
    "paper.resize_imagenet_c": Row("dataset=imagenet_c suite=paper", "true", "TSF"),
    "checkpoint.every_minutes": Row("", "0", ""),
    "checkpoint.keep_epochs": Row("", "true", ""),
    "model.name": Row("", "mini_small", "TF"),
    "model.library": Row(f"{TIMM} model.architecture=convnext_base", "open_clip", "TSF", trains=False),
    "model.architecture": Row(TIMM, "resnet18", "TSF"),
    "model.weights": Row("", "COPY", ""),
    "model.activation": Row(TIMM, "gelu", "", trains=False),
    "model.tag": Row(f"{TIMM} model.architecture=resnet50", "tv_in1k", "TSF"),
    "model.hub": Row(TIMM, "timm/another", "", trains=False),
    "model.package": Row(TIMM, "torch", "", trains=False),
    "model.file": Row(TIMM, "another.bin", "", trains=False),
    "model.published.imagenet_val": Row("", "50.0", ""),
    "model.published.imagenet_v2": Row("", "50.0", ""),
    "model.published.imagenet_a": Row("", "50.0", ""),
    "model.published.imagenet_r": Row("", "50.0", ""),
    "model.published.imagenet_sketch": Row("", "50.0", ""),
    "model.pretraining.images": Row("", "7", ""),
    "model.pretraining.objective": Row("", "guessing", ""),
    "model.transform.size": Row(TIMM, "176", "TSF"),
    "model.transform.crop_pct": Row("", "0.8", "TSF"),
    "model.transform.interpolation": Row("", "bilinear", "TSF"),
    "model.transform.mean": Row("", "[0.4,0.4,0.4]", "TSF"),
    "model.transform.std": Row("", "[0.4,0.4,0.4]", "TSF"),
    "dataset.name": Row("", "imagenet_a", "TF"),
    "suite.name": Row("", "mine", "V"),
    "suite.sources": Row("", "[imagenet_r]", ""),
    "suite.targets": Row("", "[imagenet_v2,imagenet_a]", "V"),
    "suite.reported": Row("", "[]", "V"),
    "optimizer._target_": Row("~optimizer.nesterov", "torch.optim.RMSprop", "T"),
    "optimizer.lr": Row("", "0.1", "T"),
    "optimizer.momentum": Row("", "0.5", "T"),
    "optimizer.weight_decay": Row("", "0.1", "T"),
    "optimizer.nesterov": Row("", "true", "T"),
    "optimizer.warmup_steps": Row("epochs=9", "4", "T"),
    "optimizer.betas": Row("optimizer=adamw", "[0.8,0.99]", "T"),
    "optimizer.eps": Row("optimizer=adamw", "0.1", "T"),
    "trainer.accelerator": Row("", "auto", ""),
    "trainer.devices": Row("trainer=ddp trainer.accelerator=cpu trainer.devices=1", "2", "", trains=False),
    "trainer.num_nodes": Row("trainer=ddp trainer.accelerator=cpu trainer.devices=1", "2", "", trains=False),
    "trainer.strategy": Row("", "fsdp", "T"),
    "trainer.benchmark": Row("", "true", ""),
    "trainer.deterministic": Row("", "true", ""),
    "trainer.sync_batchnorm": Row("", "true", "T"),
    "trainer.profiler": Row("", "simple", ""),
    "trainer.detect_anomaly": Row("", "true", ""),
    "logger.name": Row("", "other", ""),
    "logger._target_": Row("logger=tensorboard", "rib.loggers.Dashboard", ""),
    "logger.project": Row("logger=wandb logger.offline=true", "other", ""),
    "logger.entity": Row("logger=wandb logger.offline=true", "other", ""),
    "logger.offline": Row("logger=wandb", "true", "", trains=False),
    "logger.tags": Row("logger=wandb logger.offline=true", "[other]", ""),
    "logger.timeout": Row("logger=wandb logger.offline=true", "1.0", ""),
    "paths.runs": Row("", "ELSEWHERE", "", trains=False),
    "paths.cache": Row("", "ELSEWHERE", ""),
    "figures.format": Row("", "svg", ""),
    "figures.width": Row("", "3.3", ""),
    "figures.title": Row("", "false", ""),
    "data.root": Row(ROOT, "COPIED", "", trains=False),
    "data.limit": Row("", "24", "TSF"),
    "data.images_per_class": Row("", "2", "TF"),
    "data.subset_seed": Row(SUBSET, "1", "TF"),
    "data.shuffled_labels": Row("", "true", "TF"),
    "data.holdout": Row("", "0.25", "TF"),
    "data.augment": Row("", "flip", "T"),
    "data.image_backend": Row("", "pil", "TSF"),
    "data.label_rule": Row("dataset=objectnet", "authors", "TSF"),
    "data.workers": Row("", "1", ""),
    "data.cache": Row("", "off", ""),
    "data.identity": Row(ROOT, "listing", "TSF"),
    "data.damaged": Row(ROOT, "ignore", "", trains=False),
    "data.rescan": Row("", "true", ""),
    "data.allow_incomplete": Row("", "true", ""),
    "data.objectnet_training": Row("dataset=objectnet", "i_have_permission", ""),
    # The same name of a dataset, of mini and of a suite.
    "data.suite": Row("dataset=imagenet_v2 suite.targets=[imagenet_v2] suite.reported=[]", "SUITE", "TSFV"),
    "head.kind": Row("dataset=imagenet_v2", "probe", "TF"),
    "head.reference": Row(REFERENCE, "imagenet_val", "TFV"),
    "head.share": Row(SPLIT, "0.5", "TF"),
    "head.l2": Row(REFERENCE, "[0.1]", "TF"),
    "head.holdout": Row(REFERENCE, "0.2", "TF"),
    "head.seed": Row(SPLIT, "1", "TF"),
    "method.ema.decay": Row("+method=ema", "0.5", "T"),
    "method.ewc.strength": Row("+method=ewc", "2.0", "T"),
    "method.ewc.fisher": Row("+method=ewc", "identity", "T"),
    "method.ewc.labels": Row("+method=ewc", "dataset", "T"),
    "method.ewc.normalise": Row("+method=ewc", "tensor", "T"),
    "method.ewc.form": Row("+method=ewc", "proximal", "T"),
    "method.ewc.samples": Row("+method=ewc", "5", "T"),
    "method.ewc.seed": Row("+method=ewc", "1", "T"),
    "method.ewc.keep_on": Row("+method=ewc", "host", ""),
    "method.fisher_merge.ingredients": Row("+method=fisher_merge", "[ewc]", "T"),
    "method.fisher_merge.alpha": Row("+method=fisher_merge", "0.2", "T"),
    "method.fisher_merge.samples": Row("+method=fisher_merge", "5", "T"),
    "method.fisher_merge.seed": Row("+method=fisher_merge", "1", "T"),
    "method.fisher_merge.normalise": Row("+method=fisher_merge", "norm", "T"),
    "method.freeze_embed.tokens": Row("+method=freeze_embed", "trained", "TF"),
    "method.fisher_merge.reestimate": Row("+method=fisher_merge", "false", "T"),
    "method.ftp.radius": Row("+method=ftp", "1.0", "T"),
    "method.ftp.rate": Row("+method=ftp", "0.1", "T"),
    "method.ftp.anneal": Row("+method=ftp", "0.5", "T"),
    "method.ftp.exclude_head": Row("+method=ftp", "false", "T"),
    "method.l2sp.strength": Row("+method=l2sp", "2.0", "T"),
    "method.l2sp.keep_on": Row("+method=l2sp", "host", ""),
    "method.layer_decay.decay": Row("+method=layer_decay", "0.5", "T"),
    "method.ldifs.strength": Row("+method=ldifs", "2.0", "T"),
    "method.ldifs.scaling": Row("+method=ldifs", "flattened", "T"),
    "method.lines.behind": Row("+method=lines", "first", "T"),
    "method.linear_probe.train": Row("+method=linear_probe", "unfrozen_norms", "TF"),
    "method.lines.ingredients": Row("+method=lines", "[ewc]", "T"),
    "method.lines.first": Row("+method=lines", "0.2", "T"),
    "method.lines.rise": Row("+method=lines", "0.2", "T"),
    "method.lines.reestimate": Row("+method=lines", "false", "T"),
    "method.lora.rank": Row("+method=lora", "4", "TF"),
    "method.lora.alpha": Row("+method=lora", "4.0", "TF"),
    "method.lora.targets": Row("+method=lora", "[q]", "TF"),
    "method.lora.train": Row("+method=lora", "[head]", "TF"),
    "method.lora.lr.user": Row(f"{ROOT} +method=lora", "0.5", "T"),
    "method.lora.lr.mini": Row("+method=lora", "0.5", "T"),
    "method.lora.seed": Row("+method=lora", "1", "TF"),
    "method.lp_ft.probe.epochs": Row("+method=lp_ft", "7", "TF"),
    "method.lp_ft.probe.lr": Row("+method=lp_ft", "0.7", "TF"),
    "method.lwf.strength": Row("+method=lwf", "2.0", "T"),
    "method.lwf.temperature": Row("+method=lwf", "3.0", "T"),
    "method.lwf.t_squared": Row("+method=lwf", "true", "T"),
    "method.lwf.logits": Row("+method=lwf", "restricted", "T"),
    "method.lwf.inputs": Row("+method=lwf", "augmented", "T"),
    "method.model_stock.ingredients": Row("+method=model_stock", "[finetune,ewc]", "T"),
    "method.model_stock.reestimate": Row("+method=model_stock", "false", "T"),
    "method.other_start.shuffled": Row("+method=other_start", "all", "TF"),
    "method.other_start.seed": Row("+method=other_start", "1", "TF"),
    "method.output_ensemble.ingredients": Row("+method=output_ensemble", "[finetune]", "T"),
    "method.output_ensemble.weights": Row("+method=output_ensemble", "entropy", "T"),
    "method.rib_soup.ingredients": Row(f"+method=rib_soup {LAST}", "['ewc dataset=imagenet_a']", "T"),
    "method.rib_soup.leave_out": Row("+method=rib_soup", "family", "T"),
    "method.rib_soup.reestimate": Row("+method=rib_soup", "false", "T"),
    "method.soup.ingredients": Row("+method=soup", "[finetune]", "T"),
    "method.soup.choice": Row("+method=soup data.holdout=.25", "greedy", "T"),
    "method.soup.strict": Row("+method=soup data.holdout=.25 method.soup.choice=greedy", "true", "T"),
    "method.soup.reestimate": Row("+method=soup", "false", "T"),
    "method.spd.strength": Row("+method=spd", "2.0", "T"),
    "method.surgical.samples": Row("+method=surgical", "5", "T"),
    "method.surgical.seed": Row("+method=surgical", "1", "T"),
    "method.surgical.per": Row("+method=surgical", "tensor", "T"),
    "method.surgical.power": Row("+method=surgical", "0.5", "T"),
    "method.task_arithmetic.ingredients": Row("+method=task_arithmetic", "[ewc]", "T"),
    "method.task_arithmetic.strength": Row("+method=task_arithmetic", "0.2", "T"),
    "method.task_arithmetic.reestimate": Row("+method=task_arithmetic", "false", "T"),
    "method.ties.ingredients": Row("+method=ties", "[ewc]", "T"),
    "method.ties.strength": Row("+method=ties", "0.2", "T"),
    "method.ties.keep": Row("+method=ties", "0.5", "T"),
    "method.ties.reestimate": Row("+method=ties", "false", "T"),
    "method.visual_prompt.border": Row("+method=visual_prompt", "3", "TF"),
    "method.visual_prompt.init": Row("+method=visual_prompt", "randn", "TF"),
    "method.visual_prompt.lr.user": Row(f"{ROOT} +method=visual_prompt", "0.5", "T"),
    "method.visual_prompt.lr.mini": Row("+method=visual_prompt", "0.5", "T"),
    "method.visual_prompt.seed": Row("+method=visual_prompt", "1", "TF"),
    "method.wise_ft.ingredients": Row("+method=wise_ft", "[ewc]", "T"),
    "method.wise_ft.alpha": Row("+method=wise_ft", "0.2", "T"),
    "method.wise_ft.curve": Row("+method=wise_ft", "[0.5]", "T"),
    "method.wise_ft.choose": Row("+method=wise_ft data.holdout=.25", "true", "T"),
    "method.wise_ft.extrapolate": Row("+method=wise_ft", "true", "T"),
    "method.wise_ft.reestimate": Row("+method=wise_ft", "false", "T"),
    # The class of a method: a user's own, with the same options.
    **{
        f"method.{name}._target_": Row(f"+method={name}", f"walk_methods.{name}", "T?")
        for name in shipped_nodes("method")
        if name not in ("finetune", "pretrained")
    },
}

QUICK = ("model=mini_tiny", "data.limit=120", "epochs=1", "trainer=cpu")


@cache
def leaves() -> frozenset[str]:
    """Every option that a config of a run can have."""
    configs = [compose_node("train")]
    configs += [compose_node("train", f"{group}={name}", "model.name=x") for group in GROUPS for name in options(group)]
    configs += [compose_node("train", f"+method={name}") for name in options("method")]
    return frozenset(name for cfg in configs for name in flat(_plain(cfg)))


def _plain(cfg) -> dict:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(cfg, resolve=True)


def test_every_option_of_every_config_group_has_a_row():
    assert leaves() ^ WALK.keys() == set()


def test_every_option_is_declared_once():
    """In the key as something else, never in it with a reason, left out at a neutral value, or always written."""
    for name in leaves():
        method = name.split(".")[2] if name.startswith("method.") else None
        places = [
            find_entry([entry for entry in RESOLVED if entry != "method."], name) is not None,
            method in METHOD_RESOLVED,
            name in METHOD_LEFT_OUT,
            all(find_entry(LEFT_OUT[kind], name) is not None for kind in ("trained", "score")) and name not in NEUTRAL,
            name in NEUTRAL,
            name in ALWAYS,
        ]
        assert sum(places) == 1, f"{name}: {places}"


def test_every_reason_is_one():
    for table in (RESOLVED, METHOD_RESOLVED, METHOD_LEFT_OUT, *LEFT_OUT.values()):
        assert all(len(reason) > 5 for reason in table.values())


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, str]:
    """Files and folders that rows name."""
    folder = tmp_path_factory.mktemp("walk")
    specs = [few(name) for name in ("imagenet_a", "imagenet_r", "objectnet")]
    for where in ("user", "copied"):
        for spec in specs:
            fill(folder / where / spec.folders[0], spec.classes)
    (folder / "weights.pth").write_bytes(b"told by its digest alone")
    mini = Path(__file__).resolve().parents[2] / "rib" / "models" / "mini_weights" / "mini_tiny.safetensors"
    (folder / "copy.safetensors").write_bytes(mini.read_bytes())
    code = ["from rib.methods.base import Method", "from rib.methods.merge import Merge"]
    for name, node in shipped_nodes("method").items():
        arguments = "".join(f", {key}=None" for key in node if key not in ("_target_", "ingredients"))
        base = "Merge" if "ingredients" in node else "Method"
        code += [f"class {name}({base}):", f"    def __init__(self{arguments}): pass"]
    (folder / "walk_methods.py").write_text("\n".join(code))
    names = {"USER": "user", "COPIED": "copied", "WEIGHTS": "weights.pth", "COPY": "copy.safetensors"}
    found = {**{key: str(folder / name) for key, name in names.items()}, "ELSEWHERE": str(folder / "else"), "": folder}
    return {**found, "SUITE": str(make_photo_suite(folder / "suite", ["imagenet_v2"], 3, name="walk"))}


@pytest.fixture
def spec(ask_for, places, monkeypatch):
    specs = {name: few(name) for name in ("imagenet_a", "imagenet_r", "objectnet")}
    monkeypatch.setattr("rib.data.catalog.real", lambda: Catalog("user", real().outputs, specs))
    monkeypatch.syspath_prepend(str(places[""]))

    def make(*overrides: str) -> RunSpec:
        filled = []
        for override in overrides:
            for key, place in places.items():
                override = override.replace(key, place) if key else override
            filled.append(override)
        return resolve(ask_for(*QUICK, *filled))

    return make


def moved(one: RunSpec, other: RunSpec) -> str:
    """Which keys of two questions differ."""
    scores = [q.score_keys for q in (one, other)]
    both = scores[0].keys() & scores[1].keys()
    fishers = [fisher_key(q, q.probe and q.probe.key) for q in (one, other)]
    views = [(q.suite, q.protocol["targets"], q.protocol["reported"], q.config.experiment) for q in (one, other)]
    found = {
        "T": one.training_key != other.training_key,
        "S": any(scores[0][name] != scores[1][name] for name in both),
        "F": one.trains and fishers[0] != fishers[1],
        "V": views[0] != views[1],
    }
    return "".join(key for key, differs in found.items() if differs)


@pytest.fixture(scope="module")
def bases() -> dict[str, RunSpec]:
    """Questions that several rows begin with, each composed once."""
    return {}


@pytest.mark.parametrize("name", WALK)
def test_another_value_is_another_key_where_it_changes_something(name, spec, bases):
    row = WALK[name]
    base = row.base.split()
    one = bases.setdefault(row.base, spec(*base)) if row.base not in bases else bases[row.base]
    other = spec(*base, *spelt(name, row.value))
    if row.moves == "T?":
        assert "T" in moved(one, other)
    else:
        assert moved(one, other) == row.moves
    if "T" in row.moves:
        # What is printed and stamped tells the two apart as well.
        assert said(one) != said(other)


def spelt(name: str, value: str) -> list[str]:
    """The option as on a command line."""
    if name == "experiment":
        return [f"experiment={value}"]
    if name == "model.name":
        return [f"model={value}"]
    return [f"++{name}={value}"]


def said(spec: RunSpec) -> tuple:
    start = (spec.start.name, spec.start.digest, spec.source_name)
    stamped = (spec.options, spec.protocol, spec.trained_on, spec.scores)
    return start, spec.config.seed, spec.method, stamped


UNMOVED = [name for name, row in WALK.items() if "T" not in row.moves and row.trains]


@pytest.fixture(scope="module")
def weights_of():
    """The weights of a base command, trained once."""
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("name", UNMOVED)
def test_what_changes_no_key_changes_no_weight(name, spec, tmp_path, weights_of, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    row = WALK[name]
    base = [part for part in row.base.split() if not part.startswith("suite")]
    if tuple(base) not in weights_of:
        weights_of[tuple(base)] = _trained(spec(*base, f"paths.runs={tmp_path / 'one'}"))
    other = spec(*base, *spelt(name, row.value), f"paths.runs={tmp_path / 'other'}")
    assert _trained(other) == weights_of[tuple(base)]


def _trained(spec: RunSpec) -> bytes:
    run = finetune(spec.config)
    assert run.folder.is_relative_to(Path(spec.config.paths.runs).resolve()) or os.path.samefile(  # noqa: PTH121
        RunStore(spec.config.paths.runs).run_of(spec).folder, run.folder
    )
    return weights_file_digest(run.weights_file).encode()  # of the tensors alone
