"""Run the benchmarks one after the other, and write benchmarks/RESULTS.md: what each printed, uncut, and a summary.

    python -m benchmarks.results [SCRIPT ...]     # all, or some of them: `make bench`

A script that fails leaves its message in the file, and the others go on. ROUNDS, SMALL and PHOTOS in the environment
are those of `benchmarks.side_by_side` and `benchmarks.photographs`; with SMALL the file is RESULTS.small.md, which git
ignores.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.side_by_side import HALF_PRECISION, ROWS, SMALL, Comparison, half_precision, machine, versions

HERE = Path(__file__).parent
RESULTS = HERE / ("RESULTS.small.md" if SMALL else "RESULTS.md")

SCRIPTS: Mapping[str, str] = {
    "input_pipeline": "Images from files",
    "training": "Training",
    "allocator": "The allocator",
    "scoring": "Scoring",
    "mini_grid": "The grid of the built-in data, against the commit before",
    "listing": "A second start",
    "big_store": "A large store",
    "plan": "The plan's estimate",
    "start_up": "Start-up",
    "protocol": "The whole protocol",
    "scaling": "How time and memory grow",
}
"""By module of ``benchmarks``, the heading of what it prints, in the order in which they run."""


def run(name: str, rows: Path) -> str:
    """Run a script and return its part of the file: heading, seconds, output."""
    begun = time.monotonic()
    print(f"benchmarks.{name} ...", file=sys.stderr, flush=True)
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"} | {ROWS: str(rows)}
    environment["RIB_PROGRESS"] = "off"
    line = [sys.executable, "-m", f"benchmarks.{name}"]
    done = subprocess.run(line, capture_output=True, text=True, env=environment, check=False, cwd=HERE.parent)
    said = done.stdout.strip()
    if done.returncode:
        said += f"\n\nended with exit code {done.returncode}: {done.stderr.strip()[-1500:]}"
    taken = time.monotonic() - begun
    print(f"{said}\n({taken:.0f} s)\n", file=sys.stderr, flush=True)
    # Tables are Markdown already, at the start of a line; anything else is shown as it was printed.
    body = said if "\n|" in said else f"```text\n{said}\n```"
    return f"## {SCRIPTS[name]}\n\n`python -m benchmarks.{name}`, {taken:.0f} s\n\n{body}\n"


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of all comparisons: ratio, what is asked for, and where the limit lies."""
    lines = ["| claim | ratio (lowest to highest) | of CPU | at least | |", "|---|---|---|---|---|"]
    limits = []
    for fields in rows:
        made = Comparison(**fields)
        wanted = "" if made.at_least is None else f"{made.at_least:g}"
        ratio = "**{:.2f}** ({:.2f} to {:.2f})".format(*made.ratio)
        name = f"{made.claim}: {made.ways[0]} over {made.ways[1]}"
        lines.append(f"| {name} | {ratio} | {made.cpu_ratio[0]:.2f} | {wanted} | {made.verdict} |")
        if made.limit:
            limits.append(f"- {made.claim}: {made.limit}")
    where = ["", "Where the limit lies:", "", *limits] if limits else []
    return "\n".join([*lines, *where]) + "\n"


def half_precision_words() -> str:
    """Say whether this processor computes in half precision, without which its rows are not measured."""
    if there := half_precision():
        return f"The processor computes in half precision ({', '.join(there)})."
    return (
        "Half precision is not measured: this processor has no instructions for it "
        f"(none of {', '.join(HALF_PRECISION)})."
    )


def gpu() -> str:
    """Run the GPU's benchmark where there is one, and return its part of the file."""
    import torch

    if not torch.cuda.is_available():
        return "## One GPU\n\nThere was none on this machine; `python -m benchmarks.gpu` measures its rows.\n"
    done = subprocess.run([sys.executable, "-m", "benchmarks.gpu"], capture_output=True, text=True, check=False)
    return f"## One GPU\n\n{done.stdout}{done.stderr[-1500:] if done.returncode else ''}\n"


def write(parts: Sequence[str], rows: Path, begun: float) -> None:
    """Write the file, with what there is so far."""
    found = [json.loads(line) for line in rows.read_text().splitlines()]
    trial = "A trial: everything is small, and the numbers mean nothing.\n\n" if SMALL else ""
    photos = "photographs" if os.environ.get("PHOTOS") else "images drawn like photographs"
    made = f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; {versions()}; {photos}"
    RESULTS.write_text(
        f"# What `make bench` measured\n\n{trial}{made}; {(time.monotonic() - begun) / 60:.0f} minutes in all.\n\n"
        "A ratio is the first way's time over that of rib, the median over rounds in which both take turns, with the "
        "lowest and highest. CPU seconds are hardly affected by other load on the machine.\n\n"
        f"{half_precision_words()}\n\n"
        f"{summary(found)}\n" + "\n".join(parts)
    )


def main(names: Sequence[str]) -> None:
    """Run the scripts, and write the file after each, so that an interrupted run leaves what it measured."""
    if unknown := set(names) - set(SCRIPTS):
        raise SystemExit(f"expected some of {', '.join(SCRIPTS)}, got {', '.join(sorted(unknown))}")
    begun, parts = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        rows.touch()
        for name in names or SCRIPTS:
            if (HERE / f"{name}.py").exists():
                parts.append(run(name, rows))
                write(parts, rows, begun)
        write([*parts, gpu()], rows, begun)
    print(f"wrote {RESULTS.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main(sys.argv[1:])
