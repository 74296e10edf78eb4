"""Validation of the JSON files that tests write against the JSON Schemas that rib ships."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from rib.errors import RibError
from rib.runs.metrics_file import read
from rib.schemas import kind_of, load


@cache
def validator(kind: str) -> Draft202012Validator:
    return Draft202012Validator(load(kind))


def validate(content: Any, kind: str) -> None:
    """Raise for what a schema does not allow."""
    validator(kind).validate(content)


def check_files(folders: Iterable[Path]) -> Counter[str]:
    """Validate every JSON file of a known kind below some folders.

    What rib itself refuses to read was damaged by a test: rib writes nothing that it cannot read.

    Returns:
        How many files of each kind were validated.
    """
    seen: Counter[str] = Counter()
    for folder in folders:
        for place, _, names in os.walk(folder):
            for file in (Path(place, name) for name in names):
                if (kind := kind_of(file)) is None or not _is_readable(file):
                    continue
                faults = [error.message for error in validator(kind).iter_errors(json.loads(file.read_text()))]
                assert not faults, f"{file} is not as rib/schemas/{kind}.json says: {faults}"
                seen[kind] += 1
    return seen


def _is_readable(file: Path) -> bool:
    try:
        read(file)
    except (OSError, RibError):
        return False
    return True
