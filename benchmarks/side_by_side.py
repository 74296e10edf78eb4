"""Two ways side by side: they take turns on the same inputs for several rounds, and their ratio is reported.

Each benchmark is a script that prints a table of such comparisons. The ratio is that of each round, of which the median
and the extremes are given: other load on the machine then meets both ways. CPU seconds, of the process and its
children, are hardly affected by other load. In the environment, ROUNDS is the number of rounds, and SMALL=1 makes
everything small, to try whether a script works: its numbers mean nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import psutil

SMALL = os.environ.get("SMALL", "") not in ("", "0")
ROWS = "BENCHMARK_ROWS"
"""Environment variable with a file to which comparisons are appended as JSON lines, for the summary of all scripts."""

GB = 1e9

HALF_PRECISION = ("amx_bf16", "avx512_bf16", "avx512_fp16")
"""Instructions of a processor that computes in half precision, as /proc/cpuinfo names them."""

PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE"}

PR_SET_CHILD_SUBREAPER = 36
"""Number of an option of prctl(2)."""


def rounds(usual: int = 3) -> int:
    """Return the number of rounds: ROUNDS in the environment, or the script's own."""
    return int(os.environ.get("ROUNDS") or usual)


@dataclass(frozen=True)
class Taken:
    """What one way took: seconds on the clock, CPU seconds, peak memory in GB if measured, and what else it found."""

    wall: float
    cpu: float
    peak: float | None = None
    found: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """A finished comparison of two ways.

    Attributes:
        claim: What is compared.
        ways: Names of both ways; the second is claimed to be faster.
        seconds, cpu: Median times of each.
        peak: Median peak memory of each, GB, where it was measured.
        ratio: Median, lowest and highest ratio of the rounds, first way over second.
        cpu_ratio: The same of CPU seconds.
        at_least: The ratio that is asked for; None: it is only reported.
        limit: Where the limit lies, in words.
        at_most: The largest ratio that is right, of an estimate; None: there is none.
        memory_at_most: How many times the first way's peak memory the second may have.
    """

    claim: str
    ways: tuple[str, str]
    seconds: tuple[float, float]
    cpu: tuple[float, float]
    peak: tuple[float | None, float | None]
    ratio: tuple[float, float, float]
    cpu_ratio: tuple[float, float, float]
    at_least: float | None = None
    limit: str = ""
    at_most: float | None = None
    memory_at_most: float | None = None

    @property
    def verdict(self) -> str:
        """``held``, or how far the ratio is from what is asked for; and the memory where it is part of the claim."""
        said = []
        if self.at_most is not None and self.ratio[0] > self.at_most:
            said.append(f"over {self.at_most:g}")
        elif self.at_least is not None:
            short = self.ratio[0] / self.at_least
            said.append("held" if short >= 1 else f"short: {short:.2f} of it")
        first, second = self.peak
        if self.memory_at_most is not None and first and second:
            much = "" if second <= self.memory_at_most * first else f"too much: at most {self.memory_at_most:g}, "
            said.append(f"{much}at {second / first:.2f} times the memory")
        return ", ".join(said)


def clocks() -> tuple[float, float]:
    """Return the time, and the CPU seconds of this process and its children so far."""
    own = os.times()
    alive = 0.0
    for child in psutil.Process().children(recursive=True):
        try:
            alive += sum(child.cpu_times()[:2])
        except psutil.Error:  # it has ended, and is among the children that were waited for
            continue
    return time.perf_counter(), own.user + own.system + own.children_user + own.children_system + alive


def timed(work: Callable[[], Any]) -> Callable[[], Taken]:
    """Return a way that is a function in this process; a mapping that it returns is what it found."""

    def run() -> Taken:
        begun = clocks()
        found = work()
        ended = clocks()
        return Taken(ended[0] - begun[0], ended[1] - begun[1], found=found if isinstance(found, Mapping) else {})

    return run


def say_taken(begun: tuple[float, float], **found: Any) -> None:
    """Print the times since ``begun`` in the line that `command` reads, for a way in a process of its own."""
    ended = clocks()
    print(json.dumps({"wall": ended[0] - begun[0], "cpu": ended[1] - begun[1], "found": found}), flush=True)


def command(*arguments: object, before: Callable[[], Any] | None = None, **environment: str) -> Callable[[], Taken]:
    """Return a way that is a command, ``python ARGUMENTS``; its peak memory is measured.

    Times are those that it prints with `say_taken`; of a command that prints none, those of the whole process. Threads
    of all commands wait without spinning, as rib's own do: it is the faster way beside other processes.

    Args:
        arguments: Of Python, such as ``-m rib.train``.
        before: Called before each start and not timed, such as to remove files.
        environment: Variables set for it.
    """

    def run() -> Taken:
        if before is not None:
            before()
        used, begun = _cpu_of_children(), time.perf_counter()
        line = [sys.executable, *map(str, arguments)]
        # Not a pipe, which a child that lives on would keep open.
        with adopting_orphans(), tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen(line, stdout=output, env={**os.environ, **PASSIVE, **environment})
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter() - begun
            process.returncode = os.waitstatus_to_exitcode(status)
            output.seek(0)
            said = output.read()
        if process.returncode:
            raise SystemExit(f"{' '.join(line)}: exit code {process.returncode}\n{said[-2000:]}")
        peak = usage.ru_maxrss * 1024 / GB
        last = said.rstrip().rpartition("\n")[2]
        if last.startswith('{"wall"'):
            return Taken(**json.loads(last), peak=peak)
        return Taken(wall, _cpu_of_children() - used, peak, {"output": said})

    return run


