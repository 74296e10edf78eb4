"""Words of `rib.data` without a name: ``rib data init photos``, ``rib data check pets.yaml``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from rib.config.spelling import for_shell, spell_override
from rib.config.suite_slips import find_suites
from rib.errors import RibError

ACTIONS = ("init", "check", "look", "sheet")
"""Values of ``action=``."""


def name_words(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of `rib.data` with names for the words that they begin with.

    The first word is the action, the second the file of a suite (``suite=``), or the folder of the datasets
    (``data.root=``), or the folder that ``init`` writes a suite for (``folder=``).

    Args:
        arguments: As the user gave them.

    Raises:
        RibError: For several folders or files, and for the folder of a suite in place of its file.
    """
    words = [*takewhile(_is_word, arguments)]
    rest = [*arguments[len(words) :]]
    action = words[0].lower() if words and words[0].lower() in ACTIONS else ""
    places = words[1:] if action else words
    if (rest[:1] and rest[0].startswith("=")) or not (action or _is_place(places)):
        return [*arguments]  # a slip, for rib.config.slips
    if len(places) > 1:
        joined = for_shell([" ".join(places)])
        raise RibError(
            f"{' '.join(places)}: expected one file or folder after {action or 'rib data'}, got {len(places)}; a name "
            f"with spaces needs quotes, {joined}"
        )
    named = [f"action={action}"] if action else []
    return [*named, *(_named(action, place) for place in places), *rest]


def _is_word(argument: str) -> bool:
    return "=" not in argument and not argument.startswith("-")


def _is_place(words: Sequence[str]) -> bool:
    """Return True if words are one path: a word with a slash, or the name of a file or folder that exists."""
    return len(words) == 1 and ("/" in words[0] or Path(words[0]).expanduser().exists())


def _named(action: str, place: str) -> str:
    """Return ``suite=FILE``, ``data.root=DIR`` or ``folder=DIR`` for a path."""
    if action == "init":
        return spell_override("folder", place)
    if place.lower().endswith((".yaml", ".yml")):
        return spell_override("suite", place)
    if found := find_suites(Path(place).expanduser()):
        commands = [for_shell(["rib", "data", action or "check", str(Path(place) / file.name)]) for file in found]
        raise RibError(f"{place}: expected the file of a suite, got a folder; did you mean {' or '.join(commands)}?")
    return spell_override("data.root", place)
