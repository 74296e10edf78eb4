"""Messages for a suite's file that does not exist and for names that are none of its domains."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rib.config.corrections import normalise
from rib.config.shipped import options
from rib.config.spelling import for_shell, spell_text

if TYPE_CHECKING:
    from rib.data.suites.suite import Suite

SHORT = 12
"""Largest number of names that a message lists."""


def find_suites(folder: Path) -> list[Path]:
    """Return the files of suites that lie in a folder."""
    files = [*folder.glob("*.yaml"), *folder.glob("*.yml")] if folder.is_dir() else []
    return sorted(file for file in files if _is_suite(file))


def _is_suite(file: Path) -> bool:
    try:
        return re.search(r"^domains:", file.read_text(errors="replace"), re.M) is not None
    except OSError:  # a folder, a broken link or a file of somebody else's
        return False


def explain_unknown(argument: str, names: Sequence[str], suite: Suite) -> str:
    """Return the sentence for names that are no domains of a suite, with the whole argument that was meant.

    Args:
        argument: ``suite.targets=[fotos,sketch]``.
        names: The names in it.
        suite: The suite.
    """
    key, _, value = argument.partition("=")
    wrong = next(name for name in names if name not in suite.domains)
    meant = [_nearest(name, suite) for name in names]
    known = ", ".join(suite.domains) if len(suite.domains) <= SHORT else f"{len(suite.domains)} others"
    joined = ",".join(name or "" for name in meant)
    spelt = f"[{joined}]" if value.startswith("[") else joined
    hint = "" if None in meant else f"; did you mean {for_shell([f'{key}={spelt}'])}?"
    return f"{argument}: there is no domain {wrong} in the suite {suite.name}{hint or f'; it has {known}'}"


def explain_missing(file: Path, given: Path) -> str:
    """Explain that there is no file of a suite, with what was probably meant.

    Args:
        file: Its absolute path.
        given: The path as the user wrote it.
    """

    def spelt(name: Path) -> str:
        return for_shell([spell_text("suite", str(name))])

    if file.is_dir():
        found = [spelt(given / other.name) for other in find_suites(file)]
        meant = f"did you mean {' or '.join(found)}?" if found else f"rib data init {given} writes one for it"
        return f"expected the file of a suite, got a folder; {meant}"
    if file.stem in options("suite"):
        return f"there is no such file; did you mean suite={file.stem}, a suite of rib's?"
    if not file.parent.is_dir():
        return f"there is no folder {file.parent}"
    others = {other.stem: other.name for other in find_suites(file.parent)}
    if close := difflib.get_close_matches(file.stem, others, n=1, cutoff=0.5):
        return f"there is no such file; did you mean {spelt(given.parent / others[close[0]])}?"
    names = ", ".join([*others.values()][:SHORT])
    listed = f"; the suites there are {names}" if others else "; rib data init FOLDER writes one"
    return f"there is no such file in {file.parent}{listed}"


def _nearest(name: str, suite: Suite) -> str | None:
    """Return the domain that a name probably means: by its own name, or by its title."""
    titles = {normalise(domain.title): domain.name for domain in suite.domains.values()}
    wanted = normalise(name)
    if wanted in suite.domains or wanted in titles:
        return wanted if wanted in suite.domains else titles[wanted]
    close = difflib.get_close_matches(wanted, suite.domains, n=1, cutoff=0.5)
    return close[0] if close else None
