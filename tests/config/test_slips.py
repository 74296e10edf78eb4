"""Slips that people make on the command line, each answered in one sentence with an argument that rib accepts."""

from __future__ import annotations

import shlex
from functools import cache
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from rib.config import compose
from rib.config.aliases import ALIASES, CHOICES
from rib.config.command_schema import (
    AnalyzeConfig,
    BenchmarkConfig,
    CKAConfig,
    DataCommandConfig,
    EvaluateConfig,
    PretrainConfig,
    ReportConfig,
    SearchConfig,
)
from rib.config.composition import compose_command
from rib.config.conf_comments import COMMANDS, options_of
from rib.config.corrections import correct
from rib.config.schema import Config
from rib.config.shipped import options
from rib.config.slips import tidy
from rib.errors import RibError
from rib.runtime.console import say_once

SCHEMAS = {
    "train": Config,
    "benchmark": BenchmarkConfig,
    "search": SearchConfig,
    "evaluate": EvaluateConfig,
    "report": ReportConfig,
    "data": DataCommandConfig,
    "pretrain": PretrainConfig,
}

EWC = "+method=ewc"
"""Arguments that stand beside a slip."""

# By command and what stands beside: what was written, and what the answer says instead. Both as in a shell.
SLIPS: dict[tuple[str, str], list[tuple[str, str]]] = {
    ("train", ""): [
        # another name for an option
        ("lr=0.01", "optimizer.lr=0.01"),
        ("learning_rate=0.01", "optimizer.lr=0.01"),
        ("+lr=0.01", "optimizer.lr=0.01"),
        ("optimizer.LR=0.01", "optimizer.lr=0.01"),
        ("optimizer.learning_rate=0.01", "optimizer.lr=0.01"),
        ("epoch=3", "epochs=3"),
        ("EPOCHS=3", "epochs=3"),
        ("num-epochs=3", "epochs=3"),
        ("bs=32", "batch_size=32"),
        ("batchsize=32", "batch_size=32"),
        ("batch-size=32", "batch_size=32"),
        ("weight_decay=0.1", "optimizer.weight_decay=0.1"),
        ("warmup=10", "optimizer.warmup_steps=10"),
        ("gpu=1", "trainer=gpu"),
        ("gpu=0", "trainer=cpu"),
        ("device=gpu", "trainer=gpu"),
        ("device=cuda:0", "trainer=gpu"),
        ("device=cpu", "trainer=cpu"),
        ("accelerator=gpu", "trainer=gpu"),
        ("device=mps", "trainer.accelerator=mps"),
        ("gpus=2", "trainer=ddp trainer.devices=2"),
        ("devices=2", "trainer=ddp trainer.devices=2"),
        ("trainer.gpus=2", "trainer=ddp trainer.devices=2"),
        ("workers=8", "data.workers=8"),
        ("num_workers=8", "data.workers=8"),
        ("root=/data", "data.root=/data"),
        ("data=/data", "data.root=/data"),
        ("runs=out", "paths.runs=out"),
        ("output=out", "paths.runs=out"),
        ("paths=out", "paths.runs=out"),
        ("wandb=true", "logger=wandb"),
        ("amp=true", "precision=16-mixed"),
        ("augment=flip", "data.augment=flip"),
        ("data.lmit=3", "data.limit=3"),
        ("sed=3", "seed=3"),
        # another name for a value
        ("model=mini-small", "model=mini_small"),
        ("model=Mini_Small", "model=mini_small"),
        ("model=vit_base_patch16_224", "model=timm model.name=vit_base_patch16_224"),
        ("model=ViT-B-16", "model=open_clip model.name=ViT-B-16"),
        ("model=/x/best.pth", "model.weights=/x/best.pth"),
        ("model.name=vit_base_patch16_224.augreg_in1k", "model=timm model.name=vit_base_patch16_224.augreg_in1k"),
        ("dataset=R", "dataset=imagenet_r"),
        ("dataset=ImageNet-R", "dataset=imagenet_r"),
        ("dataset=imagenet-r", "dataset=imagenet_r"),
        ("dataset=sketch", "dataset=imagenet_sketch"),
        ("source=v2", "dataset=imagenet_v2"),
        ("trainer=cuda", "trainer=gpu"),
        ("trainer=2", "trainer=ddp trainer.devices=2"),
        ("optimizer=adam", "optimizer=adamw"),
        ("+optimizer=adamw", "optimizer=adamw"),
        ("optimizer=SGD", "optimizer=sgd"),
        ("logger=wb", "logger=wandb"),
        ("logger=wandb.project=x", "logger=wandb logger.project=x"),
        # methods
        ("+methods=ewc", "+method=ewc"),
        ("method=EWC", "+method=ewc"),
        ("method=wiseft", "+method=wise_ft"),
        ("method=ewc,lwf", "'+method=[ewc,lwf]'"),
        ("+method=ewc +method=lwf", "'+method=[ewc,lwf]'"),
        ("+method=lwf+wise_ft", "'+method=[lwf,wise_ft]'"),
        ("method=ewc.strength=3", "+method=ewc method.ewc.strength=3"),
        ("ewc.strength=3", "+method=ewc method.ewc.strength=3"),
        ("method.ewc=3", "+method=ewc method.ewc.strength=3"),
        # sweeps
        ("seed=0,1", "-m seed=0,1"),
        ("seeds=[0,1]", "-m seed=0,1"),
        ("seeds=1", "seed=1"),
        ("models=[mini_tiny,mini_small]", "-m model=mini_tiny,mini_small"),
        ("dataset=[imagenet_a,imagenet_r]", "-m dataset=imagenet_a,imagenet_r"),
        # flags
        ("--lr 0.01", "optimizer.lr=0.01"),
        ("--lr=0.01", "optimizer.lr=0.01"),
        ("-lr 0.01", "optimizer.lr=0.01"),
        ("--method ewc", "+method=ewc"),
        ("--epochs=3", "epochs=3"),
        ("--epochs=3 --lr 0.01", "epochs=3 optimizer.lr=0.01"),
        ("--force", "force=true"),
        ("--no-force", "force=false"),
        ("--gpus 2", "trainer=ddp trainer.devices=2"),
        ("--seeds 0 1 2", "-m seed=0,1,2"),
        ("–lr 0.01", "optimizer.lr=0.01"),
        ("—epochs 3", "epochs=3"),
        ("–m seed=0,1", "-m"),
        # form
        ("epochs = 3", "epochs=3"),
        ("epochs =3", "epochs=3"),
        ("epochs= 3", "epochs=3"),
        ("epochs 3", "epochs=3"),
        ("epochs: 3", "epochs=3"),
        ("epochs:3", "epochs=3"),
        ("'epochs = 3'", "epochs=3"),
        ("epochs==3", "epochs=3"),
        ("epochs=3,", "epochs=3"),
        ("ewc", "+method=ewc"),
        ("mini_small", "model=mini_small"),
        ("'+method=[ewc,' lwf]", "'+method=[ewc,lwf]'"),
        ("'+method=[ewc,lwf,]'", "'+method=[ewc,lwf]'"),
        ("“+method=[ewc,lwf]”", "'+method=[ewc,lwf]'"),
        ("\"'+method=ewc'\"", "+method=ewc"),
        ("data.root=“/x”", "data.root=/x"),
        ("data.root=/my data", "'data.root=/my data'"),
        ("data.root=/dätä", "'data.root=\"/dätä\"'"),
        ("data.root=a#b", "'data.root=\"a#b\"'"),
        ("data.root=a=b", "'data.root=\"a=b\"'"),
        ("'data.root=/x/[a]'", "'data.root=\"/x/[a]\"'"),
        ("'data.root=/x (1)'", "'data.root=\"/x (1)\"'"),
        ("root=/dätä", "'data.root=\"/dätä\"'"),
        # values of the wrong type
        ("epochs=three", "epochs=3"),
        ("epochs=3.0", "epochs=3"),
        ("clip=None", "clip=null"),
        ("data.holdout=10%", "data.holdout=0.1"),
        ("optimizer.lr=0,01", "optimizer.lr=0.01"),
        ("suite.targets=imagenet_a", "'suite.targets=[imagenet_a]'"),
        ("data.image_backend=PIL", "data.image_backend=pil"),
        ("precision=fp16", "precision=16-mixed"),
        ("precision=fp8", "precision=bf16-mixed"),
        ("precision=float32", "precision=32-true"),
        ("gpu_precision=bfloat16", "gpu_precision=bf16-mixed"),
        ("evaluation.precision=bf16", "evaluation.precision=bf16-mixed"),
        # several values
        ("+method=ewc, lwf", "-m +method=ewc,lwf"),
        ("seed=0, 1", "-m seed=0,1"),
        ("seeds=0 1", "-m seed=0,1"),
        ("dataset=imagenet-r,imagenet_a", "-m dataset=imagenet_r,imagenet_a"),
        ("model=mini-small,mini_tiny", "-m model=mini_small,mini_tiny"),
        ("method=ewc,wiseft", "-m +method=ewc,wise_ft"),
        ("data=imagenet_r", "dataset=imagenet_r"),
        ("data=R", "dataset=imagenet_r"),
    ],
    ("train", "-m"): [("+method=ewc, lwf", "did you mean +method=ewc,lwf?"), ("seed=0, 1", "did you mean seed=0,1?")],
    ("train", EWC): [
        ("strength=3", "method.ewc.strength=3"),
        ("method.strength=3", "method.ewc.strength=3"),
        ("ewc.strength=3", "method.ewc.strength=3"),
        ("ewc_strength=3", "method.ewc.strength=3"),
        ("lambda=3", "method.ewc.strength=3"),
        ("method.ewc.strenght=3", "method.ewc.strength=3"),
        ("--strength 3", "method.ewc.strength=3"),
        ("fisher=identity", "method.ewc.fisher=identity"),
    ],
    ("benchmark", ""): [
        ("model=mini_tiny", "'models=[mini_tiny]'"),
        ("models=mini_tiny", "'models=[mini_tiny]'"),
        ("dataset=R", "'sources=[imagenet_r]'"),
        ("source=R", "'sources=[imagenet_r]'"),
        ("+method=ewc", "'methods=[ewc]'"),
        ("methods=ewc,lwf", "'methods=[ewc,lwf]'"),
        ("seed=3", "'seeds=[3]'"),
        ("--dry-run", "plan_only=true"),
        ("study=size", "study=size_study"),
        ("lr=0.01", "optimizer.lr=0.01"),
        ("methods=finetune ewc", "'methods=[finetune,ewc]'"),
        ("data=R", "'sources=[imagenet_r]'"),
    ],
    ("evaluate", ""): [("run=x", "runs=x"), ("ckpt=x.pth", "weights=x.pth"), ("path/x", "runs=path/x")]
    + [(f"path/own{end}", f"weights=path/own{end}") for end in (".pth", ".pt", ".bin", ".safetensors", ".ckpt")]
    + [("fail_below=-1%", "fail_below=-1?"), ("data.holdout=10%", "data.holdout=0.1?")],
    ("report", ""): [
        ("run=x", "paths.runs=x"),
        ("runs=x", "paths.runs=x"),
        ("runs/x", "paths.runs=runs/x"),
        ("--out=r", "out=r"),
        ("methods=finetune wise_ft", "did you mean methods=finetune,wise_ft?"),
        ("methods=finetune, wise_ft", "did you mean methods=finetune,wise_ft?"),
        ("source=R", "'sources=[imagenet_r]'"),
    ],
    ("analyze", "run=x"): [
        ("analysis=CKA", "analysis=cka"),
        ("cka", "analysis=cka"),
        ("dataset=imagenet_a", "'datasets=[imagenet_a]'"),
    ],
    ("analyze", ""): [("runs=x", "run=x"), ("--run x", "run=x")],
    ("search", EWC): [("n_trials=3", "trials=3"), ("lr=0.01", "optimizer.lr=0.01 search.lr=null")],
    ("data", ""): [("chek", "action=check"), ("root=/x", "data.root=/x"), ("action=look check", "action=check")],
    ("pretrain", ""): [("model=mini_tiny", "pretrain=mini_tiny"), ("mini_tiny", "pretrain=mini_tiny")],
}

