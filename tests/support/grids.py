"""A small grid run as a command, the contents of its store, and ways to damage it."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from rib.runs.run import Run
from rib.runs.store import RunStore

QUICK = (
    "models=[mini_small]",
    "data.images_per_class=6",
    "epochs=2",
    "checkpoint.every_minutes=0.001",
    "suite.targets=[imagenet_a,imagenet_r]",
    "trainer=cpu",
    "data.root=null",
)


def command(store: Path, cache: Path, *overrides: str) -> list[str]:
    return [sys.executable, "-m", "rib.benchmark", *QUICK, f"paths.runs={store}", f"paths.cache={cache}", *overrides]


def run(store: Path, cache: Path, *overrides: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """A grid to its end."""
    line = command(store, cache, *overrides)
    return subprocess.run(line, capture_output=True, text=True, timeout=280, **options)


def start(store: Path, cache: Path, *overrides: str) -> subprocess.Popen[str]:
    """A grid in a session of its own, so that all of it can be found and killed."""
    quiet = subprocess.DEVNULL
    line = command(store, cache, *overrides)
    return subprocess.Popen(line, stdout=quiet, stderr=quiet, text=True, start_new_session=True)


def session(child: subprocess.Popen[str]) -> list[int]:
    """Every process of a grid but its first."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == child.pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return sorted(pid for pid in found if pid != child.pid)


def kill_one_of(dice: random.Random, child: subprocess.Popen[str]) -> str:
    """Kill -9 the grid, one of its processes, or all of them."""
    others = session(child)
    victim = dice.choice(["the grid", "one process", "all"])
    pids = {"the grid": [child.pid], "all": [child.pid, *others]}.get(victim, [dice.choice(others or [child.pid])])
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return victim


def end(child: subprocess.Popen[str]) -> None:
    """Wait until nothing is left of a grid."""
    if child.poll() is None:
        child.terminate()
    child.wait(60)
    while session(child):
        time.sleep(0.1)


def with_small_files(limit: int) -> Callable[[], None]:
    """A limit on the size of files, which fails a write as a full disk does."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def results(store: Path) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Metrics without times, and weights, of every finished run by its place."""
    found = {}
    for finished in RunStore(store).finished():
        metrics = {k: v for k, v in (finished.metrics() or {}).items() if k != "seconds"}
        weights = load_file(finished.weights_file) if finished.weights_file.is_file() else {}
        found[str(finished.folder.relative_to(store))] = (metrics, weights)
    return found


def differences(store: Path, other: Path) -> list[str]:
    """Runs that one store has and the other has not, or has with other numbers or weights."""
    one, two = results(store), results(other)
    wrong = sorted(one.keys() ^ two.keys())
    for place in one.keys() & two.keys():
        (metrics, weights), (metrics_of_other, weights_of_other) = one[place], two[place]
        same = weights.keys() == weights_of_other.keys()
        same = same and all(bool((weights[name] == weights_of_other[name]).all()) for name in weights)
        if metrics != metrics_of_other or not same:
            wrong.append(place)
    return wrong


def made(store: Path) -> Counter[str]:
    """Count how often each run was made, by the cells' logs."""
    logs = (log.read_text() for log in (store / "cells").glob("*/log.txt"))
    return Counter(line for log in logs for line in re.findall(r"^saved (.*)$", log, re.MULTILINE))


def unfinished(store: Path) -> list[str]:
    """Folders and claims that nobody holds and nobody will go on with."""
    folders = [f.name for f in store.glob("*/*/*/*/*/") if "." in f.name]
    return folders + [claim.name for claim in (store / "claims").iterdir()]


def damage_metrics(run: Run) -> None:
    """Cut a metrics.json short."""
    file = run.folder / "metrics.json"
    file.write_bytes(file.read_bytes()[:100])


def damage_weights(run: Run) -> None:
    """Turn one bit in the middle of the weights: no library notices."""
    content = bytearray(run.weights_file.read_bytes())
    content[len(content) // 2] ^= 1
    run.weights_file.write_bytes(bytes(content))


def failures(store: Path) -> list[str]:
    """Why cells failed."""
    return [json.loads(file.read_text())["error"] for file in sorted((store / "cells").glob("*/failed.json"))]
