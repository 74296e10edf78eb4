"""The one kind of error that is the user's to mend: a sentence that says what was expected, what came, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RibError(Exception):
    """Something the user can put right; mains print its message alone, without a traceback."""


class DamagedError(RibError):
    """A file of the store does not hold what was written to it."""


class OtherVersionError(RibError):
    """A file of the store was written by a version of rib whose files this one cannot read; it stays as it is."""


class DivergedError(RibError):
    """Training that lost itself in numbers that are none: a setting to avoid, where several are tried."""


def nearest(name: str, candidates: Iterable[str], prefix: str = "") -> str:
    """``; did you mean NAME?`` for the candidate most like a name, or nothing."""
    close = difflib.get_close_matches(name, sorted({*candidates} - {name}), n=1, cutoff=0.5)
    return f"; did you mean {prefix}{close[0]}?" if close else ""