@contextlib.contextmanager
def adopting_orphans() -> Iterator[None]:
    """Adopt processes whose parent ends meanwhile (Linux), and wait for them, so that their time is counted.

    Such a process is a grid's fork server, which ends by itself. Children that this process had before are left alone.
    """
    before = _children()
    _adopt(True)
    try:
        yield
        for child in _children() - before:
            with contextlib.suppress(ChildProcessError):  # somebody else has waited for it
                os.waitpid(child, 0)
    finally:
        _adopt(False)


def _children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def _adopt(on: bool) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0)


def _cpu_of_children() -> float:
    used = os.times()
    return used.children_user + used.children_system


def compare(
    claim: str,
    first: tuple[str, Callable[[], Taken]],
    second: tuple[str, Callable[[], Taken]],
    *,
    at_least: float | None = None,
    usual_rounds: int = 3,
    limit: Callable[[Taken], str] | str = "",
    memory_at_most: float | None = None,
    check: Callable[[Taken, Taken], None] | None = None,
) -> Comparison:
    """Let two ways take turns, and return their comparison; its row is printed.

    Args:
        claim: What is compared.
        first: Name of the way that is compared with, and the way.
        second: Name of the way that is claimed to be faster, and the way.
        at_least: The ratio that is asked for.
        usual_rounds: Rounds if ROUNDS is not set.
        limit: Where the limit lies; a function of what the second way took, or words.
        memory_at_most: How many times the first way's peak memory the second may have.
        check: Called with what both took in each round, such as to compare their results.
    """
    taken: list[tuple[Taken, Taken]] = []
    for number in range(rounds(usual_rounds)):
        if number % 2:  # the other way round: whatever a way leaves behind meets both
            after = second[1]()
            taken.append((first[1](), after))
        else:
            taken.append((first[1](), second[1]()))
        if check is not None:
            check(*taken[-1])
    middle = sorted((b for _, b in taken), key=lambda t: t.wall)[len(taken) // 2]
    where = limit if isinstance(limit, str) else limit(middle)
    names = (first[0], second[0])
    made = comparison(claim, names, taken, at_least=at_least, memory_at_most=memory_at_most, limit=where)
    note(made)
    return made


def comparison(
    claim: str,
    ways: tuple[str, str],
    taken: Sequence[tuple[Taken, Taken]],
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    memory_at_most: float | None = None,
    limit: str = "",
) -> Comparison:
    """Return the comparison of what two ways took in each round; arguments are fields of `Comparison`."""
    wall, cpu = ([(getattr(a, of), getattr(b, of)) for a, b in taken] for of in ("wall", "cpu"))
    peaks = [[t.peak for t in side] for side in zip(*taken, strict=True)]
    return Comparison(
        claim,
        ways,
        _medians(wall),
        _medians(cpu),
        tuple(None if None in side else median(side) for side in peaks),  # type: ignore[arg-type, type-var]
        _spread(wall),
        _spread(cpu),
        at_least,
        limit,
        at_most,
        memory_at_most,
    )


def note(made: Comparison) -> None:
    """Print the row of a comparison, and append it to the file that collects all of them."""
    print(row(made), flush=True)
    if file := os.environ.get(ROWS):
        with Path(file).open("a") as stream:
            stream.write(json.dumps(asdict(made)) + "\n")


def _medians(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    first, second = zip(*pairs, strict=True)
    return median(first), median(second)


def _spread(pairs: list[tuple[float, float]]) -> tuple[float, float, float]:
    ratios = [a / max(b, 1e-9) for a, b in pairs]
    return median(ratios), min(ratios), max(ratios)


HEADER = (
    "| claim | first, then rib: s | CPU s | peak GB | ratio (lowest to highest) | of CPU | at least | |\n"
    "|---|---|---|---|---|---|---|---|"
)


def heading(title: str) -> None:
    """Print a script's title and the header of its table."""
    print(f"{title}{' (SMALL: a trial, its numbers mean nothing)' if SMALL else ''}\n\n{HEADER}", flush=True)


def row(made: Comparison) -> str:
    """Return a comparison as a row of a Markdown table."""
    peak = "" if None in made.peak else "{:.1f}, {:.1f}".format(*made.peak)
    wanted = "" if made.at_least is None else f"{made.at_least:g}"
    cells = (
        f"{made.claim}: {made.ways[0]}, {made.ways[1]}",
        "{:.2f}, {:.2f}".format(*made.seconds),
        "{:.2f}, {:.2f}".format(*made.cpu),
        peak,
        "**{:.2f}** ({:.2f} to {:.2f})".format(*made.ratio),
        "{:.2f}".format(*made.cpu_ratio[:1]),
        wanted,
        made.verdict,
    )
    return f"| {' | '.join(cells)} |"


def machine() -> str:
    """Return the machine in words: processor, cores, memory, system; no names of hosts or users."""
    info = Path("/proc/cpuinfo")
    names = [x.partition(":")[2].strip() for x in info.read_text().splitlines() if x.startswith("model name")]
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory().total / 2**30
    return f"{names[0] if names else platform.processor()}, {affinity} cores, {memory:.0f} GiB, {platform.system()}"


def half_precision() -> list[str]:
    """Return this processor's instructions for half precision; none where the system does not tell."""
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text().split()) if info.is_file() else set()
    return [name for name in HALF_PRECISION if name in flags]


def versions() -> str:
    """Return the versions of Python and of the packages that do the work."""
    packages = ("torch", "torchvision", "lightning", "timm", "pillow", "numpy")
    return ", ".join([f"Python {platform.python_version()}", *(f"{p} {version(p)}" for p in packages)])
