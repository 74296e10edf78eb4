"""Find a finished run by its folder, or by the first digits of its key."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import rib.config
from rib.config.group_names import is_file
from rib.errors import RibError, nearest
from rib.reporting.reported_runs import metrics_files
from rib.runs.command import command_of
from rib.runs.run import Run
from rib.runs.store import RunStore
from rib.schemas.metrics import Metrics

KEY = re.compile(r"[0-9a-f]{1,16}")
"""Pattern of a run's key, or the first digits of one."""


def find_store(runs: str | Path) -> RunStore:
    """Return the run store in a folder.

    Raises:
        RibError: If there is no such folder; the message names the nearest store beside it.
    """
    root = Path(runs).expanduser()
    if not root.is_dir():
        # Every store has a folder of datasets.
        stores = [folder.parent.name for folder in root.absolute().parent.glob("*/datasets")]
        raise RibError(f"runs: there is no folder {root}{nearest(root.name, stores)}; expected a run store")
    return RunStore(root)


def views(run: Run, suite: str | None) -> list[Metrics]:
    """Return a run's metrics of every suite if one is asked for, else of the first; none where a file is unreadable.

    Args:
        run: A finished run.
        suite: Name of a suite; None if none is asked for.
    """
    if suite is not None:
        return metrics_files(run, "run left out")
    return [metrics] if (metrics := run.metrics()) else []


def find_run(run: object, runs: str | Path) -> Run:
    """Return a finished run.

    Args:
        run: A `Run`, the path of its folder or of a file in it, or the first digits of its key.
        runs: The run store in which a key is looked up.

    Raises:
        RibError: If there is no such run, it is not finished, or several keys begin with these digits.
    """
    if isinstance(run, Run):
        return _finished(run)
    if not isinstance(run, str | Path):
        raise RibError(f"expected a run, its folder or its key, got {type(run).__name__}")
    text = str(run).strip()
    folder = Path(text).expanduser()
    if folder.is_file():  # metrics.json, weights.safetensors, ...
        folder = folder.parent
    if folder.is_dir() and text:
        return _finished(Run(folder))
    if isinstance(run, str) and KEY.fullmatch(text.lower()):
        return _with_key(text.lower(), find_store(runs))
    if "/" in text or isinstance(run, Path):
        raise RibError(f"there is no folder {folder}; expected that of a finished run{_known_keys(folder)}")
    root = str(Path(runs).expanduser().absolute())
    raise RibError(
        f"{text!r}: expected a run's folder or the first digits of its key, as in the last part of the folder; "
        f"rib.find_runs(runs={root!r}) lists the runs of the store in which keys are looked up"
    )


def _known_keys(folder: Path) -> str:
    """Return the nearest of the runs that lie where a missing folder was expected, to end a message."""
    beside = [f.name for f in folder.parent.glob("*/") if (f / "metrics.json").is_file()]
    return nearest(folder.name, beside)


def _finished(run: Run) -> Run:
    """Return a run if it is finished; raise a RibError that says what its folder is otherwise."""
    folder = run.folder
    if "." in folder.name and KEY.fullmatch(run.key) and (folder.with_name(run.key) / "metrics.json").is_file():
        return Run(folder.with_name(run.key))  # left from a process that worked on it
    if (folder / "metrics.json").is_file():
        return run
    if (folder / "config.yaml").is_file() or (folder / "env.json").is_file():
        raise RibError(f"{folder} is not finished; finish it with {command_of(run)}")
    if any(folder.glob("*/*/*/*/*/metrics.json")):
        raise RibError(
            f"{folder} is a run store; list its runs with rib.find_runs(runs={str(folder)!r}), or give one run's key"
        )
    below = next((f.parent for depth in ("*", "*/*") for f in sorted(folder.glob(f"{depth}/metrics.json"))), None)
    hint = f"; did you mean {below}?" if below is not None else ""
    raise RibError(f"{folder} is no finished run, which has a metrics.json{hint}")


def _with_key(digits: str, store: RunStore) -> Run:
    found = sorted(store.root.glob(f"*/*/*/*/{digits}*/"))
    finished = [Run(folder) for folder in found if (folder / "metrics.json").is_file() and "." not in folder.name]
    if len(finished) == 1:
        return finished[0]
    if finished:
        raise RibError(f"{digits}: {len(finished)} runs of {store.root} have keys that begin so: {_list(finished)}")
    if found:
        raise RibError(f"{found[0]} is not finished; finish it with {command_of(Run(found[0]))}")
    raise RibError(
        f"{digits}: no run of {store.root} has a key that begins so; rib.find_runs(runs={str(store.root)!r}) lists "
        "the runs, runs=FOLDER names another store"
    )


def _list(runs: Sequence[Run]) -> str:
    names = [f"{run.key} ({'/'.join(run.folder.parts[-4:-1])})" for run in runs]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def suite_name(suite: str | Path | None) -> str | None:
    """Return the name of a suite that is given by its name or its file, ``pets.yaml``; None for none.

    Raises:
        RibError: If there is no such file, or it is invalid.
    """
    if suite is None or not is_file(str(suite)):
        return None if suite is None else str(suite)
    return rib.config.open_suite(f"suite={suite}").name
