"""``python -m rib.schemas``: generate the JSON Schemas again, after a change of a type."""

from __future__ import annotations

import json
from pathlib import Path

from rib.schemas import TYPES
from rib.schemas.build import json_schema


def write_schemas(folder: Path) -> None:
    """Write ``<kind>.json`` to a folder for every kind of JSON file that rib writes."""
    for kind, type_ in TYPES.items():
        (folder / f"{kind}.json").write_text(json.dumps(json_schema(type_), indent=1) + "\n")


if __name__ == "__main__":
    write_schemas(Path(__file__).parent)
