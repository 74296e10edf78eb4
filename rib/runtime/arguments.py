"""Sentences for wrong arguments of Python functions, in place of Python's bare TypeError."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from rib.errors import RibError, nearest

P = ParamSpec("P")
R = TypeVar("R")

SYNONYMS = {
    "dataset": ("source", "datasets"),
    "sources": ("source",),
    "trained_on": ("source",),
    "targets": ("datasets",),
    "checkpoint": ("model",),
    "network": ("model",),
    "module": ("model",),
    "lr": ("where",),
    "epochs": ("where",),
    "options": ("where",),
    "pretrained": ("before",),
    "baseline": ("before",),
    "start": ("before",),
    "root": ("data",),
    "data_root": ("data",),
    "preprocess": ("transform",),
    "batch": ("batch_size",),
    "folder": ("run", "runs"),
    "key": ("run",),
    "store": ("runs",),
    "a": ("first",),
    "b": ("second",),
}
"""Names that people try, each with the arguments that they may mean; those that a function has are suggested."""


class ArgumentError(RibError, TypeError):
    """Error for an argument that a function does not have, or one that is missing."""


def explained(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function so that wrong arguments raise an error with the right name; its signature stays visible.

    Args:
        function: A function or method without ``**options``, which the config would check.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        __tracebackhide__ = True  # pytest then shows the caller's line
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ArgumentError(_sentence(function.__name__, signature, args, kwargs, error)) from None
        return function(*args, **kwargs)

    return checked


def _sentence(
    name: str, signature: inspect.Signature, args: tuple[object, ...], kwargs: dict[str, Any], error: TypeError
) -> str:
    """Return what is wrong with the arguments of a call."""
    known = [key for key, one in signature.parameters.items() if one.kind is not one.VAR_POSITIONAL]
    if known[0] == "self":
        known, args = known[1:], args[1:]
    listed = ", ".join(f"{key}=" for key in known)
    for wrong in kwargs:
        if wrong not in known:
            hint = _meant(wrong, known, kwargs[wrong])
            return f"{name}: no argument {wrong}{hint or f'; its arguments are {listed}'}"
    if args and "too many positional" in str(error):
        return f"{name}: too many arguments without a name; write {name}({known[0]}={args[0]!r}); they are {listed}"
    return f"{name}: {error}; its arguments are {listed}"


def _meant(wrong: str, known: list[str], value: object) -> str:
    """Return "; did you mean NAME=?" for an argument that does not exist, or an empty string."""
    meant = [right for right in SYNONYMS.get(wrong, ()) if right in known]
    if meant == ["where"]:
        return f"; write conditions on options as where='{wrong if wrong != 'options' else 'NAME'}={value}'"
    if meant:
        return f"; did you mean {'= or '.join(meant)}=?"
    return nearest(wrong, known).replace("?", "=?")
