"""Read the fields of a suite's YAML file; each mistake is one sentence with its place in the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rib.errors import RibError, nearest


@dataclass(frozen=True)
class Fields:
    """The fields of one part of a suite's file.

    Attributes:
        file: The file, for messages.
        place: Where the part is in the file, ``domains.sketch``; empty for the whole file.
        values: Its fields.
    """

    file: Path
    place: str
    values: Mapping[str, Any]

    def fault(self, key: str, what: str) -> RibError:
        """Return an error about a field: the file, the field and what is wrong with it."""
        return RibError(f"{self.file}: {self.at(key)}: {what}")

    def at(self, key: str) -> str:
        """Return the dotted name of a field, as messages give it."""
        return f"{self.place}.{key}" if self.place else key

    def check_keys(self, known: Iterable[str]) -> None:
        """Check that every field is known.

        Raises:
            RibError: If one is not; the message has the nearest known one.
        """
        known = tuple(known)
        for key in self.values:
            if key not in known:
                hint = nearest(str(key), known) or f"; known: {', '.join(known)}"
                raise self.fault(str(key), f"there is no such key{hint}")

    def text(self, key: str, default: str = "") -> str:
        """Return a field that is a text.

        Raises:
            RibError: If it is not.
        """
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.fault(key, f"expected a text, got {value!r}; put it in quotes")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """Return a field that is true or false.

        Raises:
            RibError: If it is not.
        """
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise self.fault(key, f"expected true or false, got {value!r}")
        return value

    def choice(self, key: str, known: Iterable[str]) -> str | None:
        """Return a field that is one of several words, or None if it is left out.

        Raises:
            RibError: If it is another word; the message has the nearest one.
        """
        value, known = self.values.get(key), tuple(known)
        if value is None or value in known:
            return value
        raise self.fault(
            key, f"expected {', '.join(known[:-1])} or {known[-1]}, got {value!r}{nearest(str(value), known)}"
        )

    def texts(self, key: str) -> tuple[str, ...] | None:
        """Return a field that is a list of texts (or one text), or None if it is left out.

        Raises:
            RibError: If it is something else, or has a text twice.
        """
        value = self.values.get(key)
        if value is None:
            return None
        values = value if isinstance(value, list) else [value]
        found = tuple(self.name(key, one) for one in values)
        if twice := next((one for one in found if found.count(one) > 1), None):
            raise self.fault(key, f"expected each name once, got {twice} twice")
        return found

    def name(self, key: str, value: object) -> str:
        """Return a name in a field: a text, or a whole number, which YAML makes of the name ``3``.

        Raises:
            RibError: If it is something else, such as the truth value that YAML makes of the name ``no``.
        """
        if isinstance(value, str) and value.strip():
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        raise self.fault(key, f"expected a name, got {value!r}; put names like no, on or 1.5 in quotes")

    def part(self, key: str) -> Fields:
        """Return a field that has fields of its own; it is empty if it is left out.

        Raises:
            RibError: If it is something else.
        """
        value = self.values.get(key)
        if not isinstance(value, dict | None):
            raise self.fault(key, f"expected names with a value each (name: value), got {value!r}")
        return Fields(self.file, self.at(key), {self.name(key, name): one for name, one in (value or {}).items()})


def read_yaml(file: Path) -> Fields:
    """Read a YAML file that holds fields.

    Raises:
        RibError: If there is no such file, it is no YAML, or it has a key twice.
    """
    if not file.is_file():
        others = {path.name: path for path in file.parent.glob("*.y*ml")} if file.parent.is_dir() else {}
        hint = nearest(file.name, others) or "; python -m rib.data init FOLDER writes one for a folder of images"
        raise RibError(f"suite: there is no file {file}{hint}")
    try:
        found = yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        what = "a tab; indent with spaces" if "\\t" in str(error.problem) else f"something else ({error.problem})"
        raise RibError(f"{file}: {line}expected YAML, got {what}") from error
    except (yaml.YAMLError, OSError, ValueError) as error:  # ValueError: other encodings, and dates such as 2020-13-45
        raise RibError(f"{file} cannot be read as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(found, dict):
        raise RibError(f"{file}: expected keys with values (name: ..., domains: ...), got {type(found).__name__}")
    return Fields(file, "", found)


class _Loader(yaml.SafeLoader):  # type: ignore[misc] # PyYAML has no types
    """YAML's safe loader, which refuses a key that is there twice; else the last one would win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key.value, str):
                raise yaml.constructor.ConstructorError(None, None, "a list or map as a key", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value} twice", key.start_mark)
            seen.add(key.value)
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found
