"""Options of the commands with their defaults and meanings, read from the files of ``conf/`` and their comments.

Neither Hydra nor torch is imported, so that help is shown at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from rib.config.command_schema import InversionConfig
from rib.config.schema import ModelConfig, PretrainingConfig, RecipeConfig, TransformConfig
from rib.config.shipped import conf_dir, options

COMMANDS = ("train", "benchmark", "evaluate", "report", "search", "analyze", "data", "pretrain")
"""Names of the commands, which are those of their files in ``conf/``."""

GLOBAL = ("experiment", "study", "analysis")
"""Config groups whose files set options at the top level (``@package _global_``)."""

_DOCUMENTED = {
    "model": str(ModelConfig.__doc__),
    "model.transform": str(TransformConfig.__doc__),
    "model.pretraining": str(PretrainingConfig.__doc__),
    **dict.fromkeys(("recipe.user", "recipe.mini"), str(RecipeConfig.__doc__)),
    "inversion": str(InversionConfig.__doc__),
}
"""Docstrings that explain the options of blocks whose lines in ``conf/`` have no room for comments."""

_WHOLE = ("published", "draw", "probe")
"""Options whose value is a dictionary."""

_FIRST = {
    "model": "timm",
    "dataset": "imagenet_r",
    "suite": "seven",
    "head": "default",
    "optimizer": "sgd",
    "trainer": "auto",
    "logger": "wandb",
    "analysis": "cka",
}
"""File of a config group whose comments and defaults are read first."""

RECIPE = {"epochs": "epochs", "optimizer.lr": "lr", "optimizer.warmup_steps": "warmup_steps"}
"""Options whose default is a value of ``recipe``, by the kind of data."""


@dataclass(frozen=True)
class Option:
    """An option of a command.

    Attributes:
        name: Dotted name, ``optimizer.lr``; of a config group its name, ``model``.
        default: Default as written in ``conf/``.
        meaning: Comment in ``conf/``.
        group: True if the option chooses a file of ``conf/``.
    """

    name: str
    default: str
    meaning: str
    group: bool = False

    @property
    def argument(self) -> str:
        """The option as it begins on the command line, ``+method=``."""
        return f"+{self.name}=" if self.name == "method" else f"{self.name}="


@cache
def options_of(command: str) -> dict[str, Option]:
    """Return all options of a command by their dotted names, the options of all methods and loggers included.

    Args:
        command: One of `COMMANDS`.
    """
    file = Path(conf_dir(), f"{command}.yaml")
    found = _read(file)
    for option in list(found.values()):
        if option.group:
            found = {**found, **_without(group_options(option.name), found)}
    if "train" in _inherited(file):
        found = {**found, **_without(options_of("train"), found)}
    elif command == "train":
        found["method"] = replace(found["method"], group=True, default="none (plain fine-tuning)")
        found |= group_options("method")
    return {name: option for name, option in found.items() if name != "given" and not name.startswith("hydra")}


@cache
def group_options(group: str) -> dict[str, Option]:
    """Return the options in the files of a config group, by dotted names; where several files have one, the first's.

    Args:
        group: Folder of ``conf/``, ``optimizer``.
    """
    names = sorted(options(group), key=lambda name: name != _FIRST.get(group))
    found: dict[str, Option] = {}
    for name in names if group not in ("experiment", "study") else ():
        found |= _without(file_options(group, name), found)
    return found


def file_options(group: str, name: str) -> dict[str, Option]:
    """Return the options in one file of a config group, by dotted names.

    Args:
        group: Folder of ``conf/``, ``optimizer``.
        name: File in it, without its ending.
    """
    return _read(Path(conf_dir(), group, f"{name}.yaml"), "" if group in GLOBAL else f"{group}.")


def default_of(option: Option) -> str:
    """Return the default of an option in words: of one that the recipe sets, its values for both kinds of data.

    Args:
        option: Of any command.
    """
    if option.name not in RECIPE or option.default != "null":
        return option.default
    known = options_of("train")
    real, toy = (known[f"recipe.{kind}.{RECIPE[option.name]}"].default for kind in ("user", "mini"))
    return f"null: {real} on real data, {'a tenth of all steps' if toy == 'null' else toy} on toy data"


def header(file: Path) -> list[str]:
    """Return the lines of the comment at the top of a file of ``conf/``, without ``#``."""
    lines: list[str] = []
    for line in file.read_text().splitlines():
        if not line.startswith("#"):
            break
        lines.append(line[1:].removeprefix(" "))
    return [line for line in lines if not line.startswith("@package")]


