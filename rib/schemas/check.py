"""Check JSON against a `TypedDict` at run time, and describe every difference."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from types import NoneType, UnionType
from typing import Any, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict


class Field:
    """Type of one key of a `TypedDict`.

    Args:
        hint: The key's annotation.

    Attributes:
        type: Type of the value.
        required: False for `NotRequired`.
    """

    def __init__(self, hint: Any) -> None:
        self.required = get_origin(hint) is not NotRequired
        self.type = hint if self.required else get_args(hint)[0]


@cache
def fields_of(kind: Any) -> dict[str, Field]:
    """Return the keys of a `TypedDict` with their types, inherited keys first."""
    return {name: Field(hint) for name, hint in get_type_hints(kind, include_extras=True).items()}


def faults(value: object, kind: Any, name: str = "") -> Iterator[str]:
    """Describe every difference between a JSON value and its expected type; unknown keys are ignored.

    Args:
        value: As `json.loads` returns it.
        kind: A `TypedDict`, ``dict[str, X]``, ``list[X]``, ``X | None``, ``int``, ``float``, ``str``, ``bool`` or
            `Any`. An ``int`` is a ``float``, and a ``bool`` is neither.
        name: Dotted name of the value.

    Yields:
        One text for each difference: ``it has no seconds.fit``, ``protocol.limit is "60"``.
    """
    prefix = f"{name}." if name else ""
    if kind is Any:
        return
    if get_origin(kind) in (Union, UnionType):
        if value is not None or NoneType not in get_args(kind):
            others = [option for option in get_args(kind) if option is not NoneType]
            # Of several types, the one with the fewest differences is the one that was meant.
            yield from min((list(faults(value, option, name)) for option in others), key=len)
    elif not _is_instance(value, kind):
        yield f"{name} is {shorten(value)}"
    elif is_typeddict(kind):
        assert isinstance(value, dict)
        for key, field in fields_of(kind).items():
            if key in value:
                yield from faults(value[key], field.type, f"{prefix}{key}")
            elif field.required:
                yield f"it has no {prefix}{key}"
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from faults(entry, get_args(kind)[1], f"{prefix}{key}")
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from faults(entry, get_args(kind)[0], f"{name}[{index}]")


@cache
def checker(kind: Any) -> Callable[[object], bool]:
    """Return a function that tells whether a JSON value is of a type, like `faults` without a word, 5 times as fast.

    A store of 10,000 runs has as many files to check.

    Args:
        kind: As for `faults`.
    """
    if kind is Any:
        return lambda value: True
    if get_origin(kind) in (Union, UnionType):
        checkers = [checker(option) for option in get_args(kind) if option is not NoneType]
        with_none = NoneType in get_args(kind)
        return lambda value: (with_none and value is None) or any(fits(value) for fits in checkers)
    if is_typeddict(kind):
        return _dict_checker({key: (checker(field.type), field.required) for key, field in fields_of(kind).items()})
    outer = get_origin(kind) or kind
    if outer is dict:
        entry = checker(get_args(kind)[1])
        return lambda value: isinstance(value, dict) and all(map(entry, value.values()))
    if outer is list:
        entry = checker(get_args(kind)[0])
        return lambda value: isinstance(value, list) and all(map(entry, value))
    if outer in (bool, str, NoneType):
        return lambda value: isinstance(value, outer)
    numbers = (int, float) if outer is float else outer
    # bool is a subclass of int, but true is no number in JSON
    return lambda value: isinstance(value, numbers) and not isinstance(value, bool)


def _dict_checker(fields: dict[str, tuple[Callable[[object], bool], bool]]) -> Callable[[object], bool]:
    """Return the checker of a `TypedDict`, given each key's checker and whether the key must be there."""
    entries = [(key, fits, required) for key, (fits, required) in fields.items()]

    def check(value: object) -> bool:
        if not isinstance(value, dict):
            return False
        for key, fits, required in entries:
            if key in value:
                if not fits(value[key]):
                    return False
            elif required:
                return False
        return True

    return check


def shorten(value: object) -> str:
    """Format a value as JSON, cut to at most 40 characters."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _is_instance(value: object, kind: Any) -> bool:
    outer: type = dict if is_typeddict(kind) else get_origin(kind) or kind
    if isinstance(value, bool):  # bool is a subclass of int, but true is no number in JSON
        return outer is bool
    return isinstance(value, (int, float) if outer is float else outer)
