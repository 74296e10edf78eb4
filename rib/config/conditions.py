"""Conditions on options, ``optimizer.lr=0.001`` or ``epochs>=5``, with values parsed as Hydra would parse them."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from rib.errors import RibError

ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}

_CONDITION = re.compile(r"\s*([A-Za-z_][\w.+-]*)\s*(<=|>=|!=|==|=|<|>)\s*(.*?)\s*", re.DOTALL)

FORM = "OPTION=VALUE, OPTION=VALUE1,VALUE2, OPTION!=VALUE or OPTION<=NUMBER (or >=, <, >), such as optimizer.lr=0.001"

LISTS = ("models", "methods", "sources", "seeds", "suites")
"""Arguments that take one name or several, so that no brackets are needed around several."""


@dataclass(frozen=True)
class Condition:
    """One condition on an option.

    Attributes:
        option: Dotted name of the option.
        sign: ``=``, ``!=``, ``<``, ``<=``, ``>`` or ``>=``.
        values: Values to compare with; ``=`` is true if any of them equals the option's value, ``!=`` if none does.
    """

    option: str
    sign: str
    values: tuple[Any, ...]

    def __str__(self) -> str:
        """Return the condition as it is written."""
        from rib.config.spelling import spell_override

        spelt = (spell_override("", value)[1:] for value in self.values)
        return f"{self.option}{self.sign}{','.join(spelt)}"

    def holds(self, value: Any) -> bool:
        """Return True if an option with this value meets the condition; null and text meet no ``<`` or ``>``."""
        if self.sign in ORDER:
            return _is_number(value) and ORDER[self.sign](value, self.values[0])
        equal = any(_equal(value, wanted) for wanted in self.values)
        return equal if self.sign == "=" else not equal


def parse_conditions(given: str | Sequence[str] | Mapping[str, Any] | None) -> list[Condition]:
    """Parse conditions on options.

    Args:
        given: ``"optimizer.lr=0.001"``; several separated by commas, or as a list. A comma that no further condition
            follows separates values, any of which is accepted: ``"seed=0,1,epochs>=5"``. A mapping stands for
            equalities, ``{"optimizer.lr": 0.001}``, where a list holds the accepted values.

    Raises:
        RibError: If a condition has no option, no comparison or no value that can be compared.
    """
    if given is None:
        return []
    if isinstance(given, Mapping):
        return [
            Condition(str(name), "=", tuple(value) if isinstance(value, list | tuple | set) else (value,))
            for name, value in given.items()
        ]
    texts = [given] if isinstance(given, str) else list(given)
    return [condition for text in texts for condition in _parse(text)]


def _parse(text: object) -> list[Condition]:
    if not isinstance(text, str):
        raise RibError(f"where: expected {FORM}, got {text!r}")
    conditions: list[Condition] = []
    for piece in _split(text):
        if (found := _CONDITION.fullmatch(piece)) is not None:
            sign = "=" if found[2] == "==" else found[2]
            conditions.append(Condition(found[1], sign, (_value(found[3]),)))
        elif conditions and piece.strip():
            last = conditions.pop()
            conditions.append(Condition(last.option, last.sign, (*last.values, _value(piece.strip()))))
        else:
            raise RibError(f"where: expected {FORM}, got {piece.strip() or 'nothing'}")
    for condition in conditions:
        if condition.sign in ORDER and not (len(condition.values) == 1 and _is_number(condition.values[0])):
            raise RibError(f"where: expected one number after {condition.option}{condition.sign}, got {condition}")
    return conditions


def _split(text: str) -> list[str]:
    """Split a text at its commas, apart from those inside brackets or quotes."""
    pieces, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        else:
            depth += (character in "[{(") - (character in "]})")
        if character == "," and not quote and depth <= 0:
            pieces.append("")
        else:
            pieces[-1] += character
    return pieces


def _value(text: str) -> Any:
    """Parse a value as Hydra does; what Hydra cannot parse is text."""
    try:
        override = OverridesParser.create().parse_override(f"key={text}")
    except HydraException:
        return text
    return text if override.is_sweep_override() else override.value()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _equal(value: object, wanted: object) -> bool:
    """Compare an option's value with a wanted one; text may have the wildcards ``*`` and ``?``; true is not 1."""
    if isinstance(value, str) and isinstance(wanted, str):
        return value == wanted or fnmatchcase(value, wanted)
    return isinstance(value, bool) == isinstance(wanted, bool) and value == wanted


def quote_filters(arguments: Sequence[str]) -> list[str]:
    """Rewrite arguments that select runs into the form that Hydra needs: ``where='a=1'`` and ``methods=ewc,lwf``.

    Hydra reads ``=``, ``<`` and a bare comma in a value as syntax of its own. Several ``where=`` become one list.

    Args:
        arguments: Of the command line, as the user gave them.
    """
    kept: list[str] = []
    conditions: list[str] = []
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name == "suite":  # Hydra takes it for the choice of a file in conf/suite
            name, argument = "suites", f"suites={value}"
        if name == "where" and (value == "null" or _is_text(value)):
            conditions += [] if value == "null" else _texts(value)
        elif name == "where":
            inner = value[1:-1] if value.startswith("[") and value.endswith("]") else value
            conditions.append(inner)
        elif name in LISTS and "," in value.rstrip(",") and value[:1] not in "[\"'":
            kept.append(f"{name}=[{value}]")
        else:
            kept.append(argument)
    if not conditions:
        return kept
    quoted = ",".join(QuotedString(text, Quote.double).with_quotes() for text in conditions)
    return [*kept, f"where=[{quoted}]"]


def _is_text(value: str) -> bool:
    """Return True if a value is text, or a list of texts, that the user has quoted for Hydra already."""
    return bool(re.match(r"\[?\s*[\"']", value))


def _texts(value: str) -> list[str]:
    try:
        parsed = OverridesParser.create().parse_override(f"where={value}").value()
    except HydraException as error:
        raise RibError(f"where: expected {FORM}, got {value}") from error
    return [str(text) for text in (parsed if isinstance(parsed, list) else [parsed])]
