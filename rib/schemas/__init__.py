"""Types and JSON Schemas of the JSON files that rib writes; imports nothing else of rib.

``rib.schemas.load("metrics")`` returns the schema of metrics.json, for any program that reads it. The ``.json`` files
are generated from the types: run ``python -m rib.schemas`` after changing a type.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from rib.schemas import files, grids
from rib.schemas.metrics import Metrics

TYPES: dict[str, Any] = {
    "metrics": Metrics,
    "fit": files.Fit,
    "scoring": files.Scoring,
    "made_from": files.MadeFrom,
    "env": files.Environment,
    "failed": files.Failure,
    "progress": files.ProgressInfo,
    "job": files.Job,
    "status": grids.Status,
    "plan": grids.PlanReport,
}
"""Type of each kind of JSON; status and plan are printed, the others are files."""

FILES = {"metrics": r"metrics(\..+)?", "job": r"job\.\d+"}
"""Regular expression of the file names, without their ending, of kinds whose name is not fixed."""


def kind_of(file: Path) -> str | None:
    """Return the name of the schema for a JSON file, ``metrics`` for metrics.json; None if the file has no schema."""
    if file.suffix != ".json":
        return None
    return next((kind for kind in TYPES if re.fullmatch(FILES.get(kind, kind), file.stem)), None)


@cache
def load(kind: str) -> dict[str, Any]:
    """Return the JSON Schema of one kind of file, ``metrics`` for metrics.json.

    Args:
        kind: Key of `TYPES`: ``metrics``, ``status``, ...

    Raises:
        FileNotFoundError: If there is no such kind.
    """
    schema: dict[str, Any] = json.loads((resources("rib.schemas") / f"{kind}.json").read_text())
    return schema
