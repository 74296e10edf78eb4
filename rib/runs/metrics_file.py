"""Read and write JSON files of a store; what their types do not allow is neither read nor written.

`rib.schemas` holds the types. A file that does not hold what was written to it is damaged; one that another version of
rib wrote is no one's fault, and stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from rib.errors import DamagedError, OtherVersionError, RibError
from rib.runtime.files import write_atomically
from rib.schemas import TYPES, kind_of
from rib.schemas.check import faults, shorten
from rib.schemas.metrics import Metrics, RobustnessImprovement, ScoreInfo

SCHEMA = 1
"""Of metrics.json, as this version writes and reads it."""

AGAIN = "delete it and give the command again"


class MetricsKey(NamedTuple):
    """What a metrics file stands on; two of one run that stand on the same never lie beside one another.

    Attributes:
        suite: Its name.
        targets: Its targets, sorted; None in files from before they were stamped.
        reported: Datasets that are scored and not in RI, likewise.
        experiment: Name of the experiment file, or None.
        scores: Score key and images of each dataset; None in a key that any way of scoring answers.
    """

    suite: str
    targets: list[str] | None
    reported: list[str] | None
    experiment: str | None
    scores: Mapping[str, ScoreInfo] | None

    @classmethod
    def of(cls, metrics: Metrics) -> MetricsKey:
        """The key of a metrics file."""
        protocol = metrics["protocol"]
        targets, reported = protocol.get("targets"), protocol.get("reported")
        return cls(metrics["suite"], targets, reported, protocol["experiment"], metrics["scores"])

    def covers(self, metrics: Metrics) -> bool:
        """Whether a metrics file has this key."""
        own = MetricsKey.of(metrics)
        return self == (own if self.scores is not None else own._replace(scores=None))


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
        raise DamagedError(f"{file} is damaged: expected a block of names, got {shorten(content)}; {AGAIN}")
    check(file, content)
    return content


def read_metrics(file: Path) -> Metrics:
    """Read a metrics file; raises like `read`."""
    return cast("Metrics", read(file))


def write(file: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file of the store, whole or not at all.

    Args:
        file: Its name says of what kind it is (`rib.schemas.kind_of`).
        content: As its type has it.

    Raises:
        TypeError: If `read` would call it damaged. Nothing is written then.
        RibError: If the disk refuses it.
    """
    kind = kind_of(file)
    if kind is not None and (found := list(faults(content, TYPES[kind]))):
        raise TypeError(f"{file.name}: {'; '.join(found)}; expected what rib/schemas/{kind}.json describes")
    write_atomically(file, (json.dumps(content, indent=1) + "\n").encode())


def check(file: Path, content: Mapping[str, Any]) -> None:
    """See that a file's content is what its name promises.

    Raises:
        DamagedError: If something is missing, or of another kind.
        OtherVersionError: If that is since another version wrote it.
    """
    kind = kind_of(file)
    is_metrics = kind == "metrics"
    if is_metrics and content.get("schema", SCHEMA) != SCHEMA:
        raise OtherVersionError(
            f"{file} is of schema {content['schema']}, this version of rib reads {SCHEMA}; it stays as it is, read it "
            "with the version that wrote it"
        )
    found = [] if kind is None else list(faults(content, TYPES[kind]))
    if not found:
        return
    told = found[0] + (f" ({len(found)} faults)" if len(found) > 1 else "")
    metrics = cast("Metrics", content)
    if is_metrics and isinstance(content.get("protocol"), dict) and is_older(metrics):
        raise OtherVersionError(f"{file} {older_words(metrics)}, and cannot be read any more: {told}")
    raise DamagedError(f"{file} is damaged: {told}; {AGAIN}")


def improvement_of(metrics: Metrics) -> RobustnessImprovement:
    """RI of a run that was scored on a target."""
    found = metrics["robustness_improvement"]
    assert found is not None, "runs without a target were left out before"
    return found


def numerics_of(metrics: Metrics) -> int:
    """The version of rib's numbers behind a metrics.json; 1 from before it was stamped."""
    found: object = metrics["protocol"].get("numerics", 1)
    return found if isinstance(found, int) else 1  # a damaged file may hold anything here


def is_older(metrics: Metrics) -> bool:
    """Whether an older version of rib made these numbers: no command asks for them any more."""
    from rib.runs.keys import NUMERICS

    return numerics_of(metrics) < NUMERICS


def older_words(metrics: Metrics) -> str:
    """``is of an older version of rib (numerics 1, now 2)``."""
    from rib.runs.keys import NUMERICS

    return f"is of an older version of rib (numerics {numerics_of(metrics)}, now {NUMERICS})"
