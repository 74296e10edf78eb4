"""Convert the arguments of a Python function to overrides, as they are written on the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from rib.config.shipped import conf_dir, options
from rib.config.spelling import spell_override
from rib.errors import RibError


def overrides_of(method: object, overrides: Sequence[object], values: Mapping[str, Any]) -> list[str]:
    """Return the overrides that a method, texts and keyword arguments stand for; the texts come last, so they win.

    Args:
        method: Name of a method, a list of names to stack, a mapping from names to options, or None; a text with
            ``=`` is an override.
        overrides: ``"optimizer.lr=0.01"``, as on the command line.
        values: Values by option; a mapping sets several options of one group, ``optimizer={"lr": 0.01}``.

    Raises:
        RibError: If a text is no override, or a value is no number, text, list or mapping.
    """
    if isinstance(method, str) and "=" in method:
        method, overrides = None, [method, *overrides]
    for override in overrides:
        if not isinstance(override, str) or not ("=" in override or override.startswith("~")):
            raise RibError(
                f"{override!r}: expected an override, 'NAME=VALUE', after the method; several methods are a list, "
                f"{[*_names(method), override]!r}"
            )
    return [*_method(method), *_flat(values), *map(str, overrides)]


def _names(method: object) -> list[Any]:
    """Return the names of the methods to stack."""
    if method is None:
        return []
    if isinstance(method, str):
        return [method]
    if isinstance(method, Mapping | Sequence | set):
        return list(method)
    raise RibError(f"method: expected a name, a list of names or None, got {_shown(method)}")


def _method(method: object) -> list[str]:
    names = _names(method)
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise RibError(f"method: expected names, got {_shown(wrong[0])}")
    chosen = [spell_override("+method", names if len(names) > 1 else names[0])] if names else []
    nodes = {f"method.{name}": node for name, node in method.items()} if isinstance(method, Mapping) else {}
    return [*chosen, *_flat({name: node for name, node in nodes.items() if node})]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        key = f"{prefix}{name}"
        value = fspath(value) if isinstance(value, PathLike) else value  # suite=Path("pets.yaml")
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{key}.")
        elif Path(conf_dir(), key).is_dir() and not isinstance(value, str):
            yield from _no_file(key, value)
        else:
            yield spell_override(key, _plain(key, value))


def _no_file(group: str, value: object) -> Iterator[str]:
    """Yield the override for a config group without the name of a file, which may be None where a group can be empty.

    Hydra would raise a ValueError for None, and take the last one of a list without a word.
    """
    if value is None and "none" in options(group):
        yield f"{group}=none"
    elif value != {} and not (value is None and group == "experiment"):
        raise RibError(
            f"{group}: expected one name, or a mapping of options, got {_shown(value)}; for several, call the function "
            "for each"
        )


def _plain(key: str, value: Any) -> Any:
    """Return a value of plain Python: an array, a path or a number of another library becomes what it stands for."""
    if isinstance(value, Enum):
        return _plain(key, value.value)
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float) and type(value).__module__ == "builtins":
        return value
    if isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, Mapping):
        return {name: _plain(key, item) for name, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [_plain(key, item) for item in value]
    if hasattr(value, "tolist"):  # NumPy's and torch's numbers and arrays
        return _plain(key, value.tolist())
    raise RibError(f"{key}: expected a number, a text, a path, a list or a mapping, got {_shown(value)}")


def _shown(value: object) -> str:
    """Describe a value in a message: its type, and its text if that is short."""
    text = repr(value)
    return text if len(text) <= 40 else f"a value of type {type(value).__name__}"
