"""The store of runs: find finished runs, and make each run only once, also with several processes and machines.

``runs/<data>/<model>/<source>/<method>/<key>/`` holds one run: config.yaml, weights.safetensors (float32, the plain
architecture's keys), predictions/, figures/, log/, env.json, fit.json, last.ckpt while training is unfinished, and
metrics.json, which is written last and atomically: a run that has it is finished.

An unfinished run is in a folder beside this, ``<key>.<token>``, with the token of the lock (`rib.runtime.locks`) of the
process that makes it. A process that takes over from a dead or stalled one renames that folder first, so that the
former holder, should it wake up, cannot write to it any more. A finished run appears under its key by a single rename.
``.index.json`` in the store is a cache of what tables say of each run (`rib.runs.index`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rib.errors import DamagedError, RibError
from rib.runs import index
from rib.runs.metrics_file import AGAIN
from rib.runs.metrics_file import read as _read_json
from rib.runs.run import Result, Run
from rib.runtime.console import rank, say
from rib.runtime.locks import Lock, Locks
from rib.schemas.files import Fit

if TYPE_CHECKING:
    from rib.runs.spec import Ingredient, RunSpec


class TakenOverError(RibError):
    """Another process considered this one dead and took over the run that it was making."""


class RunStore:
    """Store of all runs below one folder: finds, locks and publishes them.

    Args:
        root: ``paths.runs``; created when the first run is locked.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def run(self, data: str, model: str, source: str, method: str, key: str) -> Run:
        """Return the folder of a run, whether it exists or not."""
        return Run(self.root / data / model / source / method / key)

    def run_of(self, spec: RunSpec) -> Run:
        """Return the folder that belongs to a run spec, named by its hash key, whether it exists or not."""
        return self.run(spec.catalog.kind, spec.start.name, spec.source_name, spec.method, spec.training_key)

    def finished(self, **where: object) -> list[Run]:
        """Return the finished runs whose metrics.json has all given values; damaged ones are left out with a message.

        Args:
            **where: Keys of metrics.json (`rib.runs.index.FIELDS`) with their values, ``method="ewc", seed=0``.
        """
        assert where.keys() <= set(index.FIELDS), "only these are in the index"
        return [run for run, metrics in self.briefs() if all(metrics.get(k) == v for k, v in where.items())]

    def briefs(self) -> list[Result]:
        """Return the finished runs with what tables say of them; damaged ones are left out with a message.

        Much faster than to read each metrics.json: a second for 10,000 runs.

        Returns:
            Runs in the order of their folders, each with the `rib.runs.index.brief` of its metrics.json. The briefs may
            share their parts, so nobody may change them.
        """
        found = []
        for folder, metrics in index.briefs(self.root):
            if isinstance(metrics, RibError):
                say(f"run left out: {metrics}")
            else:
                found.append((Run(folder), metrics))
        return found

    def one(self, **where: object) -> Run:
        """Return the only finished run whose metrics.json has all given values.

        Raises:
            RibError: If there is none, or more than one.
        """
        found = self.finished(**where)
        if len(found) != 1:
            raise RibError(f"expected one run with {where} in {self.root}, found {len(found)}")
        return found[0]

    def seconds(self, model: str, method: str) -> float | None:
        """Return the seconds that a finished run of a model took, if possible of the same method; None without one."""
        trained = [m for _, m in self.briefs() if m["model"] == model and m["source"] != "none"]
        same = [m for m in trained if m["method"] == method] or trained
        return same[-1]["seconds"]["fit"] + same[-1]["seconds"]["evaluate"] if same else None

    @property
    def locks(self) -> Locks:
        """Locks on runs that are being made, by training key, so that no two processes make the same run."""
        # The name of the folder is older than the class; versions of rib that share a store must agree on it.
        return Locks(self.root / "claims")

    @contextmanager
    def lock(self, run: Run, needed_bytes: int = 0) -> Iterator[Lock | None]:
        """Hold the lock on a run's key while making it; wait while another live process holds it.

        Ranks above zero of a multi-process run get None: rank zero holds the lock for all.

        Args:
            run: The run to make.
            needed_bytes: Disk space that it needs, in bytes.

        Raises:
            RibError: If the folder is not writable or the disk is too full; before any work is done.
            TakenOverError: If the work failed after another process had taken over.
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
                # The work failed because its folder was renamed.
                raise _taken_over(run) from error

    def recover(self, run: Run) -> None:
        """Repair what a killed process left of a run: publish a complete one, and move damaged metrics aside.

        Metrics that were moved aside are computed again from the predictions. The caller holds the run's lock.

        Raises:
            OtherVersionError: If a version of rib whose files this one cannot read wrote the metrics.
        """
        for file in run.folder.glob("metrics*.json"):
            try:
                _read_json(file)
            except DamagedError as error:
                say(f"{str(error).removesuffix(AGAIN)}moved aside and computed again from the predictions")
                os.replace(file, file.with_suffix(".damaged"))
        if run.folder.exists():
            return
        for leftover in (*self._leftovers(run), self._replaced(run)):
            if (leftover / "metrics.json").is_file():
                os.replace(leftover, run.folder)
                return

    def begin(self, run: Run, lock: Lock, again: bool = False) -> Run:
        """Return the folder to make a run in: what a dead or stalled process left of the run, else a new, empty folder.

        Args:
            run: The run to make.
            lock: The lock on its key.
            again: Make a finished run again, in another folder that `publish` puts in its place.

        Returns:
            The run's own folder if it is finished and only lacks metrics for another suite.
        """
        finished = run.metrics() is not None
        if finished and not again:
            return run
        work = run.folder.with_name(f"{run.key}.{lock.token}")
        unfinished = [run.folder] if run.folder.exists() and not finished else []
        for leftover in (*unfinished, *self._leftovers(run)):  # its own folder first: `publish` needs the name
            try:
                os.replace(leftover, work)
            except FileNotFoundError:  # another process was faster
                continue
            return Run(work)
        work.mkdir(parents=True)
        return Run(work)

    def publish(self, work: Run, run: Run, lock: Lock, again: bool = False) -> None:
        """Move a complete run from its working folder to its final one by a rename.

        Args:
            work: The complete run, in the folder from `begin`.
            run: The run with its final folder.
            lock: The lock on its key.
            again: Replace a finished run.

        Raises:
            TakenOverError: If another process has taken over the run; the result of that process then counts.
        """
        if work == run:
            return
        if not lock.held:
            raise _taken_over(run)
        try:
            # A kill between any two of these renames leaves a complete run that `recover` finds.
            if run.folder.exists() and again:
                ready = run.folder.with_name(f"{run.key}.ready")
                os.rename(work.folder, ready)
                os.rename(run.folder, self._replaced(run))
                os.rename(ready, run.folder)
            else:
                os.rename(work.folder, run.folder)
        except OSError as error:  # the working folder was renamed, or another process has published
            raise _taken_over(run) from error
        for leftover in (*self._leftovers(run), self._replaced(run)):
            shutil.rmtree(leftover, ignore_errors=True)

    def _replaced(self, run: Run) -> Path:
        """Return the path to which `publish` moves the old copy of a finished run that was made again."""
        return run.folder.with_name(f"{run.key}.old")

    def _leftovers(self, run: Run) -> list[Path]:
        """Return the working folders that other processes left of a run, the latest first."""
        folders = [f for f in run.folder.parent.glob(f"{run.key}.*") if f.is_dir() and f != self._replaced(run)]
        return sorted(folders, key=lambda folder: folder.stat().st_mtime, reverse=True)

    def _check_writable(self, run: Run, needed_bytes: int) -> None:
        # os.access is wrong on some network file systems, so write a file.
        probe = self.root / "claims" / f".probe.{os.getpid()}"
        try:
            run.folder.parent.mkdir(parents=True, exist_ok=True)
            probe.parent.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"rib")
            probe.unlink()
        except OSError as error:
            reason = error.strerror
            raise RibError(f"paths.runs: cannot write to {self.root} ({reason}); choose another folder") from error
        free = shutil.disk_usage(self.root).free
        if free < needed_bytes:
            raise RibError(
                f"paths.runs: this run needs {needed_bytes / 1e6:.0f} MB in {self.root}, {free / 1e6:.0f} MB are free; "
                "free some space or choose another folder"
            )


def _taken_over(run: Run) -> TakenOverError:
    return TakenOverError(
        f"another process has taken over {run.folder}, since this one did not respond for too long; run the same "
        "command again to wait for its result"
    )


def ingredient_run(ingredient: Ingredient, store: RunStore) -> Run:
    """Return the run that an `Ingredient` refers to: its given folder, or one in the store that may not exist yet."""
    if ingredient.folder is not None:
        return Run(ingredient.folder)
    assert ingredient.spec is not None, "an ingredient is a folder or a spec"
    return store.run_of(ingredient.spec)


def fit_of(run: Run) -> Fit:
    """Return what fit.json records of how a run's weights were made: seconds, parameters, notes, digest."""
    fit = run.read_json("fit.json")
    assert fit is not None, "fit.json is written with the weights"
    return fit
