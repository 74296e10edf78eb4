"""Export the finished runs of a run store to a tar file without weights, import such files, delete unfinished runs."""

from __future__ import annotations

import json
import shutil
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, cast

from rib.errors import DamagedError, RibError
from rib.runs.metrics_file import AGAIN, MetricsKey, check, is_older
from rib.runs.run import Run
from rib.runs.store import RunStore
from rib.runs.trials import TRIALS
from rib.runtime.files import temporary_path, write_atomically
from rib.runtime.progress import progress
from rib.schemas.metrics import Metrics

LEFT_OUT = ("weights.safetensors", "last.ckpt", "epochs", "log", "wandb", "tensorboard")
"""Files and folders of a run that are not exported: weights, checkpoints and logs."""

NOT_COMPARED = ("seconds", "cost", "trained_on")
"""Keys of metrics.json that two executions of one run may differ in: run time, and a field that older files lack."""


@dataclass
class ImportResult:
    """Runs in an imported tar file, grouped by whether the store had them already; each is a folder below the store.

    Attributes:
        new: Runs that were added.
        known: Runs that the store already had, with the same numbers.
        clashes: Runs that the store already had with other numbers; its own were kept.
        older: Runs among ``new`` that an older version of rib made.
    """

    new: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    clashes: list[str] = field(default_factory=list)
    older: list[str] = field(default_factory=list)


