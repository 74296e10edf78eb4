"""A store without its weights: packed into a tar, taken in elsewhere, and swept of what nobody will go on with."""

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
"""What of a run's folder stays where it was made."""

NOT_COMPARED = ("seconds", "trained_on")
"""What of metrics.json differs between two makings of one run, or is newer than some: the fingerprint covers it."""


@dataclass
class ImportResult:
    """What an import did.

    Attributes:
        new: Runs taken in.
        known: Runs that were there already, with the same numbers.
        clashes: Runs that were there with other numbers; theirs were not taken.
        older: Those of ``new`` that an older version of rib has made.
    """

    new: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    clashes: list[str] = field(default_factory=list)
    older: list[str] = field(default_factory=list)


def pack(store: RunStore, file: Path) -> int:
    """Write metrics, configs, predictions and figures of every finished run, and the paths they stand on, into a tar.

    Args:
        store: Whose runs.
        file: ``.tar`` or ``.tar.gz``, whole or not at all.

    Returns:
        How many runs.

    Raises:
        RibError: If there is none, or the file cannot be written.
    """
    if not (runs := store.finished()):
        there = "found none" if store.root.is_dir() else "which is not there"
        raise RibError(f"paths.runs: expected finished runs in {store.root}, {there}")
    temporary = temporary_path(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(temporary, "w:gz" if file.name.endswith("gz") else "w") as tar:
            with progress("exporting", len(runs), "runs") as advance:
                for run in runs:
                    tar.add(run.folder, run.folder.relative_to(store.root), filter=_without_weights)
                    advance(1, "")
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


def take_in(store: RunStore, file: Path) -> ImportResult:
    """Take the runs of a tar into a store. A run that is there with other numbers is told of and stays as it is.

    Raises:
        RibError: If the file is no export of rib.
    """
    taken = ImportResult()
    try:
        with tarfile.open(file) as tar:
            members = {m.name: m for m in tar if m.isfile()}
            runs = sorted(str(PurePosixPath(n).parent) for n in members if PurePosixPath(n).name == "metrics.json")
            if not runs:
                raise RibError(f"file: {file} holds no run; expected what action=export wrote")
            for name in (n for n in members if n.startswith("datasets/paths/") and not (store.root / n).exists()):
                write_atomically(_inside(store.root, name), _content(tar, members[name]))
            new = {PurePosixPath(run).name for run in runs if Run(_inside(store.root, run)).metrics() is None}
            for name in (n for n in members if PurePosixPath(n).match(TRIALS) and PurePosixPath(n).name in new):
                write_atomically(_inside(store.root, name), b"")
            with progress("importing", len(runs), "runs") as advance:
                for run in runs:
                    _take_run(store, tar, run, members, taken)
                    advance(1, "")
    except (tarfile.TarError, EOFError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise RibError(f"file: cannot read {file} as what action=export wrote ({reason})") from error
    return taken


def sweep(store: RunStore, only_say: bool) -> tuple[list[Path], int]:
    """Remove what is unfinished and nobody is making: half-made runs, replaced ones, old temporary files.

    The next command that asks for such a run begins it anew. Finished runs, failures and what is shared stay.

    Args:
        store: To sweep.
        only_say: Remove nothing.

    Returns:
        What was removed, and its bytes.
    """
    found, size = [], 0
    for folder in _unfinished(store):
        size += sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) if folder.is_dir() else 0
        found.append(folder)
        if not only_say:
            shutil.rmtree(folder, ignore_errors=True)
    for left in store.root.rglob(".*.tmp"):
        if time.time() - left.stat().st_mtime > 86_400:
            size += left.stat().st_size
            found.append(left)
            if not only_say:
                left.unlink(missing_ok=True)
    return found, size


def _unfinished(store: RunStore) -> Iterator[Path]:
    locks = store.locks
    for folder in sorted(store.root.glob("*/*/*/*/*/")):
        run = Run(folder)
        is_run = len(run.key) == 16 and not folder.is_relative_to(store.root / "multirun")
        finished = folder.name == run.key and (folder / "metrics.json").is_file()
        if is_run and not finished and locks.holder(run.key) is None:
            yield folder


def _without_weights(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    name = PurePosixPath(member.name)
    if name.name in LEFT_OUT or name.name.startswith("."):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _take_run(store: RunStore, tar: tarfile.TarFile, name: str, members: dict[str, Any], taken: ImportResult) -> None:
    run = Run(_inside(store.root, name))
    theirs = _metrics(_content(tar, members[f"{name}/metrics.json"]), name)
    with store.lock(run) as lock:
        ours = run.metrics(MetricsKey.of(theirs))
        if run.metrics() is not None:
            same = ours is None or _numbers(ours) == _numbers(theirs)
            (taken.known if same else taken.clashes).append(name)
            return
        assert lock is not None, "an import is one process"
        work = store.begin(run, lock)
        for member in (m for m in members if m.startswith(f"{name}/") and not m.endswith("/metrics.json")):
            write_atomically(_inside(work.folder, member.removeprefix(f"{name}/")), _content(tar, members[member]))
        write_atomically(work.folder / "metrics.json", _content(tar, members[f"{name}/metrics.json"]))
        store.publish(work, run, lock)
        taken.new.append(name)
        if is_older(theirs):
            taken.older.append(name)


def _metrics(content: bytes, name: str) -> Metrics:
    """What a tar's metrics.json says, which is what one has to say."""
    try:
        metrics = json.loads(content)
    except ValueError:
        metrics = None
    if not isinstance(metrics, dict):
        raise RibError(f"file: {name}/metrics.json in it is damaged; export it again")
    try:
        check(Path(name, "metrics.json"), metrics)
    except DamagedError as error:
        raise RibError(f"file: {str(error).removesuffix(AGAIN)}export it again") from error
    return cast("Metrics", metrics)


def _numbers(metrics: Metrics) -> dict[str, Any]:
    return {k: v for k, v in metrics.items() if k not in NOT_COMPARED}


def _inside(root: Path, name: str) -> Path:
    """A member's place, which must not lead out of the folder."""
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise RibError(f"file: the tar's entry {name} leads out of the store; it is no export of rib")
    return root / name


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    return stream.read() if stream is not None else b""