def summary(file: Path) -> str:
    """Return the first paragraph of the comment at the top of a file, without commands."""
    text = "\n".join(header(file)).split("\n\n")[0]
    return " ".join(re.sub(r"\s*python -m rib.*", "", text).split())


def examples(file: Path) -> list[str]:
    """Return the commands in the comment at the top of a file, each with the remark behind it."""
    text = re.sub(r"\s*\\\n\s*", " ", "\n".join(header(file)))
    return [line.strip() for line in text.splitlines() if re.match(r"\s{2}python -m rib\.", line)]


def _without(more: dict[str, Option], known: dict[str, Option]) -> dict[str, Option]:
    return {name: option for name, option in more.items() if name not in known}


def _inherited(file: Path) -> list[str]:
    """Return the commands whose options a command's file takes over (``- train`` in its defaults list)."""
    return [entry for entry in yaml.safe_load(file.read_text()).get("defaults", []) if isinstance(entry, str)]


def _read(file: Path, prefix: str = "") -> dict[str, Option]:
    """Return the options in one file by dotted names: those that choose a file first, then values in their order."""
    text = file.read_text()
    node = yaml.load(text, yaml.BaseLoader) or {}  # numbers as they are written, 1.0e-8
    comments = _comments(text)
    found: dict[str, Option] = {}
    for entry in node.pop("defaults", []):
        group, name = next(iter(entry.items())) if isinstance(entry, dict) else ("", None)
        if group.startswith("override ") and "hydra" not in group:
            group = group.removeprefix("override ")
            found[group] = replace(options_of("train")[group], default=_written(name))
        elif group and not group.startswith("override"):
            found[group] = Option(group, _written(name), comments.get(f"defaults.{group}", ""), True)
    for name, value in _leaves(node):
        full = f"{prefix}{name}"
        if name.rpartition(".")[2] != "_target_" and not (prefix == "method." and value == {}):
            found.setdefault(full, Option(full, _written(value), comments.get(name) or _meaning(full, comments)))
    return found


def _leaves(node: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return the dotted names and values in nested dictionaries; an empty dictionary is a value."""
    found = []
    for key, value in node.items():
        name = f"{prefix}{key}"
        whole = (
            not isinstance(value, dict)
            or not value
            or name.rpartition(".")[2] in _WHOLE
            or value.keys() <= {"user", "mini"}
        )
        found += [(name, value)] if whole and name != "recipe" else _leaves(value, f"{name}.")
    return found


def _meaning(name: str, comments: dict[str, str]) -> str:
    """Return what the schema says of an option in a block without comments, or else the comment of the block."""
    parent, _, last = name.rpartition(".")
    entry = re.search(rf"^ {{8}}{last}: (.*(?:\n {{12}}.*)*)", _DOCUMENTED.get(parent, ""), re.M)
    if not entry:
        return comments.get(parent, "")
    text = " ".join(entry[1].split()).replace("``", "").rstrip(".")
    return f"{text[:1].lower()}{text[1:]}"


def _comments(text: str) -> dict[str, str]:
    """Return the comment of each key by its dotted name: before it, behind it, or continued below it.

    An entry of the defaults list is named ``defaults.<group>``.
    """
    found: dict[str, str] = {}
    stack: list[tuple[int, str]] = []
    before: list[str] = []
    column, last, in_header = -1, "", True
    for line in text.splitlines():
        if only := re.match(r"(\s*)#\s?(.*)", line):
            if in_header:
                continue
            if len(only[1]) == column:
                found[last] = f"{found[last]} {only[2]}".strip()
            else:
                before.append(only[2])
            continue
        in_header = False
        if not (key := re.match(r"(\s*)(?:- )?([\w/]+):(.*)", line)):
            before, column = [], -1
            continue
        indent = len(key[1])
        stack = [entry for entry in stack if entry[0] < indent]
        stack.append((indent, key[2]))
        last = ".".join(name for _, name in stack)
        behind = re.search(r"\s#\s(.*)$", line)
        column = behind.start() + 1 if behind else -1
        found[last] = " ".join([*before, behind[1] if behind else ""]).strip()
        before = []
    return found


def _written(value: Any) -> str:
    """Return a value as it is written on the command line; an environment variable by its name."""
    if variable := re.fullmatch(r"\$\{oc\.env:(\w+),(\w+)\}", str(value)):
        return f"${variable[1]}, else {variable[2]}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_written(v) for v in value) + "]"
    return "null" if value is None else str(value)