def export_runs(store: RunStore, file: Path) -> int:
    """Write metrics, configs, predictions and figures of all finished runs, and their lists of images, to a tar file.

    Args:
        store: The store to export.
        file: ``.tar`` or ``.tar.gz``; it appears only when it is complete.

    Returns:
        Number of exported runs.

    Raises:
        RibError: If the store has no finished run, or the file cannot be written.
    """
    if not (runs := store.finished()):
        got = "found none" if store.root.is_dir() else "but there is no such folder"
        raise RibError(f"paths.runs: expected finished runs in {store.root}, {got}")
    temporary = temporary_path(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(temporary, "w:gz" if file.name.endswith("gz") else "w") as tar:
            with progress("exporting", len(runs), "runs") as advance:
                for run in runs:
                    tar.add(run.folder, run.folder.relative_to(store.root), filter=_without_weights)
                    advance(1, "")
            # Predictions are columns in the order of these lists: without them nothing could be measured again.
            if (paths := store.root / "datasets" / "paths").is_dir():
                tar.add(paths, "datasets/paths")
            for trial in sorted(store.root.glob(TRIALS)):
                tar.add(trial, trial.relative_to(store.root), filter=_without_weights)
        temporary.replace(file)
    except OSError as error:
        raise RibError(f"file: cannot write {file}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return len(runs)


def import_runs(store: RunStore, file: Path) -> ImportResult:
    """Add the runs of an exported tar file to a store; runs that the store already has stay as they are.

    Args:
        store: The store to add to.
        file: Written by `export_runs`.

    Returns:
        What was added, and what was there already with the same or other numbers.

    Raises:
        RibError: If the file was not written by `export_runs`.
    """
    result = ImportResult()
    try:
        with tarfile.open(file) as tar:
            members = {m.name: m for m in tar if m.isfile()}
            runs = sorted(str(PurePosixPath(n).parent) for n in members if PurePosixPath(n).name == "metrics.json")
            if not runs:
                raise RibError(f"file: {file} holds no run; expected a file written by action=export")
            for name in (n for n in members if n.startswith("datasets/paths/") and not (store.root / n).exists()):
                write_atomically(_inside(store.root, name), _content(tar, members[name]))
            new = {PurePosixPath(run).name for run in runs if Run(_inside(store.root, run)).metrics() is None}
            # A mark for a run that is here already would hide it from tables, though it was not made for a search.
            for name in (n for n in members if PurePosixPath(n).match(TRIALS) and PurePosixPath(n).name in new):
                write_atomically(_inside(store.root, name), b"")
            with progress("importing", len(runs), "runs") as advance:
                for run in runs:
                    _import_run(store, tar, run, members, result)
                    advance(1, "")
    except (tarfile.TarError, EOFError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise RibError(f"file: expected a file written by action=export, cannot read {file} ({reason})") from error
    return result


def prune(store: RunStore, dry_run: bool) -> tuple[list[Path], int]:
    """Delete unfinished runs that no process is working on, old copies of runs made again, and old temporary files.

    The next command for such a run starts it from the beginning. Finished runs, records of failures and files shared
    between runs stay.

    Args:
        store: The store to clean up.
        dry_run: Delete nothing, only list.

    Returns:
        The deleted files and folders, and their total size in bytes.
    """
    found, size = [], 0
    for folder in _unfinished(store):
        size += sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) if folder.is_dir() else 0
        found.append(folder)
        if not dry_run:
            shutil.rmtree(folder, ignore_errors=True)
    for leftover in store.root.rglob(".*.tmp"):
        # A younger file may be one that a live process is still writing.
        if time.time() - leftover.stat().st_mtime > 86_400:
            size += leftover.stat().st_size
            found.append(leftover)
            if not dry_run:
                leftover.unlink(missing_ok=True)
    return found, size


def _unfinished(store: RunStore) -> Iterator[Path]:
    locks = store.locks
    for folder in sorted(store.root.glob("*/*/*/*/*/")):  # <data>/<model>/<source>/<method>/<key>[.<token>]
        run = Run(folder)
        is_run = len(run.key) == 16 and not folder.is_relative_to(store.root / "multirun")
        finished = folder.name == run.key and (folder / "metrics.json").is_file()
        if is_run and not finished and locks.holder(run.key) is None:
            yield folder


def _without_weights(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    name = PurePosixPath(member.name)
    if name.name in LEFT_OUT or name.name.startswith("."):
        return None
    # User names of the exporting machine do not belong in a file that is passed on.
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _import_run(
    store: RunStore, tar: tarfile.TarFile, name: str, members: dict[str, Any], result: ImportResult
) -> None:
    run = Run(_inside(store.root, name))
    theirs = _metrics(_content(tar, members[f"{name}/metrics.json"]), name)
    with store.lock(run) as lock:
        ours = run.metrics(MetricsKey.of(theirs))
        if run.metrics() is not None:
            same = ours is None or _numbers(ours) == _numbers(theirs)
            (result.known if same else result.clashes).append(name)
            return
        assert lock is not None, "an import is one process"
        work = store.begin(run, lock)
        for member in (m for m in members if m.startswith(f"{name}/") and not m.endswith("/metrics.json")):
            write_atomically(_inside(work.folder, member.removeprefix(f"{name}/")), _content(tar, members[member]))
        # Last, as in a run that is made here: the file's presence means that the run is finished.
        write_atomically(work.folder / "metrics.json", _content(tar, members[f"{name}/metrics.json"]))
        store.publish(work, run, lock)
        result.new.append(name)
        if is_older(theirs):
            result.older.append(name)


def _metrics(content: bytes, name: str) -> Metrics:
    """Parse and validate the metrics.json of an exported run."""
    try:
        metrics = json.loads(content)
    except ValueError:
        metrics = None
    if not isinstance(metrics, dict):
        raise RibError(f"file: {name}/metrics.json in the tar file is damaged; export it again")
    try:
        check(Path(name, "metrics.json"), metrics)
    except DamagedError as error:
        raise RibError(f"file: {str(error).removesuffix(AGAIN)}export it again") from error
    return cast("Metrics", metrics)


def _numbers(metrics: Metrics) -> dict[str, Any]:
    return {k: v for k, v in metrics.items() if k not in NOT_COMPARED}


def _inside(root: Path, name: str) -> Path:
    """Return the path below ``root`` that a tar member is extracted to; raise RibError if its name points outside."""
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise RibError(f"file: {name} in the tar file points outside the store; expected a file of action=export")
    return root / name


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    return stream.read() if stream is not None else b""
