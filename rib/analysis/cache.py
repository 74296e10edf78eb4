"""Where an analysis lies: each variant under a key of everything that changes its numbers, the latest one in front."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rib.errors import DamagedError
from rib.runs.metrics_file import read
from rib.runs.run import Run
from rib.runtime.files import digest_of, write_atomically

NUMERICS = 1
"""Raised when a change of the code changes numbers of an analysis."""


class CachedAnalysis(NamedTuple):
    """One variant of an analysis: its folder, and whether it was made just now."""

    folder: Path
    made: bool


def get_or_compute(
    run: Run, name: str, facts: Mapping[str, Any], make: Callable[[Path], Mapping[str, Any]], force: bool = False
) -> CachedAnalysis:
    """One variant of an analysis, made if it is not there.

    Args:
        run: Whose folder it lies in.
        name: Of the analysis, ``cka``.
        facts: Everything that changes its numbers.
        make: Fills the folder, and says what else is worth knowing.
        force: Make it again.
    """
    folder = run.folder / "analysis" / name / digest_of({**facts, "numerics": NUMERICS})
    record = folder / f"{name}.json"
    missing = force or not _is_whole(record)
    if missing:
        found = {**facts, **make(folder)}
        write_atomically(record, (json.dumps(found, indent=1, default=str) + "\n").encode())
    return CachedAnalysis(folder, missing)


def read_record(folder: Path) -> dict[str, Any]:
    """What a variant's record says: its facts, and what its maker told."""
    return read(folder / f"{folder.parent.name}.json")


def _is_whole(record: Path) -> bool:
    """Whether a variant was made, and its record says of what."""
    try:
        return bool(read(record))
    except (FileNotFoundError, DamagedError):
        return False


def read_table(file: Path, **options: Any) -> pd.DataFrame:
    """A csv that `write_table` wrote.

    Args:
        file: In a variant's folder, or in front of it.
        options: Of `pandas.read_csv`.

    Raises:
        DamagedError: If it holds something else.
    """
    try:
        table: pd.DataFrame = pd.read_csv(file, **options)
    except (ValueError, OSError) as error:
        raise DamagedError(f"{file} is damaged ({error}); make it again with force=true") from error
    return table


def copy_as_latest(folder: Path, file: str, name: str) -> Path:
    """Copy a variant's file to where the latest one is looked for, ``analysis/<name>``."""
    front = folder.parents[1] / name
    write_atomically(front, (folder / file).read_bytes())
    return front


def write_table(table: pd.DataFrame, file: Path) -> None:
    """A csv with nine digits, whole or not at all."""
    write_atomically(file, table.to_csv(index=False, float_format="%.9g").encode())


def write_arrays(file: Path, **arrays: NDArray[Any]) -> None:
    """An npz without pickles, whole or not at all."""
    buffer = io.BytesIO()
    np.savez(buffer, **cast("dict[str, Any]", arrays))
    write_atomically(file, buffer.getvalue())