TABLE = [(command, beside, *slip) for (command, beside), slips in SLIPS.items() for slip in slips]


def compose_as_typed(command: str, arguments: tuple[str, ...]) -> object:
    """Compose a command, or the first job of a sweep, as the command does."""
    job = []
    for argument in arguments:
        if argument != "-m" and "-m" in arguments:
            (override,) = OverridesParser.create().parse_overrides([argument])
            values = [*override.sweep_string_iterator()] if override.is_sweep_override() else []
            argument = f"{argument.partition('=')[0]}={values[0]}" if values else argument
        job += [argument] if argument != "-m" else []
    schema = SCHEMAS.get(command) or (AnalyzeConfig if "analysis=drift" in arguments else CKAConfig)
    return compose_command(command, schema, job)


@cache
def is_accepted(command: str, arguments: tuple[str, ...]) -> bool:
    return compose_as_typed(command, arguments) is not None


def answer(command: str, arguments: list[str]) -> str:
    schema = SCHEMAS.get(command, CKAConfig)
    with pytest.raises(RibError) as error:
        compose_command(command, schema, arguments)
    return str(error.value)


@pytest.mark.parametrize(("command", "beside", "slip", "right"), TABLE, ids=[f"{c} {b} {s}" for c, b, s, _ in TABLE])
def test_a_slip_is_answered_with_the_right_spelling(command, beside, slip, right):
    sentence = answer(command, [*beside.split(), *shlex.split(slip)])
    assert right in sentence
    assert "\n" not in sentence
    assert not [word for word in ("Lexer", "mismatched", "EOF", "hydra.cc", "of type") if word in sentence]


