"""Several values for one option: say how a list, a sweep and a stack of methods are written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from rib.config.conf_comments import options_of
from rib.config.corrections import Correction, choose, choose_each, correct, split
from rib.config.spelling import for_shell, spell_override
from rib.runtime.console import say_once


def explain_several(command: str, argument: str) -> str:
    """Explain how to give several values: as a list, as a sweep, or as a text.

    Args:
        command: Name of the command, ``train``.
        argument: ``NAME=A,B``, which Hydra has refused without ``-m``.
    """
    key, _, value = argument.partition("=")
    if re.fullmatch(r"\d+,\d+", value) and options_of(command).get(key.lstrip("+")) and "." in key:
        decimal = Correction((f"{key}={value.replace(',', '.')}",))
        return f"{argument}: several values need -m (a sweep), and decimals a point: write {decimal}"
    option = options_of(command).get(key.lstrip("+"))
    each = choose_each(option.name, value) if option and option.group else None
    sweep = f"; -m {for_shell([each or argument])} runs one after the other"
    if command == "report":
        return f"{argument}: expected a list{(correct(command, key, f'[{value}]') or Correction(())).hint}"
    if key.lstrip("+") == "method":
        stacked = choose("method", f"[{value}]") or Correction((f"+method=[{value}]",))
        return f"{argument}: {stacked} stacks them{sweep}"
    if option and not option.default.startswith("["):
        plain = option.group or re.fullmatch(r"[\d.e+-]+|true|false", option.default) or "lr" in key
        text = "" if plain else f"; a text with commas is {for_shell([spell_override(key, value)])}"
        return f"{argument}: several values need -m (a sweep){sweep}{text}"
    if option:
        return f"{argument}: expected a list; did you mean {for_shell([f'{key}=[{value}]'])}?"
    listed, text = for_shell([f"{key}=[{value}]"]), for_shell([spell_override(key, value)])
    return f"{argument}: several values need -m (a sweep); write a list as {listed}, a text as {text}"


ONE_NUMBER = ("epochs", "steps", "clip", "limit", "images_per_class", "lr", "warmup_steps")
"""Last names of options that are null by default, and take one number."""


def explain_list_of_numbers(command: str, argument: str) -> str:
    """Explain how to run several numbers one after the other, ``-m seed=0,1`` for ``seed=[0,1]``.

    Args:
        command: Name of the command, ``train``.
        argument: ``NAME=VALUE`` as the user gave it.

    Returns:
        One sentence; empty if the argument is no list of numbers for an option that takes one number.
    """
    key, _, value = argument.partition("=")
    option = options_of(command).get(key.lstrip("+"))
    if command not in ("train", "search") or option is None or not re.fullmatch(r"[\[(][\d., e+-]*[\])]", value):
        return ""
    is_open = option.default == "null" and key.rpartition(".")[2] in ONE_NUMBER
    if not is_open and not re.fullmatch(r"-?\d[\d.e+-]*", option.default):
        return ""
    items = split(value.strip("()"))
    meant = f"-m {key}={','.join(items)}, one run after the other?" if len(items) > 1 else f"{key}={''.join(items)}?"
    return f"{argument}: expected one number, got a list; did you mean {meant}"


def join_values(command: str, key: str, words: Sequence[str], arguments: Sequence[str]) -> Correction:
    """Return the argument meant by several values with spaces between them: ``+method=ewc, lwf``, ``seeds=0 1``.

    Args:
        command: Name of the command, ``train``.
        key: Name of the option as the user wrote it.
        words: The values.
        arguments: All arguments of the command.
    """
    value = ",".join(split(",".join(words)))
    option = options_of(command).get(key.lstrip("+"))
    if command in ("train", "search") and option:
        argument = (choose_each(option.name, value) if option.group else None) or f"{key}={value}"
        meant = Correction((*([] if {"-m", "--multirun"} & {*arguments} else ["-m"]), argument))
    elif command == "report" and option:  # reads commas itself (`rib.config.conditions.quote_filters`)
        meant = Correction((f"{key}={value}",))
    else:
        meant = correct(command, key, f"[{value}]" if option else value, arguments) or Correction((f"{key}=[{value}]",))
    return replace(meant, note="no space after a comma" if words[0].endswith(",") else "commas between the values")


def warn_of_empty_method(argument: str) -> None:
    """Warn of a stack of methods with ``finetune`` in it, which was probably meant to be a sweep over both.

    The stack is valid, since a grid may name it, and plain fine-tuning adds nothing to the methods beside it.
    """
    found = re.fullmatch(r"\+*method=\[(.*)\]", argument)
    names = split(found[1]) if found else []
    if "finetune" in names and len(names) > 1:
        say_once(
            f"warning: {for_shell([argument])} stacks methods in one run, to which finetune adds nothing; for one run "
            f"after the other: -m +method={','.join(names)}"
        )
