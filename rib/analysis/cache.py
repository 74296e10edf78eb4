"""Disk cache of analyses in a run's folder; the key is a hash of all inputs and options that change the result."""

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
"""Version of the analysis code; increased whenever a change alters results, so that cached ones are not reused."""


class CachedAnalysis(NamedTuple):
    """Folder of an analysis on disk, and whether this call computed it.

    Attributes:
        folder: ``RUN/analysis/NAME/<key>``.
        made: True if it was computed by this call, False if it was read from disk.
    """

    folder: Path
    made: bool


def get_or_compute(
    run: Run,
    name: str,
    key_fields: Mapping[str, Any],
    compute: Callable[[Path], Mapping[str, Any]],
    force: bool = False,
) -> CachedAnalysis:
    """Return an analysis from disk, computing it first if it is missing.

    Args:
        run: The run whose folder holds it.
        name: Name of the analysis, ``cka``.
        key_fields: Everything that changes its numbers; hashed to the folder's name and saved in its record.
        compute: Writes the result files into the given folder, and returns further fields for the record.
        force: Compute it again even if it is there.
    """
    folder = run.folder / "analysis" / name / digest_of({**key_fields, "numerics": NUMERICS})
    record = folder / f"{name}.json"
    missing = force or not _is_complete(record)
    if missing:
        fields = {**key_fields, **compute(folder)}
        # Written last: a folder without it was interrupted, and is computed again.
        write_atomically(record, (json.dumps(fields, indent=1, default=str) + "\n").encode())
    return CachedAnalysis(folder, missing)


def read_record(folder: Path) -> dict[str, Any]:
    """Read the record of an analysis, ``<name>.json``: the inputs and options that it depends on, and metadata.

    Args:
        folder: `CachedAnalysis.folder`.

    Raises:
        DamagedError: If the file is not a valid record.
    """
    return read(folder / f"{folder.parent.name}.json")


def _is_complete(record: Path) -> bool:
    """Return True if an analysis is complete on disk: its record, which is written last, can be read."""
    try:
        return bool(read(record))
    except (FileNotFoundError, DamagedError):
        return False


def read_table(file: Path, **options: Any) -> pd.DataFrame:
    """Read a CSV file that `write_table` wrote.

    Args:
        file: The CSV file.
        **options: Passed to `pandas.read_csv`.

    Raises:
        DamagedError: If the file cannot be parsed.
    """
    try:
        table: pd.DataFrame = pd.read_csv(file, **options)
    except (ValueError, OSError) as error:
        raise DamagedError(f"{file} is damaged ({error}); make it again with force=true") from error
    return table


def copy_as_latest(folder: Path, file: str, name: str) -> Path:
    """Copy a file of a cached analysis to ``RUN/analysis/<name>``, where users find the latest result.

    Args:
        folder: `CachedAnalysis.folder`.
        file: Name of the file in it.
        name: Name of the copy.

    Returns:
        Path of the copy.
    """
    latest = folder.parents[1] / name
    write_atomically(latest, (folder / file).read_bytes())
    return latest


def write_table(table: pd.DataFrame, file: Path) -> None:
    """Write a CSV file with nine significant digits, atomically."""
    write_atomically(file, table.to_csv(index=False, float_format="%.9g").encode())


def write_arrays(file: Path, **arrays: NDArray[Any]) -> None:
    """Write arrays to an NPZ file without pickles, atomically."""
    buffer = io.BytesIO()
    np.savez(buffer, **cast("dict[str, Any]", arrays))
    write_atomically(file, buffer.getvalue())