ACCEPTED = sorted(
    {
        (command, beside, right.removesuffix("?"))
        for command, beside, _, right in TABLE
        if right != "-m" and "mean" not in right
    }
)


@pytest.mark.slow
@pytest.mark.parametrize(("command", "beside", "right"), ACCEPTED, ids=[f"{c} {b} {r}" for c, b, r in ACCEPTED])
def test_the_right_spelling_is_accepted(command, beside, right):
    assert is_accepted(command, (*beside.split(), *shlex.split(right)))


def test_the_table_is_long_and_every_command_is_in_it():
    assert len(TABLE) >= 140
    assert {command for command, *_ in TABLE} == {*COMMANDS}


def test_the_way_of_several_methods_is_told():
    assert answer("train", ["method=ewc,lwf"]).endswith(
        "'+method=[ewc,lwf]' stacks them; -m +method=ewc,lwf runs one after the other"
    )
    assert "rib.benchmark" in answer("train", ["seeds=[0,1]"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("data.root=/dätä", "Hydra needs quotes around a text with ä; write"),
        ("epochs", "epochs: this option needs a value, epochs=VALUE; `rib options epochs` explains it"),
        ("train +method=ewc", "train: expected options (NAME=VALUE) after rib train, got a second command"),
        ("--foo 3", "--foo: there is no such option; `rib options` lists all"),
        ("force=maybe", "force: expected true or false, got 'maybe'"),
        ("seed=abc", "seed: expected a whole number, got 'abc'"),
        ("seed=true", "seed: expected a whole number, got 'True'"),
        ("seed=[0,1]", "seed=[0,1]: expected one number, got a list; did you mean -m seed=0,1, one run"),
        ("-m epochs=[1,2]", "epochs=[1,2]: expected one number, got a list; did you mean -m epochs=1,2, one run"),
        ("-m seed=[3]", "expected one number, got a list; did you mean seed=3?"),
        ("model.name=${nowhere}", "model.name: interpolation key 'nowhere' not found"),
        ("resume=true", "resume: there is no such option; leave it out: an interrupted run resumes by itself"),
        ("model=null", "model=null: expected the name of a file in conf/model"),
        ("suite=[seven,paper2]", "suite: expected the name of one file in conf/suite, got a list"),
        ("temperature=2", "did you mean +method=lwf method.lwf.temperature=2?"),
        ("strength=2", "did you mean +method=ewc method.ewc.strength=2? (l2sp, ldifs, lwf, spd, task_arithmetic, ties"),
        ("+method.ewc.strength=3", "method.ewc: method ewc is not selected; add +method=ewc"),
        ("method.ewc.strength=3", "method.ewc.strength: method ewc is not selected; add +method=ewc"),
        ("+method=", "method=: there is no such method; `rib methods` shows all"),
        ("zzz=3", "zzz: there is no such option"),
        ("plan_only=true", "no such option of rib train; it is an option of rib benchmark"),
        ("--plan-only", "it is an option of rib benchmark"),
        ("trials=3", "it is an option of rib search"),
        ("+trials=3", "it is an option of rib search"),
        ("action=status", "it is an option of rib benchmark and rib data"),
    ],
)
def test_what_has_no_right_spelling_is_explained(arguments, sentence):
    assert sentence in answer("train", shlex.split(arguments))


