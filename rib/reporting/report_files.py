"""Names of the files of a report, the removal of those that an earlier report left, and its file of commands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rib.config.schema import FIGURE_FORMATS
from rib.reporting.captions import COMPARISON
from rib.reporting.remedies import Remedy
from rib.runtime.files import write_atomically

_OURS = re.compile(r"(runs|summary|comparison)(_\d+)?\.(csv|md|tex|png|pdf|svg|txt)|remedies\.sh")
"""Names that only a report gives to its files."""


def remove_stale(out: Path, written: Sequence[Path]) -> list[Path]:
    """Remove the files of an earlier report from a folder, so that none is taken for a part of this one.

    Args:
        out: The report's folder; other files in it are kept.
        written: Files of this report.

    Returns:
        The files removed. A caption file beside a figure of this report stays.
    """
    if not out.is_dir():
        return []
    stems = {file.stem for file in written if file.suffix in (".png", ".pdf", ".svg")}
    kept = {file.name for file in written} | {f"{stem}.txt" for stem in stems}
    divided = {f"{stem}.{ending}" for stem in _comparisons(out) for ending in (*FIGURE_FORMATS, "txt")}
    ours = (file for file in sorted(out.iterdir()) if _OURS.fullmatch(file.name) or file.name in divided)
    stale = [file for file in ours if file.name not in kept]
    for file in stale:
        file.unlink(missing_ok=True)
    return stale


def _comparisons(out: Path) -> list[str]:
    """Return the names of figures like comparison-MODEL, known by their captions: a user's file may be called so."""
    captions = (file for file in out.glob("comparison*-*.txt") if file.is_file())
    return [file.name.removesuffix(".txt") for file in captions if file.read_text().startswith(COMPARISON)]


def write_remedies(out: Path, found: Sequence[Remedy]) -> list[Path]:
    """Write the commands that make more runs comparable to remedies.sh; without any, write nothing.

    Args:
        out: The report's folder.
        found: From `rib.reporting.remedies.remedies`.

    Returns:
        The file, if there is one.
    """
    blocks = [
        "\n".join([f"# {remedy.reason}; {remedy.advice}", *remedy.commands]) for remedy in found if remedy.commands
    ]
    if not blocks:
        return []
    file = out / "remedies.sh"
    write_atomically(file, ("\n\n".join(blocks) + "\n").encode())
    return [file]
