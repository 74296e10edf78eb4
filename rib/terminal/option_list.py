"""``rib options``: what can be set, its meaning, its default, the commands that take it, and its keys."""

from __future__ import annotations

import difflib
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

from rib.config.aliases import ALIASES
from rib.config.conf_comments import COMMANDS, Option, default_of, examples, file_options, options_of, summary
from rib.config.help_page import definitions, example_lines
from rib.config.shipped import conf_dir, options
from rib.errors import RibError
from rib.terminal.option_keys import keys_of

OF_RUNS = ("train", "benchmark", "search", "evaluate")
"""Commands that make or score runs."""

LEGEND = (
    "training key: another value makes a new run; score key: another value scores the same weights again; options "
    "without a key change no number. A repeated command finds its result by these keys."
)

GROUPS = (
    *("model", "dataset", "method", "suite", "head", "optimizer", "trainer", "logger", "study", "experiment"),
    "analysis",
)
"""Config groups, whose files have a page each."""


def options_page(arguments: Sequence[str], columns: int) -> str:
    """Return a list of options with their meanings, or one option in full.

    Args:
        arguments: Nothing for the options of `rib.train`, or the name of a command, a method, a config group or an
            option; a pattern with ``*``; or a part of a name.
        columns: Width of the terminal.

    Raises:
        RibError: If there is no such option; the message has the nearest one.
    """
    if not arguments:
        return _of_command("train", columns)
    return "\n\n".join(_page_of(argument, columns) for argument in arguments)


def _page_of(argument: str, columns: int) -> str:
    key, _, value = argument.lstrip("+-").partition("=")
    name = (value if key in GROUPS and value in options(key) else key).removesuffix(".*").removesuffix(".")
    every = _every()
    if name in every and not every[name].group:
        # lr is an option of pretrain, and what many call optimizer.lr
        other = ALIASES["train"].get(name) if name not in options_of("benchmark") else None
        meant = [every[_meant(name, every)]] if other else []
        return "\n\n".join(_in_full(option, columns) for option in [*meant, every[name]])
    for group in ("method", *GROUPS):
        if name.removeprefix("method.") in options(group):
            return _file(group, name.removeprefix("method."), columns)
    of_command = [_of_command(name, columns)] if name in COMMANDS else []
    if name in GROUPS or name in every:
        found = {n: option for n, option in every.items() if n == name or n.startswith(f"{name}.")}
        listed = "" if name in ("method", "data", "paths") else f"\n\nNames: {' '.join(options(name))}"
        found = {name: every[name]} if name == "method" else found
        more = "; `rib methods` lists them" if name == "method" else ""
        of_group = _list(f"Options of the group {name}{more}", found, columns) + _wrap(listed, columns)
        return "\n\n".join([*of_command, of_group])
    if of_command:
        return of_command[0]
    pattern = name.lower()
    found = {n: option for n, option in every.items() if fnmatch(n, pattern) or (len(pattern) > 2 and pattern in n)}
    if not found:
        return _in_full(every[_meant(name, every)], columns)
    return (
        _in_full(next(iter(found.values())), columns)
        if len(found) == 1
        else _list(f"Options with {name!r}", found, columns)
    )


def _of_command(name: str, columns: int) -> str:
    return _list(f"Options of rib {name}", options_of(name), columns, name)


def _every() -> dict[str, Option]:
    """Return the options of all commands; where several have one of a name, the first command's."""
    found: dict[str, Option] = {}
    for command in COMMANDS:
        found |= {name: option for name, option in options_of(command).items() if name not in found}
    return found


def _meant(name: str, every: Mapping[str, Option]) -> str:
    """Return the option that goes by another name elsewhere (``lr``).

    Raises:
        RibError: If there is none.
    """
    for command in COMMANDS:
        if alias := ALIASES[command].get(name.lower().replace("-", "_")):
            words = [word.partition("=")[0].lstrip("+") for word in alias.one.split() if "=" in word]
            if words and words[-1] in every:
                return words[-1]
    names = [*every, *GROUPS, *COMMANDS, *options("method"), *(name.rpartition(".")[2] for name in every)]
    names += ALIASES["train"]
    close = difflib.get_close_matches(name.lower().replace("-", "_"), names, n=1, cutoff=0.6)
    if close and close[0] in ALIASES["train"] and close[0] not in every:
        close = [_meant(close[0], every)]
    hint = f"; did you mean {close[0]}?" if close else "; `rib options` lists those of rib train"
    raise RibError(f"{name}: there is no such option, command or method{hint}")