@pytest.mark.parametrize(
    ("argument", "warning"),
    [
        ("+method=[finetune,ewc]", "finetune adds nothing; for one run after the other: -m +method=finetune,ewc"),
        ("epochs=0", "trains nothing"),
        ("+method=[lwf,ewc]", ""),
        ("epochs=1", ""),
    ],
)
def test_what_is_valid_but_surprises_gets_a_warning(capsys, argument, warning):
    say_once.cache_clear()
    assert compose(argument) is not None
    told = capsys.readouterr().err
    assert "\n" not in told.strip()
    assert warning in told
    assert bool(told) == bool(warning)


WORKED = ("force=True", "force=yes", "clip=null", "'epochs= 3'", "+epochs=3", "++epochs=3", "seed=0 seed=1")
WORKED += ("precision=bf16", "model=mini_tiny model=mini_small", "'data.root=a b'", "optimizer.lr=1e-3")


@pytest.mark.parametrize("argument", [*WORKED, "'data.root=\"a=b\"'"])
def test_what_worked_before_is_no_slip(argument):
    assert is_accepted("train", tuple(shlex.split(argument)))


def test_a_home_folder_is_filled_in(monkeypatch):
    monkeypatch.setenv("HOME", "/home/jürgen")
    assert compose("data.root=~/x").data.root == "/home/jürgen/x"
    assert tidy("train", ["paths.runs=~/r"]) == [f'paths.runs="{Path.home()}/r"']


def test_hydras_own_flags_are_left_alone():
    flags = ["-m", "--cfg", "job", "--config-dir=x", "--info", "defaults", "-cd", "y", "--multirun", "~data.limit"]
    assert tidy("train", [*flags, "seed=0,1"]) == [*flags, "seed=0,1"]


def test_aliases_lead_to_options_that_exist():
    for command, aliases in ALIASES.items():
        known = options_of(command)
        for name, alias in aliases.items():
            for text in (alias.one, alias.several or "", *alias.values.values()):
                keys = [word.partition("=")[0].lstrip("+") for word in text.split() if "=" in word]
                assert set(keys) <= {*known, "method"}, (command, name, text)
            assert name not in known or command in ("benchmark", "evaluate", "search"), (command, name)


def test_aliases_of_names_lead_to_files_that_exist():
    for group, names in CHOICES.items():
        assert {*names.values()} <= {*options(group), "null"}, group
        assert not names.keys() & {*options(group)}, group


def test_similar_names_are_not_guessed_for_short_words():
    assert correct("train", "foo", "3") is None
    assert str(correct("train", "seedd", "3")) == "seed=3"
