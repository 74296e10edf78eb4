"""Where finished runs live, and how two processes never make the same one twice.

``runs/<data>/<model>/<source>/<method>/<key>/`` holds one run: config.yaml, weights.safetensors (float32, the plain
architecture's keys), predictions/, figures/, log/, env.json, fit.json, last.ckpt while training is unfinished, and
metrics.json, written last and atomically: where it is, the run is trained and finished.

What is unfinished lies beside it, in a folder whose name ends in the token of the process's lock that makes it
(`rib.runtime.locks`). Who takes over from a dead or stalled process first renames that folder, so that the old owner,
should it wake, has nowhere to go on; a finished run appears by a rename, once.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rib.errors import DamagedError, RibError
from rib.runs.metrics_file import read as _read_json
from rib.runs.metrics_file import read_metrics
from rib.runs.run import Run
from rib.runtime.console import rank, say
from rib.runtime.locks import Lock, Locks
from rib.schemas.files import Fit

if TYPE_CHECKING:
    from rib.runs.spec import Ingredient, RunSpec


class TakenOverError(RibError):
    """Another process took this one for dead, and has gone on with what it was making."""


class RunStore:
    """All runs under one folder.

    Args:
        root: ``paths.runs``; made when the first run is claimed.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def run(self, data: str, model: str, source: str, method: str, key: str) -> Run:
        """The place of one run, there or not."""
        return Run(self.root / data / model / source / method / key)

    def run_of(self, spec: RunSpec) -> Run:
        """The place of a question's answer, there or not."""
        key = spec.training_key
        return self.run(spec.catalog.kind, spec.start.name, spec.source_name, spec.method, key)

    def finished(self, **where: object) -> list[Run]:
        """Finished runs whose metrics.json agrees with everything given, ``finished(method="ewc", seed=0)``.

        One whose metrics.json is damaged, or of a version whose files this one cannot read, is left out and said.
        """
        found = []
        for file in sorted(self.root.glob("*/*/*/*/*/metrics.json")):
            try:
                metrics = read_metrics(file) if _is_run(file) else None
            except RibError as error:
                say(f"left out: {error}")
                continue
            if metrics is not None and all(metrics.get(k) == v for k, v in where.items()):
                found.append(Run(file.parent))
        return found

    def one(self, **where: object) -> Run:
        """The only finished run that agrees.

        Raises:
            RibError: If there is none, or more than one.
        """
        found = self.finished(**where)
        if len(found) != 1:
            raise RibError(f"expected one run with {where} in {self.root}, found {len(found)}")
        return found[0]

    def seconds(self, model: str, method: str) -> float | None:
        """What such a run has taken here before, else any that trained this model; None if there is none."""
        taken = [m for run in self.finished(model=model) if (m := run.metrics()) and m["source"] != "none"]
        same = [m for m in taken if m["method"] == method] or taken
        return same[-1]["seconds"]["fit"] + same[-1]["seconds"]["evaluate"] if same else None

    @property
    def locks(self) -> Locks:
        """Who is making what."""
        return Locks(self.root / "claims")

    @contextmanager
    def lock(self, run: Run, needed_bytes: int = 0) -> Iterator[Lock | None]:
        """Hold a run's key while making it; waits while another living process does.

        Ranks above zero of a multi-process run hold nothing (None): rank zero holds the key for all.

        Args:
            run: What will be made.
            needed_bytes: Disk space that making it takes.

        Raises:
            RibError: If the folder cannot be written or the disk is too full, before any work is done.
            TakenOverError: If what failed inside failed because another process has taken over.
        """
        if rank() > 0:
            yield None
            return
        self._check_writable(run, needed_bytes)
        with self.locks.hold(run.key) as lock:
            try:
                yield lock
            except Exception as error:
                if lock.held:
                    raise
                raise _taken_over(run) from error

    def recover(self, run: Run) -> None:
        """Publish a claimed run that was killed between its last file and its publication; move damaged metrics aside.

        What a damaged metrics.json said is measured again from the predictions.
        """
        for file in run.folder.glob("metrics*.json"):
            try:
                _read_json(file)
            except DamagedError as error:
                say(f"{error}: moved aside, and measured again from the predictions")
                os.replace(file, file.with_suffix(".damaged"))
        if run.folder.exists():
            return
        for left in (*self._left(run), self._replaced(run)):
            if (left / "metrics.json").is_file():
                os.replace(left, run.folder)
                return

    def begin(self, run: Run, lock: Lock, again: bool = False) -> Run:
        """Where to make a claimed run: in what a dead or stalled process left of it, if it left anything.

        Args:
            run: Its place.
            lock: On its key.
            again: Make it beside the finished one, which `publish` then replaces.

        Returns:
            The place itself where the run is finished and only another view of it is wanted.
        """
        finished = run.metrics() is not None
        if finished and not again:
            return run
        work = run.folder.with_name(f"{run.key}.{lock.token}")
        unfinished = [run.folder] if run.folder.exists() and not finished else []
        for left in (*unfinished, *self._left(run)):  # its place first, which has to be free in the end
            try:
                os.replace(left, work)
            except FileNotFoundError:
                continue
            return Run(work)
        work.mkdir(parents=True)
        return Run(work)

    def publish(self, work: Run, run: Run, lock: Lock, again: bool = False) -> None:
        """Put what was made in its place, by a rename.

        Args:
            work: Finished, from `begin`.
            run: Its place.
            lock: On its key.
            again: Replace a finished run that is there.

        Raises:
            TakenOverError: If another process has taken over meanwhile, whose result then holds.
        """
        if work == run:
            return
        if not lock.held:
            raise _taken_over(run)
        try:
            if run.folder.exists() and again:
                ready = run.folder.with_name(f"{run.key}.ready")
                os.rename(work.folder, ready)
                os.rename(run.folder, self._replaced(run))
                os.rename(ready, run.folder)
            else:
                os.rename(work.folder, run.folder)
        except OSError as error:  # the folder is gone, or another's result is there
            raise _taken_over(run) from error
        for left in (*self._left(run), self._replaced(run)):
            shutil.rmtree(left, ignore_errors=True)

    def _replaced(self, run: Run) -> Path:
        """Where a finished run is for the moment in which another takes its place."""
        return run.folder.with_name(f"{run.key}.old")

    def _left(self, run: Run) -> list[Path]:
        """Folders that other processes left beside a run's place, the latest first."""
        folders = [f for f in run.folder.parent.glob(f"{run.key}.*") if f.is_dir() and f != self._replaced(run)]
        return sorted(folders, key=lambda folder: folder.stat().st_mtime, reverse=True)

    def _check_writable(self, run: Run, needed_bytes: int) -> None:
        probe = self.root / "claims" / f".probe.{os.getpid()}"
        try:
            run.folder.parent.mkdir(parents=True, exist_ok=True)
            probe.parent.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"rib")
            probe.unlink()
        except OSError as error:
            raise RibError(
                f"paths.runs: cannot write to {self.root} ({error.strerror}); choose another folder"
            ) from error
        free = shutil.disk_usage(self.root).free
        if free < needed_bytes:
            raise RibError(
                f"paths.runs: this run needs {needed_bytes / 1e6:.0f} MB in {self.root}, {free / 1e6:.0f} MB are free; "
                "make room or choose another folder"
            )


def _taken_over(run: Run) -> TakenOverError:
    return TakenOverError(
        f"another process has taken over {run.folder}, since this one gave no sign of life for too long; give the "
        "command again to wait for its result"
    )


def _is_run(metrics: Path) -> bool:
    """Leaves out what is unfinished (``<key>.<token>``)."""
    return "." not in metrics.parent.name


def part_of(part: Ingredient, store: RunStore) -> Run:
    """Where the run lies, or would, that another is made from."""
    if part.folder is not None:
        return Run(part.folder)
    assert part.spec is not None, "an ingredient is a folder or a question"
    return store.run_of(part.spec)


def fit_of(run: Run) -> Fit:
    """Result of training or merging of a run that has weights."""
    fitted = run.read_json("fit.json")
    assert fitted is not None, "fit.json is written with the weights"
    return fitted