def _file(group: str, name: str, columns: int) -> str:
    """Return what a file of a config group is for, and its options."""
    file = Path(conf_dir(), group, f"{name}.yaml")
    prefix = "+method" if group == "method" else group
    lines = [f"{prefix}={name}", *textwrap.wrap(summary(file), columns)]
    found = {name: option for name, option in file_options(group, name).items() if _commands(name)}
    if commands := examples(file)[:3]:
        lines += ["", "Examples"]
    for example in commands:
        lines += example_lines(re.sub(r"python -m rib\.(\w+)", r"rib \1", example), columns)
    return "\n".join([*lines, "", _list(f"Options of {name}", found, columns) if found else "It has no options."])


def _list(title: str, found: Mapping[str, Option], columns: int, command: str = "") -> str:
    """Return options with meaning, default and keys; the commands that most of them are options of are in the title.

    In the list of one command no commands are told, and keys only if it makes or scores runs.
    """
    found = {name: option for name, option in found.items() if not option.group or len(options(name)) != 1}
    takers = {name: tuple(_commands(name)) for name in found}
    common = Counter(takers.values()).most_common(1)[0][0]
    others = {name: "" if command or who == common else _few(who) for name, who in takers.items()}
    keys = command in ("", *OF_RUNS)
    rows = [(option.argument, _text(option, others[name], keys)) for name, option in found.items()]
    lines = [*textwrap.wrap(title if command else f"{title} ({_few(common)})", columns), *definitions(rows, columns)]
    legend = (
        ["", *textwrap.wrap(LEGEND, columns)]
        if any(re.search("(training|score) key", text) for _, text in rows)
        else []
    )
    return "\n".join([*lines, *legend])


def _text(option: Option, commands: str, with_keys: bool) -> str:
    """Return the meaning of an option, with its default and keys in parentheses."""
    default = f"default {default_of(option)}" if option.default != "???" else "no default"
    keys = keys_of(option.name) if with_keys and _is_of_run(option) else None
    more = [default, commands, str(keys) if keys and (keys.training or keys.score) else ""]
    return f"{option.meaning} ({'; '.join(part for part in more if part)})"


def _in_full(option: Option, columns: int) -> str:
    """Return everything about one option, apart for commands in which it means something else."""
    meanings: dict[Option, list[str]] = {}
    for command in _commands(option.name):
        meanings.setdefault(options_of(command)[option.name], []).append(command)
    blocks = [_block(meaning, commands, columns) for meaning, commands in meanings.items()]
    legend = textwrap.wrap(LEGEND, columns) if any(map(_is_of_run, meanings)) else []
    return "\n\n".join([*blocks, *(["\n".join(legend)] if legend else [])])


def _block(option: Option, commands: Sequence[str], columns: int) -> str:
    """Return what an option means in some commands: its meaning and default, and its keys."""
    keys = keys_of(option.name)
    of_run = _is_of_run(option) and {*OF_RUNS} & {*commands}
    key = f"{keys}{f' ({keys.reason})' if keys.reason else ''}" if of_run else "no key of a run"
    rows = [
        ("meaning", option.meaning),
        ("default", default_of(option) if option.default != "???" else "none, it must be given"),
        ("commands", _rib(commands)),
        ("key", key),
    ]
    defaults = [(f"{g}={n}", o[option.name].default) for g, n, o in _files(option.name) if option.name in o]
    if len({default for _, default in defaults}) > 1 and len(defaults) < 10:
        rows.append(("by file", ", ".join(f"{default} with {choice}" for choice, default in defaults)))
    return "\n".join([option.argument, *definitions(rows, columns)])


def _files(name: str) -> Iterable[tuple[str, str, dict[str, Option]]]:
    group = name.partition(".")[0]
    return [(group, n, file_options(group, n)) for n in options(group)] if group in ("optimizer", "logger") else []


def _is_of_run(option: Option) -> bool:
    """Return True if an option belongs to a run, whose keys it may be part of."""
    return option.name in options_of("train") and not (option.group and option.name in ("data", "paths"))


def _commands(name: str) -> list[str]:
    return [command for command in COMMANDS if name in options_of(command)]


def _rib(commands: Sequence[str]) -> str:
    """Return the names of commands as ``rib train, benchmark and search``."""
    *first, last = commands
    return f"rib {', '.join(first)} and {last}" if first else f"rib {last}"


def _few(commands: Sequence[str]) -> str:
    """Return the names of commands, of more than half by those that are left out: ``every command but data``."""
    others = [command for command in COMMANDS if command not in commands]
    if len(others) >= len(commands) or len(others) > 2:
        return f"in {_rib(commands)}"
    return f"every command but {' and '.join(others)}" if others else "every command"


def _wrap(text: str, columns: int) -> str:
    return "\n".join("\n".join(textwrap.wrap(line, columns)) for line in text.split("\n"))
