"""Files that Sphinx reads and nobody writes by hand, in docs/_generated."""

from __future__ import annotations

from pathlib import Path

FOLDER = "_generated"


def write(source: Path, name: str, text: str) -> None:
    """Write docs/_generated/NAME; a file that would not change is left alone, so that Sphinx skips its page.

    Args:
        source: Sphinx's source folder.
        name: Path below docs/_generated.
        text: All of the file.
    """
    file = source / FOLDER / name
    if not file.is_file() or file.read_text() != text:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def keep_only(source: Path, folder: str, names: set[str]) -> None:
    """Remove files of docs/_generated/FOLDER that are not named, left from modules or methods that have moved."""
    for file in (source / FOLDER / folder).glob("*"):
        if file.name not in names:
            file.unlink()
