"""Types and JSON Schemas of the JSON that rib writes; imports nothing else of rib.

``rib.schemas.load("metrics")`` gives the schema of metrics.json to any program that reads it. The ``.json`` files are
made from the types: after a change of a type run ``python -m rib.schemas``.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from rib.schemas import files
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
    "status": files.Status,
    "plan": files.PlanReport,
}
"""Type of each kind of JSON; status and plan are printed, the others are files."""

FILES = {"metrics": r"metrics(\..+)?", "job": r"job\.\d+"}
"""Names of files, without their ending, of kinds that have several."""


def kind_of(file: Path) -> str | None:
    """The kind of JSON that a file's name promises, ``metrics``; None for files of other kinds."""
    if file.suffix != ".json":
        return None
    return next((kind for kind in TYPES if re.fullmatch(FILES.get(kind, kind), file.stem)), None)


@cache
def load(kind: str) -> dict[str, Any]:
    """The JSON Schema of a kind of JSON.

    Args:
        kind: ``metrics``, ``status``, ... (`TYPES`).
    """
    schema: dict[str, Any] = json.loads((resources("rib.schemas") / f"{kind}.json").read_text())
    return schema
