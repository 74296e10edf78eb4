"""Who is making what: one living process a key, on one machine or on several that share a folder.

A claim is a file ``<key>.<host>.<pid>.<n>`` of one's own. Who wants a key writes theirs, then looks for others: any
living one means to withdraw and wait. Of two that write at once the later looks after both are there, so two never
hold the same key; names are unique, so that a dead owner's claim can be removed without hitting a living one's. It
needs no flock.

An owner adds a byte to its claim every few seconds. Nobody trusts another machine's clock: who waits counts, by a clock
of its own, how long a claim has not grown, and takes over after `SILENCE`. A dead process of the same host is known at
once. An owner that only stood still (a suspended job, a hanging disk) finds its claim gone when it wakes, cannot make
it again by adding to it, and must not publish: what it was making has been moved (`rib.runs.store`).
"""

from __future__ import annotations

import json
import os
import random
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rib.runtime.console import say
from rib.runtime.files import write_atomically

BEAT = 5.0
"""Seconds between two signs of life."""

SILENCE = 120.0
"""Seconds without one after which an owner counts as dead; long beside what a shared folder keeps in its caches."""


@dataclass(frozen=True)
class Claim:
    """A key that this process holds.

    Attributes:
        file: Whoever takes it over removes this file.
    """

    file: Path

    @property
    def token(self) -> str:
        """The owner's part of the name, which no other claim has."""
        return self.file.name.partition(".")[2]

    @property
    def held(self) -> bool:
        """Whether nobody has taken it over."""
        return self.file.exists()


@dataclass
class Claims:
    """The claims in one folder.

    Args:
        folder: In the run store.
        beat: Seconds between two signs of life.
        silence: Seconds without one that make an owner dead.
    """

    folder: Path
    beat: float = BEAT
    silence: float = SILENCE
    _heard: dict[str, tuple[int, float]] = field(default_factory=dict)

    @contextmanager
    def hold(self, key: str) -> Iterator[Claim]:
        """Hold a key, waiting while another living process does."""
        claim = Claim(self._acquire(key))
        released = threading.Event()
        threading.Thread(target=_keep_beating, args=(claim.file, self.beat, released), daemon=True).start()
        try:
            yield claim
        finally:
            released.set()
            claim.file.unlink(missing_ok=True)

    def owner(self, key: str, besides: Path | None = None) -> dict[str, Any] | None:
        """The process that claims a key and is not known to be dead; claims of the dead are removed."""
        for file in self.folder.glob(f"{key}.*"):
            if file == besides:
                continue
            try:
                owner = _owner(file.read_text(errors="replace").partition("\n")[0])
                size = file.stat().st_size
            except FileNotFoundError:
                continue  # just released
            if not _is_gone(owner) and not self._is_silent(file.name, size):
                return owner
            file.unlink(missing_ok=True)
        return None

    def _acquire(self, key: str) -> Path:
        host, pid = socket.gethostname(), os.getpid()
        mine = self.folder / f"{key}.{host}.{pid}.{time.monotonic_ns()}"
        content = json.dumps({"host": host, "pid": pid, "started": _started(pid)}).encode() + b"\n"
        waiting = False
        while True:
            owner = self.owner(key, mine)
            if owner is None:
                write_atomically(mine, content)
                owner = self.owner(key, mine)
                if owner is None:
                    return mine
                mine.unlink(missing_ok=True)
            if not waiting:
                say(f"another process ({owner['pid']} on {owner['host']}) is making this; waiting for it")
                waiting = True
            time.sleep(min(self.beat, 0.2 + 0.3 * random.random()))

    def _is_silent(self, name: str, size: int) -> bool:
        """Whether a claim has not grown for too long, by this process's own clock."""
        now = time.monotonic()
        known, since = self._heard.get(name, (-1, now))
        if size != known:
            self._heard[name] = (size, now)
            return False
        return now - since > self.silence


def _keep_beating(file: Path, seconds: float, released: threading.Event) -> None:
    """Add a byte now and then; never makes the file again once it is gone."""
    while not released.wait(seconds):
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_APPEND)
        except FileNotFoundError:
            return
        except OSError:
            continue  # a shared folder that does not answer just now
        try:
            os.write(descriptor, b".")
        except OSError:
            continue
        finally:
            os.close(descriptor)


def _owner(line: str) -> dict[str, Any]:
    """Who a claim says it is of; one that is damaged is of somebody who is not known, until it is silent."""
    try:
        owner = json.loads(line)
        return {"host": str(owner["host"]), "pid": int(owner["pid"]), "started": owner["started"]}
    except (ValueError, KeyError, TypeError):
        return {"host": "an unknown machine", "pid": 0, "started": None}


def _is_gone(owner: Mapping[str, Any]) -> bool:
    """Whether a claim's process is known to be dead; that of another host never is, by this."""
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
