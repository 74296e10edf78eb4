"""Make a JSON Schema (draft 2020-12) from a `TypedDict`; descriptions come from its docstring."""

from __future__ import annotations

import re
from inspect import getdoc
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, is_typeddict

from rib.schemas.check import fields_of

NAMES = {int: "integer", float: "number", str: "string", bool: "boolean", NoneType: "null"}

Schema = dict[str, Any]


def json_schema(kind: Any) -> Schema:
    """The JSON Schema of a `TypedDict`; other `TypedDict`s that it holds are in ``$defs``."""
    definitions: dict[str, Schema] = {}
    schema = _object(kind, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": kind.__name__,
        **schema,
        "$defs": dict(sorted(definitions.items())),
    }


def _object(kind: Any, definitions: dict[str, Schema]) -> Schema:
    text, described = _descriptions(getdoc(kind) or "")
    properties = {
        name: {"description": described[name], **_schema(field.type, definitions)}
        for name, field in fields_of(kind).items()
    }
    required = [name for name, field in fields_of(kind).items() if field.required]
    return {"description": text, "type": "object", "properties": properties, "required": required}


def _schema(kind: Any, definitions: dict[str, Schema]) -> Schema:
    """The schema of one value."""
    arguments = get_args(kind)
    if kind is Any:
        return {}
    if is_typeddict(kind):
        if kind.__name__ not in definitions:
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
    """A docstring's text, and its ``Attributes`` by name."""
    text, _, attributes = docstring.partition("\n\nAttributes:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", attributes, re.MULTILINE)
    return " ".join(text.split()), {name: " ".join(said.split()) for name, said in entries}
