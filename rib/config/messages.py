"""Translate errors of Hydra and OmegaConf into one sentence that names the option and suggests a valid one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from rib.config.command_schema import CKAConfig
from rib.config.schema import Config
from rib.config.shipped import conf_dir, shipped_nodes
from rib.config.unchecked import compose_node
from rib.errors import nearest


def explain(error: Exception) -> str:
    """Translate an error of Hydra or OmegaConf into one sentence: what was given, and the most similar valid name.

    Args:
        error: Exception raised when a config was composed or checked.
    """
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        if group:
            known = ", ".join(error.options)
            return f"{group}={name}: there is no such {group}{nearest(name, error.options)}; known: {known}"
    text = str(error)
    if found := re.search(r"Could not override '([^']+)'", text):
        key = str(found[1]).lstrip("+")
        methods = {f"method.{name}.{k}": name for name, node in shipped_nodes("method").items() for k in node}
        if key in methods:
            return f"{key}: method {methods[key]} is not selected; add +method={methods[key]}"
        named = [f"logger.{k}" for node in shipped_nodes("logger").values() for k in node if k != "_target_"]
        candidates = [*_all_keys(), *methods, *named, *(p.name for p in Path(conf_dir()).iterdir() if p.is_dir())]
        return f"{key}: there is no such option{nearest(key, candidates)}"
    if isinstance(error, OmegaConfBaseException):
        return explain_omegaconf(error, Config)
    return " ".join(text.split())


def explain_omegaconf(error: OmegaConfBaseException, schema: type[Any]) -> str:
    """Translate an error of OmegaConf into one sentence, which suggests the most similar option of the command.

    Args:
        error: Exception raised by OmegaConf.
        schema: Dataclass of the command's options.
    """
    where = str(error.full_key or error.key or "")
    if isinstance(error, ConfigKeyError):
        parent, _, key = where.rpartition(".")
        prefix = f"{parent}." if parent else ""
        return f"{where}: there is no such option{nearest(key, _fields(schema, parent), prefix)}"
    message = str(error.msg or error).split("\n")[0]
    if "not a ListConfig" in message:
        return f"{where}: expected a list, {where}=[..]"
    if "missing mandatory value" in message:
        return f"{where}: this option has no default; add {where}=VALUE"
    return f"{where}: {message[:1].lower()}{message[1:]}" if where else message


def _fields(schema: Any, path: str) -> list[str]:
    """Return the names of the options below a dotted name, ``optimizer``, according to a command's dataclass."""
    for part in filter(None, path.split(".")):
        schema = get_type_hints(schema).get(part)
    return [field.name for field in fields(schema)] if is_dataclass(schema) else []


@cache
def _all_keys() -> tuple[str, ...]:
    """Return the dotted names of all options of `rib.train` and of the analyses."""
    cfg = compose_node("train")

    def walk(node: DictConfig, prefix: str = "") -> Iterator[str]:
        for key in map(str, node):
            yield f"{prefix}{key}"
            child = node._get_node(key)
            if isinstance(child, DictConfig) and not child._is_none():
                yield from walk(child, f"{prefix}{key}.")

    return (*walk(cfg), *_fields(CKAConfig, ""))


def spell_override(key: str, value: object) -> str:
    """Format ``key=value`` so that Hydra parses the same value; the caller adds the quotes for a shell.

    Args:
        key: Dotted name of an option, with or without a leading ``+``.
        value: Number, text, None, or nested lists and dictionaries of them.
    """
    return f"{key}={_value(value)}"


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
