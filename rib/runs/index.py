"""Index of a store: what a table says of each run, so that 10,000 runs are listed without reading each metrics.json.

The index is one file in the store. It is a cache: each command looks at the state of every metrics.json (size, times,
inode), reads those that are new or have changed, and writes the index again when they are many. A damaged index is
ignored, and where none can be written none is kept. Each writer replaces it whole and atomically, so several may write.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from time import time_ns
from typing import Any, cast

from rib.data.worlds import in_distribution_of, is_suite, register_recorded
from rib.errors import RibError
from rib.runs.metrics_file import SCHEMA, read_metrics
from rib.runtime.content import RACY_NS
from rib.runtime.files import digest_of, write_atomically
from rib.schemas import load as schema_of
from rib.schemas.metrics import Metrics

NAME = ".index.json"
"""Name of the index in its store."""

FILE = "metrics.json"

DEPTH = 5
"""Folders between the store and a metrics.json: data, model, source, method and key."""

FIELDS = (
    *("model", "source", "method", "options", "seed", "suite", "fingerprint", "data", "protocol", "seconds", "cost"),
    *("ingredients", "probe", "start"),
)
"""Keys of metrics.json that a `brief` has whole, if the file has them."""

WORTH = 50
"""The index is written again if at least one in so many runs was not in it: one new run must not rewrite all."""

State = list[int]
"""Size, mtime and ctime in ns, and inode of a file; unlike mtime, ctime cannot be set back by a user."""

Entries = dict[str, tuple[State, Metrics]]
"""State and `brief` of each metrics.json, by its path relative to the store."""


def brief(metrics: Metrics) -> Metrics:
    """Return the part of a metrics.json that tables and searches need, a tenth of it.

    Returns:
        `FIELDS`, and of accuracies and RI only the numbers that a table shows. A file that does not record its cost,
        which is then counted from everything else, is returned whole.
    """
    if "cost" not in metrics:
        return metrics
    whole: Mapping[str, Any] = metrics
    short = {name: whole[name] for name in FIELDS if name in whole}
    improvement = metrics["robustness_improvement"]
    short["robustness_improvement"] = improvement and {name: improvement[name] for name in ("value", "low", "high")}
    kind, accuracy = metrics["data"]["kind"], metrics["accuracy"]
    # A suite of a user's own may change what its datasets are, so no name of them stays the right one.
    shown = accuracy if is_suite(kind) else (metrics["source"], in_distribution_of(kind))
    short["accuracy"] = {
        name: {when: of[when] for when in ("before", "after")} for name, of in accuracy.items() if name in shown
    }
    return cast("Metrics", short)


def briefs(root: Path) -> Iterator[tuple[Path, Metrics | RibError]]:
    """Yield the folder and the `brief` of each finished run of a store, or why its metrics.json cannot be read.

    Args:
        root: The store's folder.

    Yields:
        In the order of their paths. Suites of the user's own are made known, as `read_metrics` does. Briefs may share
        their parts, so nobody may change them.
    """
    known = _load(root)
    entries: Entries = {}
    added, now = 0, time_ns()  # before reading: a change during it must count as later
    suites: dict[str, object] = {}
    for path, state in _metrics_files(root):
        folder = Path(os.path.join(root, path[: -len(FILE) - 1]))  # noqa: PTH118
        entry = known.get(path)
        if entry is not None and entry[0] == state:
            entries[path] = entry
            _make_known(entry[1], suites)
            yield folder, entry[1]
            continue
        try:
            metrics = brief(read_metrics(folder / FILE))
        except FileNotFoundError:  # removed meanwhile
            continue
        except RibError as error:
            yield folder, error
            continue
        suites.pop(metrics["data"]["kind"], None)
        # A file that changed within the clock's resolution of being read may change again with the same times.
        if max(state[1:3]) < now - RACY_NS:
            entries[path] = (state, metrics)
            added += 1
        yield folder, metrics
    if added * WORTH > len(entries):
        with suppress(RibError, OSError):
            _save(root, entries)


def _make_known(metrics: Metrics, suites: dict[str, object]) -> None:
    """Make the suite of an entry known, unless the last one of this name was the same (``suites``)."""
    suite, kind = metrics["data"].get("suite"), metrics["data"]["kind"]
    if suite is not None and suites.get(kind) is not suite:
        suites[kind] = suite
        register_recorded(kind, suite)


def _metrics_files(root: Path) -> Iterator[tuple[str, State]]:
    """Yield the relative path and the state of each finished run's metrics.json, sorted by folder."""
    folders = [""]
    for depth in range(DEPTH):
        # A dot in the last folder, <key>.<token>: the run is not finished, or was replaced.
        last = depth == DEPTH - 1
        folders = [f"{f}{name}/" for f in folders for name in _subfolders(root, f) if not (last and "." in name)]
    for folder in folders:
        path = f"{folder}{FILE}"
        try:
            s = os.stat(os.path.join(root, path))  # noqa: PTH116, PTH118 - Path objects take twice the time
        except OSError:
            continue
        yield path, [s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino]


def _subfolders(root: Path, folder: str) -> list[str]:
    try:
        with os.scandir(f"{root}/{folder}") as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
    except OSError:  # removed meanwhile, or closed to this user
        return []


@cache
def _form() -> str:
    """Return a digest of what an entry stands for: a file that this version of rib reads, and its brief's fields."""
    return digest_of([SCHEMA, FIELDS, in_distribution_of("user"), in_distribution_of("mini"), schema_of("metrics")])


def _save(root: Path, entries: Entries) -> None:
    """Write the index: a line with the checksum of the second line, which has the entries as columns."""
    rows = [metrics for _, metrics in entries.values()]
    content = {
        "form": json.dumps(_form()),
        "paths": json.dumps(list(entries)),
        "states": json.dumps([state for state, _ in entries.values()]),
        "has": _column(map(list, rows)),
        **{name: _column(metrics.get(name) for metrics in rows) for name in _names(rows)},
    }
    payload = f"{{{','.join(f'{json.dumps(name)}:{text}' for name, text in content.items())}}}".encode()
    write_atomically(root / NAME, hashlib.sha256(payload).hexdigest().encode() + b"\n", payload)


def _names(rows: Iterable[Metrics]) -> list[str]:
    return list(dict.fromkeys(name for metrics in rows for name in metrics))


def _column(values: Iterable[object]) -> str:
    """Return the JSON of a column: its distinct values, and the number of each row's; most runs share most values."""
    numbers: dict[str, int] = {}
    rows = [numbers.setdefault(json.dumps(value), len(numbers)) for value in values]
    return f"[[{','.join(numbers)}],{json.dumps(rows)}]"


def _load(root: Path) -> Entries:
    """Read the index of a store; empty if there is none, it is damaged, or another version of rib wrote it."""
    try:
        checksum, payload = (root / NAME).read_bytes().split(b"\n", 1)
        if hashlib.sha256(payload).hexdigest().encode() != checksum:
            return {}
        content = json.loads(payload)
        if content.pop("form") != _form():
            return {}
        paths, states = content.pop("paths"), content.pop("states")
        columns = {name: [distinct[row] for row in rows] for name, (distinct, rows) in content.items()}
        rows = zip(paths, states, columns.pop("has"), strict=True)
        return {
            path: (state, cast("Metrics", {name: columns[name][row] for name in names}))
            for row, (path, state, names) in enumerate(rows)
        }
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError):
        return {}
