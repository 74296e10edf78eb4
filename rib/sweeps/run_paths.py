"""Find finished runs by path or glob pattern, and explain why a pattern matches none."""

from __future__ import annotations

from collections.abc import Sequence
from glob import escape, glob
from pathlib import Path

from rib.errors import RibError, nearest
from rib.runs.store import RunStore


def matching_paths(pattern: str) -> list[Path]:
    """Return the paths that a path or a glob pattern matches.

    Existing folders at its beginning are taken literally, so that a folder called ``st[3]`` needs no escaping.
    """
    start, rest = _split_at_existing(pattern)
    if not rest:
        return [start]
    names = glob("/".join(rest), root_dir=start, recursive=True)  # noqa: PTH207 - Path.glob follows no links
    return [start / name for name in names]


def _split_at_existing(pattern: str) -> tuple[Path, list[str]]:
    """Split a path into its longest existing beginning and the remaining names."""
    start, rest = Path(pattern).expanduser(), list[str]()
    while not start.exists() and start != start.parent:
        start, rest = start.parent, [start.name, *rest]
    return start, rest


def is_finished(path: Path) -> bool:
    """Return True if a path is the folder of a finished run."""
    # A dot marks a folder in which a process makes a run, or which an interrupted one has left.
    return (path / "metrics.json").is_file() and "." not in path.name


def explain_mismatch(pattern: str, matched: Sequence[Path]) -> str:
    """Explain why a path or pattern names no finished run, and suggest one that does.

    Args:
        pattern: As the user gave it.
        matched: The paths that it matches, none of them a finished run.
    """
    if not matched:
        start, rest = _split_at_existing(pattern)
        if escape(rest[0]) != rest[0] or not start.is_dir():
            return f"{pattern} matches nothing in {start}"
        suggestion = nearest(rest[0], [entry.name for entry in start.iterdir() if entry.is_dir()])
        return f"{pattern} matches nothing: there is no {rest[0]} in {start}{suggestion}"
    if len(matched) > 1:
        return f"none of the {len(matched)} paths that match {pattern} is a finished run"
    path = matched[0]
    if path.is_file():
        run_folder = next((p for p in path.parents if is_finished(p)), None)
        return f"{pattern} is a file" + (f"; give its run's folder, {run_folder}" if run_folder else "")
    key, dot, _ = path.name.partition(".")
    if dot and len(key) == 16:
        # A run is made in <key>.<token>, and renamed to <key> once it is finished.
        finished = path.with_name(key)
        hint = f"; the finished run is {finished}" if is_finished(finished) else ""
        return f"{pattern} is the working folder of an unfinished run{hint}"
    if (path / "config.yaml").is_file():
        return f"{pattern} is unfinished: it has no metrics.json; repeat the command that began it to resume it"
    inside = next(path.glob("**/metrics.json"), None)
    if inside is not None:
        depth = len(inside.parent.relative_to(path).parts)
        return f"{pattern} is not a run but contains some; give runs='{pattern}{'/*' * depth}'"
    return f"{pattern} is a folder without a finished run"


def store_of(folder: Path) -> RunStore:
    """Return the store that a run's folder lies in.

    Raises:
        RibError: If the path has too few parents to lie in a store.
    """
    if len(folder.parents) < 5:
        raise RibError("expected a run in its store, <store>/<data>/<model>/<source>/<method>/<key>")
    return RunStore(folder.parents[4])
