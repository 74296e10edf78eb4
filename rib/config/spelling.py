"""Spell options so that Hydra's parser, and a shell in front of it, read them as they are meant."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException


def spell_override(key: str, value: object) -> str:
    """Format ``key=value`` so that Hydra parses the same value; the caller adds the quotes for a shell.

    Args:
        key: Dotted name of an option, with or without a leading ``+``.
        value: Number, text, None, or nested lists and dictionaries of them.
    """
    return f"{key}={_value(value)}"


def spell_text(key: str, text: str) -> str:
    """Format ``key=text`` of a command line, with quotes around a text that Hydra cannot parse.

    Args:
        key: Dotted name of an option, with or without a leading ``+``.
        text: As the user wrote it: a number, a list in brackets, a path.
    """
    return f"{key}={text}" if parses(f"{key}={text}") else spell_override(key, text)


def for_shell(arguments: Iterable[str]) -> str:
    """Join arguments to a text that can be pasted into a shell, zsh included."""
    # Words that begin with ~ or = have a meaning in zsh, too; shlex quotes brackets, braces and ~ but not a leading =.
    return " ".join(shlex.quote(argument) for argument in arguments)


def parses(argument: str) -> bool:
    """Return True if Hydra's parser accepts an argument, as a single value or a sweep."""
    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        return False
    return True


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{k}:{_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(_value(item) for item in value) + "]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if not isinstance(value, str):
        return repr(value)
    try:  # without quotes if Hydra parses it to the same text, which excludes 7, null, [a] and a=b
        if value.strip() and OverridesParser.create().parse_override(f"key=[{value}]").value() == [value]:
            return value
    except HydraException:
        pass
    return QuotedString(value, Quote.double).with_quotes()
