"""Where finished runs live, and how two processes never make the same one twice.

``runs/<data>/<model>/<source>/<method>/<key>/`` holds one run: config.yaml, weights.safetensors (float32, the plain
architecture's keys), predictions/, figures/, log/, env.json, fit.json, last.ckpt while training is unfinished, and
metrics.json, written last and atomically: where it is, the run is trained and finished.

A claim is a file ``claims/<key>.<host>.<pid>.<n>`` of one's own. Who wants a run writes theirs, then looks for others:
any living one means to withdraw and wait. Of two that write at once the later looks after both are there, so two never
hold the same run; names are unique, so that a dead owner's claim can be removed without hitting a living one's. It
needs no flock, and works on a shared folder. A claim by a dead process of this host counts for nothing at once.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rib.errors import RibError
from rib.files import write_atomically
from rib.launch import rank, say
from rib.memo import digest_of
from rib.predictions import Predictions

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Run:
    """One run's folder, finished or not.

    Attributes:
        folder: ``<store>/<data>/<model>/<source>/<method>/<key>``.
    """

    folder: Path

    @property
    def key(self) -> str:
        """The training key, 16 hex digits."""
        return self.folder.name.partition(".")[0]

    @property
    def weights_file(self) -> Path:
        """The final weights."""
        return self.folder / "weights.safetensors"

    @property
    def checkpoint(self) -> Path:
        """Where an unfinished fit goes on from."""
        return self.folder / "last.ckpt"

    def metrics_file(self, suite: str) -> Path:
        """``metrics.json`` holds the suite first asked for, ``metrics.<suite>.json`` any other."""
        first = self.folder / "metrics.json"
        if first.is_file() and _read_json(first).get("suite") != suite:
            return self.folder / f"metrics.{suite}.json"
        return first

    def views(self) -> list[dict[str, Any]]:
        """Every metrics file of this run, the one first asked for first: other suites, other ways of scoring."""
        return [_read_json(file) for file in sorted(self.folder.glob("metrics*.json"), key=lambda f: (len(f.name), f))]

    def view_file(self, metrics: Mapping[str, Any]) -> Path:
        """Where metrics go: in the place of those that answer the same question, else beside whatever is there."""

        def asked(view: Mapping[str, Any]) -> tuple[Any, ...]:
            return view["suite"], view["protocol"]["experiment"], view["scores"]

        views = {file: _read_json(file) for file in self.folder.glob("metrics*.json")}
        same = next((file for file, view in views.items() if asked(view) == asked(metrics)), None)
        if same is not None or not views:
            return same or self.folder / "metrics.json"
        suite, taken = metrics["suite"], {file.name for file in views}
        beside = f"metrics.{suite}.json"
        if beside not in taken and self.metrics_file(suite).name == beside:
            return self.folder / beside
        return self.folder / f"metrics.{suite}.{digest_of(metrics['scores'])}.json"

    def metrics(self, suite: str | None = None) -> dict[str, Any] | None:
        """What metrics.json says of a suite (default: the one first asked for), or None if it is not there."""
        file = self.folder / "metrics.json" if suite is None else self.metrics_file(suite)
        return _read_json(file) if file.is_file() else None

    def predictions_file(self, dataset: str, score_key: str, variant: str | None = None) -> Path:
        """One file a dataset and way of scoring; those of a curve's other models lie in folders beside."""
        folder = self.folder / "predictions"
        return (folder if variant is None else folder / variant) / f"{dataset}.{score_key}.npz"

    def variants(self, score_keys: Mapping[str, str]) -> list[str]:
        """Labels of a curve's models that were scored on every dataset, by their number."""
        folders = [folder.name for folder in (self.folder / "predictions").glob("*/")]
        whole = (f for f in folders if all(self.predictions_file(n, k, f).is_file() for n, k in score_keys.items()))
        return sorted(whole, key=float)

    def predictions(self, dataset: str, suite: str | None = None) -> Predictions:
        """What the model said about a dataset that this run's metrics report.

        Raises:
            RibError: If the run is unfinished or did not score it.
        """
        metrics = self.metrics(suite)
        if metrics is None or dataset not in metrics["scores"]:
            raise RibError(f"{self.folder} holds no predictions for {dataset}")
        return self.scored(dataset, metrics["scores"][dataset]["key"])

    def scored(self, dataset: str, score_key: str, variant: str | None = None) -> Predictions:
        """The predictions under one score key, of the run's own model or of one on its curve."""
        return Predictions.load(self.predictions_file(dataset, score_key, variant))

    def weights(self) -> dict[str, Tensor]:
        """The final weights by the plain architecture's names, float32."""
        from safetensors.torch import load_file

        return load_file(self.weights_file)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Put a JSON file into the run's folder, whole or not at all."""
        write_atomically(self.folder / name, (json.dumps(content, indent=1) + "\n").encode())

    def read_json(self, name: str) -> dict[str, Any] | None:
        """A JSON file of the run's folder, or None."""
        file = self.folder / name
        return _read_json(file) if file.is_file() else None


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

    def finished(self, **where: object) -> list[Run]:
        """Finished runs whose metrics.json agrees with everything given, ``finished(method="ewc", seed=0)``."""
        runs = [Run(file.parent) for file in sorted(self.root.glob("*/*/*/*/*/metrics.json")) if _is_run(file)]
        return [r for r in runs if all((r.metrics() or {}).get(k) == v for k, v in where.items())]

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

    @contextmanager
    def claim(self, run: Run, needed_bytes: int = 0) -> Iterator[None]:
        """Hold a run's key while making it; waits while another living process does.

        Ranks above zero of a multi-process run hold nothing: rank zero holds the key for all.

        Args:
            run: What will be made.
            needed_bytes: Disk space that making it takes.

        Raises:
            RibError: If the folder cannot be written or the disk is too full, before any work is done.
        """
        if rank() > 0:
            yield
            return
        self._check_writable(run, needed_bytes)
        mine = self._acquire(run.key)
        try:
            yield
        finally:
            mine.unlink(missing_ok=True)

    def _acquire(self, key: str) -> Path:
        folder = self.root / "claims"
        host, pid = socket.gethostname(), os.getpid()
        mine = folder / f"{key}.{host}.{pid}.{time.monotonic_ns()}"
        content = json.dumps({"host": host, "pid": pid, "started": _started(pid)}).encode()
        waiting = False
        while True:
            owner = self._owner(key, mine)
            if owner is None:
                write_atomically(mine, content)
                owner = self._owner(key, mine)
                if owner is None:
                    return mine
                mine.unlink()
            if not waiting:
                say(
                    f"another process ({owner['pid']} on {owner['host']}) is making this run; waiting for it. "
                    f"If that host is gone, remove {folder / key}.*"
                )
                waiting = True
            time.sleep(0.2 + 0.3 * random.random())

    def _owner(self, key: str, mine: Path) -> dict[str, Any] | None:
        """The living process that claims a run, besides this one."""
        for file in (self.root / "claims").glob(f"{key}.*"):
            if file == mine:
                continue
            try:
                owner = _read_json(file)
            except FileNotFoundError:
                continue  # just released
            if not _is_dead(owner):
                return owner
            file.unlink(missing_ok=True)
        return None

    def _check_writable(self, run: Run, needed_bytes: int) -> None:
        probe = self.root / "claims" / f".probe.{os.getpid()}"
        try:
            run.folder.mkdir(parents=True, exist_ok=True)
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


def _is_dead(owner: Mapping[str, Any]) -> bool:
    """Whether a claim's process is known to be gone; that of another host never is (here)."""
    if owner["host"] != socket.gethostname():
        return False
    return bool(_started(owner["pid"]) != owner["started"])


def _started(pid: int) -> str | None:
    """When a process of this host began, so that a reused pid is not taken for it; None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    except OSError:
        pass
    if Path("/proc/self/stat").exists():
        return None
    try:  # no /proc (macOS): alive is all that can be told
        os.kill(pid, 0)
    except OSError:
        return None
    return "alive"


def _is_run(metrics: Path) -> bool:
    """Leaves out runs being made again beside the finished one (``<key>.again``)."""
    return "." not in metrics.parent.name


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return cast("dict[str, Any]", json.loads(file.read_text()))
    except ValueError as error:
        raise RibError(f"cannot read {file} ({error}); delete it and give the command again") from error
