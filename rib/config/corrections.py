"""Find the right spelling of an option that does not exist, or of a name that a config group does not have."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from rib.config.aliases import ALIASES, CHOICES, Alias
from rib.config.conf_comments import COMMANDS, options_of
from rib.config.group_names import is_file, names_of, short_names
from rib.config.shipped import options, shipped_nodes
from rib.config.spelling import for_shell, spell_text

FLAGS = {"": "true", "yes": "true", "no": "false", "on": "true", "off": "false"}
"""Spellings of true and false that people try; an empty text stands for a flag such as ``--force``."""

_TIMM = re.compile(r"\w+\.\w+|.*(patch\d|resnet|resnext|convnext|swin|deit|vit_|eva\d|beit|regnet|mixer|mobilenet).*")
_OPEN_CLIP = re.compile(r"(ViT|RN\d|EVA|convnext|coca|nllb)[\w]*-[\w-]+|RN\d+\w*")
_FILE = re.compile(r".*(/|\.(pth?|bin|ckpt|safetensors|tar)$)")


@dataclass(frozen=True)
class Correction:
    """Arguments to write in place of a wrong one.

    Attributes:
        arguments: For Hydra, without a shell's quotes.
        note: What to know besides; empty for nothing.
    """

    arguments: tuple[str, ...]
    note: str = ""

    def __str__(self) -> str:
        """The arguments for a shell, ready to paste."""
        return for_shell(self.arguments)

    @property
    def hint(self) -> str:
        """Text that ends an error message."""
        if not self.arguments:
            return f"; leave it out: {self.note}"
        return f"; did you mean {self}?" + (f" ({self.note})" if self.note else "")


def correct(command: str, key: str, value: str, arguments: Sequence[str] = ()) -> Correction | None:
    """Return what an argument ``key=value`` was probably meant to be; None if nothing is similar.

    Args:
        command: Name of the command, ``train``.
        key: Name of the option as the user wrote it, with or without ``+``.
        value: Text behind ``=``; empty for a flag such as ``--force``.
        arguments: All arguments of the command, which say what methods are selected.
    """
    name = normalise(key)
    known, aliases = options_of(command), ALIASES[command]
    bare = key.lstrip("+~")
    if bare in known and not (command == "benchmark" and bare in ("model", "dataset", "method", "seed")):
        return _known(command, bare, value)
    if name in aliases:
        return _alias(command, aliases[name], value)
    if name in known:
        return _known(command, name, value)
    if "train" in (command, *_like(command)) and (of_method := _of_method(name, value, arguments)):
        return of_method
    end = name.rpartition(".")[2]
    if end in aliases:
        return _alias(command, aliases[end], value)
    last = [option for option in known if option.rpartition(".")[2] == end]
    if "." in name or len(last) == 1:
        close = difflib.get_close_matches(name, last, n=1, cutoff=0.0)
        if close:
            return _known(command, close[0], value)
    cutoffs = (0.7, 0.6) if len(name) > 4 else (0.8, 0.8)  # short names resemble others by chance
    close = difflib.get_close_matches(name, [*known, *(a for a in aliases if len(a) > 3)], n=1, cutoff=cutoffs[0])
    close = close or difflib.get_close_matches(name, list(known), n=1, cutoff=cutoffs[1])
    if close and close[0] not in known:
        return _alias(command, aliases[close[0]], value)
    return _known(command, close[0], value) if close else None


def elsewhere(command: str, key: str) -> str | None:
    """Return the text "; it is an option of rib benchmark" for the option of another command; None if none has it.

    Args:
        command: Name of the command that has no such option, ``train``.
        key: Name of the option as the user wrote it.
    """
    name, known = normalise(key), options_of(command)
    if name in known or name in ALIASES[command] or difflib.get_close_matches(name, list(known), n=1, cutoff=0.85):
        return None
    owners = [f"rib {other}" for other in COMMANDS if name in options_of(other)]
    if not owners:
        return None
    return f"; it is an option of {', '.join(owners[:-1])}{' and ' * (len(owners) > 1)}{owners[-1]}"


def choose_each(group: str, value: str) -> str | None:
    """Return the argument that sweeps over files of a config group, ``dataset=imagenet_r,imagenet_a``.

    Args:
        group: Folder of ``conf/``, ``dataset``.
        value: Names with commas between them, each of which may be misspelt; None is returned if one resembles no file.
    """
    names = [_choice(group, item) for item in split(value)]
    return None if None in names else f"{'+' * (group == 'method')}{group}={','.join(map(str, names))}"


def is_named(group: str, value: str) -> bool:
    """Return True if a config group has a file of a name, or of what the name is short for (``R``)."""
    return normalise(value) in (*names_of(group), *short_names(group))


def choose(group: str, value: str) -> Correction | None:
    """Return the argument that selects the file of a config group that was probably meant; None if none is similar.

    Args:
        group: Folder of ``conf/``, ``dataset``.
        value: Name that the group does not have, ``ImageNet-R``; several in brackets.
    """
    items = split(value.replace("+", ",") if group == "method" else value)
    if not items:
        return None
    names = [_choice(group, item) for item in items]
    if any(name is None for name in names):
        return of_library(value) if group == "model" else None
    several = ",".join(str(name) for name in names)
    prefix = "+method" if group == "method" else group
    return Correction((f"{prefix}=[{several}]" if len(names) > 1 else f"{prefix}={several}",))


def normalise(name: str) -> str:
    """Return a name in lower case, with ``_`` for hyphens and spaces, and without ``+`` or quotes around it."""
    return re.sub(r"[-‐‑–—\s]+", "_", name.strip(" +~-–—\"'").lower())


def split(value: str) -> list[str]:
    """Return the items of ``a,b``, ``[a,b]`` or ``a``, without quotes or empty ones."""
    return [item for part in value.strip(" []").split(",") if (item := part.strip(" '\""))]


def selected_methods(arguments: Sequence[str]) -> list[str]:
    """Return the methods that arguments select, those of ``+method=[a,b]`` included."""
    values = [argument.partition("=")[2] for argument in arguments if re.match(r"\+{0,2}methods?=", argument)]
    return [normalise(name) for value in values for name in split(value)]


def _like(command: str) -> tuple[str, ...]:
    """Return the commands whose options a command takes as well."""
    return ("train",) if command in ("benchmark", "search", "evaluate") else ()


def _known(command: str, name: str, value: str) -> Correction:
    """Return an existing option with a value, which is corrected too where it names a file of ``conf/``."""
    option = options_of(command)[name]
    if option.group and (normalise(value) not in names_of(name)) and (choice := choose(name, value)):
        return choice
    if option.group and normalise(value) in names_of(name):
        value = normalise(value)
    if option.default in ("true", "false"):
        value = FLAGS.get(value.lower(), value)
    return Correction((spell_text(option.argument.removesuffix("="), value),))


def _alias(command: str, alias: Alias, value: str) -> Correction:
    items = split(value)
    template = alias.values.get(value.lower(), alias.one)
    if len(items) > 1 and alias.several is not None:
        template = alias.several
    several = len(items) > 1 or "[{}]" in template
    found: list[str] = []
    for word in template.split():
        key, _, text = word.partition("=")
        if "{}" not in text:
            found.append(word)
            continue
        group = {"models": "model", "sources": "dataset", "methods": "method"}.get(key, key.lstrip("+"))
        if group in CHOICES:
            items = [_choice(group, item) or item for item in items]
        text = text.replace("{}", ",".join(items) if several else (items[0] if items and group in CHOICES else value))
        library = of_library(value) if key == "model" and not {*items} & {*options("model")} else None
        found += library.arguments if library else [spell_text(key, text)]
    return Correction(tuple(found), alias.note if len(items) > 1 or not found else "")


def _of_method(name: str, value: str, arguments: Sequence[str]) -> Correction | None:
    """Return ``method.NAME.option=value`` for the option of a method that was given without its method's name."""
    nodes = shipped_nodes("method")
    selected = [method for method in selected_methods(arguments) if method in nodes]
    parent, _, last = name.removeprefix("method.").rpartition(".")
    if name.startswith("method.") and last in nodes and "strength" in nodes[last]:  # method.ewc=3
        parent, last = last, "strength"
    if not parent:  # ewc_strength, ewc.strength and strength are told apart
        for method in sorted(nodes, key=len, reverse=True):
            if last.startswith(f"{method}_") and last.removeprefix(f"{method}_") in nodes[method]:
                parent, last = method, last.removeprefix(f"{method}_")
                break
    last = {"lambda": "strength", "lam": "strength", "lambda_": "strength", "r": "rank", "t": "temperature"}.get(
        last, last
    )
    if parent and parent not in nodes:
        return None
    owners = [parent] if parent else (selected or list(nodes))
    owners = [method for method in owners if last in nodes[method] and not last.startswith("_")]
    if not owners and parent:
        close = difflib.get_close_matches(last, [k for k in nodes[parent] if k != "_target_"], n=1, cutoff=0.5)
        last, owners = (close[0], [parent]) if close else (last, [])
    if not owners or (not parent and not selected and len(owners) > 1 and last in ("lr", "seed")):
        return None
    method = owners[0] if selected or parent or "ewc" not in owners else "ewc"
    option = spell_text(f"method.{method}.{last}", value)
    others = [m for m in owners if m != method]
    note = f"{', '.join(others)} have this option, too" if others and not selected else ""
    return Correction((option,) if method in selected else (f"+method={method}", option), note)


def _choice(group: str, value: str) -> str | None:
    """Return the file of a config group that a name probably means."""
    names, name, short = names_of(group), normalise(value), short_names(group)
    if group == "suite" and is_file(value):
        return None
    if group == "model" and _OPEN_CLIP.fullmatch(value) and of_library(value):
        return None
    candidates = (value, name, short.get(name), f"imagenet_{name}", name.replace("_", ""))
    found = next((candidate for candidate in candidates if candidate in names), None)
    if found is None and "null" in short.values() and "null" in (short.get(name), name):
        return "null"
    if found is None and group == "model" and of_library(value):
        return None
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return found or (close[0] if close else None)


def of_library(value: str) -> Correction | None:
    """Return the arguments for a model of timm or open_clip that was given by its library's name, or for a file."""
    if difflib.get_close_matches(normalise(value), options("model"), n=1, cutoff=0.85):
        return None
    if _FILE.fullmatch(value):
        return Correction((spell_text("model.weights", value),), "with the model= that the file belongs to")
    for library, pattern in (("open_clip", _OPEN_CLIP), ("timm", _TIMM)):
        if pattern.fullmatch(value):
            return Correction((f"model={library}", spell_text("model.name", value)))
    return None
