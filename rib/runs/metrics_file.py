"""JSON files of a store, read with suspicion: what is in them is what the contract says, or it is said in one sentence.

A file that does not hold what was written to it is damaged; one that another version of rib wrote is no one's fault,
and stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rib.errors import DamagedError, OtherVersionError, RibError

SCHEMA = 1
"""Of metrics.json, as this version writes and reads it."""

AGAIN = "delete it and give the command again"

Kind = type | tuple[type, ...]

NUMBER = (int, float)

TEXT_OR_NONE = (str, type(None))

NUMBER_OR_NONE = (int, float, type(None))

INTERVAL: Mapping[str, Kind] = {"value": NUMBER, "low": NUMBER, "high": NUMBER}

METRICS: Mapping[str, Any] = {
    "model": str,
    "source": str,
    "method": str,
    "suite": str,
    "fingerprint": str,
    "before": str,
    "options": dict,
    "seed": (int, type(None)),
    "num_parameters": NUMBER,
    "notes": dict,
    "data": {"kind": str, "digest": str},
    "protocol": {
        "experiment": TEXT_OR_NONE,
        "precision": TEXT_OR_NONE,
        "evaluation_precision": str,
        "epochs": NUMBER_OR_NONE,
        "lr": NUMBER_OR_NONE,
        "batch_size": NUMBER_OR_NONE,
        "batch_norm": TEXT_OR_NONE,
        "label_rule": str,
        "image_backend": str,
        "limit": NUMBER_OR_NONE,
        "holdout": NUMBER_OR_NONE,
        "switches": dict,
    },
    "accuracy": dict,
    "robustness_improvement": (dict, type(None)),
    "scores": dict,
    "seconds": {"fit": NUMBER, "evaluate": NUMBER},
}
"""What every version so far has written into metrics.json, and every reader counts on."""

OF_A_DATASET = {
    "accuracy": {"num_images": int, "before": NUMBER, "after": NUMBER, "change": INTERVAL},
    "scores": {"key": str, "images": str},
}
"""What the entries of two blocks of it hold."""

OTHERS: Mapping[str, Mapping[str, Any]] = {
    "fit.json": {"seconds": NUMBER, "num_parameters": NUMBER, "notes": dict, "weights": TEXT_OR_NONE},
    "scoring.json": {"seconds": NUMBER},
    "failed.json": {"error": str, "last_lines": list},
    "progress.json": {
        "what": str,
        "note": str,
        "unit": str,
        "done": NUMBER,
        "total": NUMBER,
        "rate": NUMBER,
        "seconds_left": NUMBER_OR_NONE,
    },
}
"""What other files hold, by name."""


def read(file: Path) -> dict[str, Any]:
    """What a JSON file of the store holds.

    Raises:
        DamagedError: If it does not hold what was written to it.
        OtherVersionError: If another version of rib wrote it, in a way that this one cannot read.
        RibError: If it cannot be opened.
    """
    try:
        content = json.loads(file.read_text())
    except ValueError as error:
        raise DamagedError(f"cannot read {file} ({error}); {AGAIN}") from error
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RibError(f"cannot read {file}: {error.strerror}") from error
    if not isinstance(content, dict):
        raise DamagedError(f"{file} is damaged: expected a block of names, got {_shown(content)}; {AGAIN}")
    check(file, content)
    return content


def check(file: Path, content: Mapping[str, Any]) -> None:
    """See that a file's content is what its name promises.

    Raises:
        DamagedError: If something is missing, or of another kind.
        OtherVersionError: If that is since another version wrote it.
    """
    is_metrics = file.name.startswith("metrics.")
    if is_metrics and content.get("schema", SCHEMA) != SCHEMA:
        raise OtherVersionError(
            f"{file} is of schema {content['schema']}, this version of rib reads {SCHEMA}; it stays as it is, read it "
            "with the version that wrote it"
        )
    faults = list(_metrics_faults(content) if is_metrics else _faults(content, OTHERS.get(file.name, {})))
    if not faults:
        return
    told = f"{faults[0]}" + (f" ({len(faults)} faults)" if len(faults) > 1 else "")
    if is_metrics and isinstance(content.get("protocol"), dict) and is_older(content):
        raise OtherVersionError(f"{file} {older_words(content)}, and cannot be read any more: {told}")
    raise DamagedError(f"{file} is damaged: {told}; {AGAIN}")


def numerics_of(metrics: Mapping[str, Any]) -> int:
    """The version of rib's numbers behind a metrics.json; 1 from before it was stamped."""
    found = metrics["protocol"].get("numerics", 1)
    return found if isinstance(found, int) else 1


def is_older(metrics: Mapping[str, Any]) -> bool:
    """Whether an older version of rib made these numbers: no command asks for them any more."""
    from rib.runs.keys import NUMERICS

    return numerics_of(metrics) < NUMERICS


def older_words(metrics: Mapping[str, Any]) -> str:
    """``is of an older version of rib (numerics 1, now 2)``."""
    from rib.runs.keys import NUMERICS

    return f"is of an older version of rib (numerics {numerics_of(metrics)}, now {NUMERICS})"


def _metrics_faults(content: Mapping[str, Any]) -> Iterator[str]:
    yield from (found := list(_faults(content, METRICS)))
    if found:
        return
    for block, entry in OF_A_DATASET.items():
        for name, value in content[block].items():
            yield from _faults({name: value}, {name: entry}, f"{block}.")
    if (improvement := content["robustness_improvement"]) is not None:
        yield from _faults(improvement, {**INTERVAL, "targets": list}, "robustness_improvement.")


def _faults(content: Mapping[str, Any], expected: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """What is missing, or of another kind than expected, in words."""
    for name, kind in expected.items():
        if name not in content:
            yield f"it has no {prefix}{name}"
        elif isinstance(kind, Mapping):
            if isinstance(content[name], dict):
                yield from _faults(content[name], kind, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name} is {_shown(content[name])}"
        elif not isinstance(content[name], kind) or (isinstance(content[name], bool) and kind is not bool):
            yield f"{prefix}{name} is {_shown(content[name])}"


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."
