"""Generate a JSON Schema (draft 2020-12) from a `TypedDict`; its docstring gives the descriptions."""

from __future__ import annotations

import re
from inspect import getdoc
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, is_typeddict

from rib.schemas.check import fields_of

NAMES = {int: "integer", float: "number", str: "string", bool: "boolean", NoneType: "null"}

Schema = dict[str, Any]


def json_schema(kind: Any) -> Schema:
    """Return the JSON Schema of a `TypedDict`; nested `TypedDict`s are in its ``$defs``.

    Args:
        kind: A `TypedDict` whose docstring describes every key under ``Attributes``.

    Raises:
        KeyError: If the docstring lacks a key.
    """
    definitions: dict[str, Schema] = {}
    schema = _object(kind, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": kind.__name__,
        **schema,
        "$defs": dict(sorted(definitions.items())),
    }


def _object(kind: Any, definitions: dict[str, Schema]) -> Schema:
    """Return the JSON Schema of a `TypedDict`, adding nested ones to the definitions."""
    text, described = _descriptions(getdoc(kind) or "")
    properties = {
        name: {"description": described[name], **_schema(field.type, definitions)}
        for name, field in fields_of(kind).items()
    }
    required = [name for name, field in fields_of(kind).items() if field.required]
    return {"description": text, "type": "object", "properties": properties, "required": required}


def _schema(kind: Any, definitions: dict[str, Schema]) -> Schema:
    """Return the JSON Schema of one type annotation, adding nested `TypedDict`s to the definitions."""
    arguments = get_args(kind)
    if kind is Any:
        return {}
    if is_typeddict(kind):
        if kind.__name__ not in definitions:  # two types of one name would share a definition; rib has none
            definitions[kind.__name__] = _object(kind, definitions)
        return {"$ref": f"#/$defs/{kind.__name__}"}
    if get_origin(kind) in (Union, UnionType):
        return {"anyOf": [_schema(option, definitions) for option in arguments]}
    if get_origin(kind) is dict:
        return {"type": "object", "additionalProperties": _schema(arguments[1], definitions)}
    if get_origin(kind) is list:
        return {"type": "array", "items": _schema(arguments[0], definitions)}
    return {"type": NAMES[kind]}


def _descriptions(docstring: str) -> tuple[str, dict[str, str]]:
    """Return a docstring's text before ``Attributes``, and each attribute's description by name."""
    text, _, attributes = docstring.partition("\n\nAttributes:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", attributes, re.MULTILINE)
    return " ".join(text.split()), {name: " ".join(description.split()) for name, description in entries}
