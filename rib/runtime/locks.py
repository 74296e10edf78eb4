"""Locks between processes, by name (key): at most one live process holds a key, on all machines that share a folder.

A lock is a file ``<key>.<host>.<pid>.<n>`` that its process alone writes. A process that wants a key writes its file,
then looks for others; if any belongs to a live process it withdraws and waits. Of two that write at once the later one
sees both files, so two never hold the same key. Names are unique, so that a dead holder's file can be removed without
hitting a live one's. The file system needs no locks of its own (flock).

A holder adds a byte to its file every few seconds. No process trusts another machine's clock: a waiting process counts
by its own clock how long a file has not grown, and takes over after `SILENCE`. A dead process on the same host is
recognised at once. A holder that was only suspended finds its file gone when it wakes, cannot create it again by adding
to it, and must not publish: the folder that it was working in has been moved (`rib.runs.store`).
"""

from __future__ import annotations

import glob
import json
import os
import random
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rib.errors import RibError
from rib.runtime.console import say
from rib.runtime.files import write_atomically
from rib.runtime.progress import activity

BEAT = 5.0
"""Seconds between two heartbeats."""

SILENCE = 120.0
"""Seconds without a heartbeat after which a holder counts as dead; far above the cache times of shared folders."""


@dataclass(frozen=True)
class Lock:
    """A lock that this process holds.

    Attributes:
        file: The lock file; another process that takes the key over removes it.
    """

    file: Path

    @property
    def token(self) -> str:
        """Unique part of the lock file's name."""
        return self.file.name.partition(".")[2]

    @property
    def held(self) -> bool:
        """True until another process, believing this one dead, takes the lock over."""
        return self.file.exists()


@dataclass
class Locks:
    """All locks whose files are in one folder.

    Args:
        folder: Folder of the lock files, ``claims`` of a run store or ``locks`` beside a cached file.
        beat: Seconds between two heartbeats.
        silence: Seconds without a heartbeat after which a holder counts as dead.
    """

    folder: Path
    beat: float = BEAT
    silence: float = SILENCE
    _heard: dict[str, tuple[int, float]] = field(default_factory=dict)

    @contextmanager
    def hold(self, key: str) -> Iterator[Lock]:
        """Hold a named lock within a block, after waiting while another live process holds it.

        Args:
            key: Name of the lock, part of its file's name.

        Yields:
            The lock; check `Lock.held` before publishing what was made under it.

        Raises:
            RibError: If the folder cannot be written.
        """
        lock = Lock(self._acquire(key))
        released = threading.Event()
        threading.Thread(target=_keep_beating, args=(lock.file, self.beat, released), daemon=True).start()
        try:
            yield lock
        finally:
            released.set()
            lock.file.unlink(missing_ok=True)

    def holder(self, key: str, besides: Path | None = None) -> dict[str, Any] | None:
        """Return the live process that holds a named lock, or None; lock files of dead processes are removed.

        Args:
            key: Name of the lock.
            besides: Lock file to ignore, the caller's own.

        Returns:
            ``host``, ``pid`` and ``started`` (time of its start, as the system gives it) of the process.
        """
        for file in self.folder.glob(f"{glob.escape(key)}.*"):
            if file == besides:
                continue
            try:
                holder = _holder_of(file.read_text(errors="replace").partition("\n")[0])
                size = file.stat().st_size
            except FileNotFoundError:
                continue  # just released
            if not _is_gone(holder) and not self._is_silent(file.name, size):
                return holder
            file.unlink(missing_ok=True)
        return None

    def _acquire(self, key: str) -> Path:
        host, pid = socket.gethostname(), os.getpid()
        mine = self.folder / f"{key}.{host}.{pid}.{time.monotonic_ns()}"
        content = json.dumps({"host": host, "pid": pid, "started": _started(pid)}).encode() + b"\n"
        with ExitStack() as shown:
            waiting = False
            while True:
                holder = self.holder(key, mine)
                if holder is None:
                    write_atomically(mine, content)
                    holder = self.holder(key, mine)
                    if holder is None:
                        return mine
                    mine.unlink(missing_ok=True)
                if not waiting:
                    whom = f"waiting for process {holder['pid']} on {holder['host']}, which is making the same result"
                    say(whom)
                    shown.enter_context(activity(whom))
                    waiting = True
                # Random, so that two processes that withdrew for each other do not meet again.
                time.sleep(min(self.beat, 0.2 + 0.3 * random.random()))

    def _is_silent(self, name: str, size: int) -> bool:
        """Return True if a lock file has not grown for `silence` seconds of this process's own clock."""
        now = time.monotonic()
        known, since = self._heard.get(name, (-1, now))
        if size != known:
            self._heard[name] = (size, now)
            return False
        return now - since > self.silence


@contextmanager
def hold_while_making(file: Path) -> Iterator[bool]:
    """Lock a cached file or folder within a block, so that one process makes it while others wait.

    Args:
        file: File or folder to make; its lock is in the folder ``locks`` beside it.

    Yields:
        True if the lock is held; False if its folder cannot be written, and every process makes its own.
    """
    with ExitStack() as stack:
        locked = False
        with suppress(RibError, OSError):
            stack.enter_context(Locks(file.parent / "locks").hold(file.name.replace(".", "_")))
            locked = True
        yield locked


def _keep_beating(file: Path, seconds: float, released: threading.Event) -> None:
    """Append a byte to a lock file every few seconds, until the lock is released or the file is gone."""
    while not released.wait(seconds):
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_APPEND)  # no O_CREAT: a lock taken over stays lost
        except FileNotFoundError:
            return
        except OSError:
            continue  # a shared folder that is unreachable for the moment
        try:
            os.write(descriptor, b".")
        except OSError:
            continue
        finally:
            os.close(descriptor)


def _holder_of(line: str) -> dict[str, Any]:
    """Return the process named in the first line of a lock file; an unknown process if the line is damaged."""
    try:
        holder = json.loads(line)
        return {"host": str(holder["host"]), "pid": int(holder["pid"]), "started": holder["started"]}
    except (ValueError, KeyError, TypeError):
        return {"host": "an unknown machine", "pid": 0, "started": None}


def _is_gone(holder: Mapping[str, Any]) -> bool:
    """Return True if the process that holds a lock is known to be dead; always False for one on another host."""
    if holder["host"] != socket.gethostname():
        return False
    return bool(_started(holder["pid"]) != holder["started"])


def _started(pid: int) -> str | None:
    """Return the start time of a process on this host, to recognise a reused process id; None if it is gone."""
    try:
        # Fields behind the name, which may hold blanks and brackets: the state (Z: zombie), the start in clock ticks.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    except OSError:
        pass
    if Path("/proc/self/stat").exists():
        return None
    try:  # no /proc (macOS): a reused pid cannot be recognised
        os.kill(pid, 0)
    except OSError:
        return None
    return "alive"
