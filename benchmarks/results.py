"""Run the benchmarks one after the other, and write benchmarks/RESULTS.md: what each printed, uncut, and a summary.

    python -m benchmarks.results                # all of them: `make bench`
    python -m benchmarks.results SCRIPT ...     # some of them again; the other parts stay, with the date of theirs

A script that fails leaves its message in the file, and the others go on. The parts are kept in results.json. ROUNDS,
SMALL and PHOTOS in the environment are those of `benchmarks.side_by_side` and `benchmarks.photographs`; with SMALL the
files are RESULTS.small.md and results.small.json, which git ignores.
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
PARTS = HERE / ("results.small.json" if SMALL else "results.json")
"""By script: what it printed, its comparisons, when and where it was made, and its seconds."""

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


def run(name: str) -> dict[str, Any]:
    """Run a script and return its part: what it printed, its comparisons, when and where it was made, its seconds."""
    begun = time.monotonic()
    print(f"benchmarks.{name} ...", file=sys.stderr, flush=True)
    with tempfile.NamedTemporaryFile("r") as rows:
        environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"} | {ROWS: rows.name}
        environment["RIB_PROGRESS"] = "off"
        line = [sys.executable, "-m", f"benchmarks.{name}"]
        done = subprocess.run(line, capture_output=True, text=True, env=environment, check=False, cwd=HERE.parent)
        compared = [json.loads(row) for row in rows.read().splitlines()]
    said = done.stdout.strip()
    if done.returncode:
        said += f"\n\nended with exit code {done.returncode}: {done.stderr.strip()[-1500:]}"
    taken = time.monotonic() - begun
    print(f"{said}\n({taken:.0f} s)\n", file=sys.stderr, flush=True)
    photos = "photographs" if os.environ.get("PHOTOS") else "images drawn like photographs"
    where = f"{machine()}; {versions()}; {photos}"
    return {
        "said": said,
        "rows": compared,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "where": where,
        "seconds": round(taken),
    }


def section(name: str, part: Mapping[str, Any]) -> str:
    """Return a script's part of the file: heading, seconds, output."""
    said = part["said"]
    # Tables are Markdown already, at the start of a line; anything else is shown as it was printed.
    body = said if "\n|" in said else f"```text\n{said}\n```"
    return f"## {SCRIPTS[name]}\n\n`python -m benchmarks.{name}`, {part['seconds']} s, {part['date']}\n\n{body}\n"


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


def write(parts: Mapping[str, Mapping[str, Any]], more: str = "") -> None:
    """Write the parts, and the file made of them.

    Args:
        parts: By script, in the order of `SCRIPTS`.
        more: What stands at the end.
    """
    PARTS.write_text(json.dumps(parts, indent=1) + "\n")
    trial = "A trial: everything is small, and the numbers mean nothing.\n\n" if SMALL else ""
    places = "\n\n".join(dict.fromkeys(part["where"] for part in parts.values()))
    minutes = sum(part["seconds"] for part in parts.values()) / 60
    compared = [row for part in parts.values() for row in part["rows"]]
    RESULTS.write_text(
        f"# What `make bench` measured\n\n{trial}{places}; {minutes:.0f} minutes in all.\n\n"
        "A ratio is the first way's time over that of rib, the median over rounds in which both take turns, with the "
        "lowest and highest. CPU seconds are hardly affected by other load on the machine.\n\n"
        f"{half_precision_words()}\n\n"
        f"{summary(compared)}\n" + "\n".join([*(section(name, part) for name, part in parts.items()), more])
    )


def main(names: Sequence[str]) -> None:
    """Run the scripts, and write the file after each, so that an interrupted run leaves what it measured."""
    if unknown := set(names) - set(SCRIPTS):
        raise SystemExit(f"expected some of {', '.join(SCRIPTS)}, got {', '.join(sorted(unknown))}")
    parts: dict[str, dict[str, Any]] = json.loads(PARTS.read_text()) if names and PARTS.exists() else {}
    for name in names or SCRIPTS:
        parts[name] = run(name)
        parts = {known: parts[known] for known in SCRIPTS if known in parts}
        write(parts)
    write(parts, gpu())
    print(f"wrote {RESULTS.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main(sys.argv[1:])
