"""Read and write the JSON files of a store, validated against their types in `rib.schemas`.

A file that does not match its type is damaged, unless another version of rib wrote it: such a file is kept unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from rib.data.worlds import register_recorded
from rib.errors import DamagedError, OtherVersionError, RibError
from rib.runtime.files import write_atomically
from rib.schemas import TYPES, kind_of
from rib.schemas.check import checker, faults, shorten
from rib.schemas.metrics import Metrics, RobustnessImprovement, ScoreInfo

SCHEMA = 1
"""Schema version of metrics.json that this version of rib writes and reads."""

AGAIN = "delete it and run the same command again"
"""End of messages about a damaged file that the next command replaces."""


class MetricsKey(NamedTuple):
    """Everything that distinguishes the metrics files of one run: suite, experiment and way of scoring.

    Attributes:
        suite: Name of the suite.
        targets: Targets of the suite, sorted; None in files of older versions, which do not record them.
        reported: Datasets that are scored but not in RI, likewise.
        experiment: Name of the experiment file, or None.
        scores: Score key and images of each dataset; None in a key that matches any way of scoring.
    """

    suite: str
    targets: list[str] | None
    reported: list[str] | None
    experiment: str | None
    scores: Mapping[str, ScoreInfo] | None

    @classmethod
    def of(cls, metrics: Metrics) -> MetricsKey:
        """Return the suite, experiment and way of scoring that the content of a metrics file records."""
        protocol = metrics["protocol"]
        targets, reported = protocol.get("targets"), protocol.get("reported")
        return cls(metrics["suite"], targets, reported, protocol["experiment"], metrics["scores"])

    def covers(self, metrics: Metrics) -> bool:
        """Return True if metrics have this suite, experiment and way of scoring (any, if ``scores`` is None)."""
        own = MetricsKey.of(metrics)
        return self == (own if self.scores is not None else own._replace(scores=None))


def read(file: Path) -> dict[str, Any]:
    """Read and validate a JSON file of a store.

    Raises:
        DamagedError: If it is not JSON, or does not match its type.
        OtherVersionError: If a version of rib wrote it whose files this one cannot read.
        FileNotFoundError: If there is no such file.
        RibError: If it cannot be opened for another reason.
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
        raise DamagedError(f"{file} is damaged: expected a JSON object, got {shorten(content)}; {AGAIN}")
    check(file, content)
    return content


def read_metrics(file: Path) -> Metrics:
    """Read and validate a metrics file, and make its suite's titles and classes known; raises the errors of `read`."""
    metrics = cast("Metrics", read(file))
    if (suite := metrics["data"].get("suite")) is not None:
        register_recorded(metrics["data"]["kind"], suite)
    return metrics


def write(file: Path, content: Mapping[str, Any]) -> None:
    """Validate content and write it to a JSON file of a store, atomically.

    Args:
        file: The file; its name determines its type (`rib.schemas.kind_of`).
        content: Content that matches this type.

    Raises:
        TypeError: If the content does not match; nothing is written.
        RibError: If the file cannot be written.
    """
    kind = kind_of(file)
    if kind is not None and (found := list(faults(content, TYPES[kind]))):
        # A TypeError, not a RibError: no user can cause it.
        raise TypeError(f"{file.name}: {'; '.join(found)}; expected content as in rib/schemas/{kind}.json")
    write_atomically(file, (json.dumps(content, indent=1) + "\n").encode())


def check(file: Path, content: Mapping[str, Any]) -> None:
    """Check that the content of a JSON file of a store matches the type that the file's name stands for.

    Args:
        file: The file; its name determines the type.
        content: Its content.

    Raises:
        DamagedError: If a key is missing, or a value has another type.
        OtherVersionError: If another version of rib wrote the file.
    """
    kind = kind_of(file)
    is_metrics = kind == "metrics"
    if is_metrics and content.get("schema", SCHEMA) != SCHEMA:
        raise OtherVersionError(
            f"{file} has schema {content['schema']}, this version of rib reads {SCHEMA}; read it with the version "
            "that wrote it"
        )
    if kind is None or checker(TYPES[kind])(content):
        return
    found = list(faults(content, TYPES[kind]))
    summary = found[0] + (f" ({len(found)} faults)" if len(found) > 1 else "")
    metrics = cast("Metrics", content)
    if is_metrics and isinstance(content.get("protocol"), dict) and is_older(metrics):
        raise OtherVersionError(f"{file} {older_words(metrics)} and cannot be read any more: {summary}")
    raise DamagedError(f"{file} is damaged: {summary}; {AGAIN}")


def improvement_of(metrics: Metrics) -> RobustnessImprovement:
    """Return a run's robustness improvement (RI) with its confidence interval, from the run's metrics.

    The run must have been scored on at least one target.
    """
    improvement = metrics["robustness_improvement"]
    assert improvement is not None, "the caller leaves out runs without a target"
    return improvement


def numerics_of(metrics: Metrics) -> int:
    """Return the numerics version (`rib.runs.keys.NUMERICS`) of the code that made these metrics; 1 if not recorded."""
    version: object = metrics["protocol"].get("numerics", 1)
    return version if isinstance(version, int) else 1  # a damaged file may hold anything here


def is_older(metrics: Metrics) -> bool:
    """Return True if metrics come from an older version of rib, whose results differ from this version's."""
    from rib.runs.keys import NUMERICS

    return numerics_of(metrics) < NUMERICS


def older_words(metrics: Metrics) -> str:
    """Return a phrase for messages: ``was made by an older version of rib (numerics 1, now 2)``.

    The numbers are the numerics versions (`rib.runs.keys.NUMERICS`) of the run and of this code.
    """
    from rib.runs.keys import NUMERICS

    return f"was made by an older version of rib (numerics {numerics_of(metrics)}, now {NUMERICS})"
