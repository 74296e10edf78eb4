"""Errors that the user can fix.

Each message is one sentence: what was expected, what was found, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RibError(Exception):
    """Error that the user can fix; commands print only its message, without a traceback."""


class DamagedError(RibError):
    """File of the run store that is truncated or was changed after it was written."""


class OtherVersionError(RibError):
    """File of the run store in the format of another version of rib; the file is left as it is."""


class DivergedError(RibError):
    """Training diverged: loss or weights became NaN or infinite. `rib.search` then avoids the setting."""


def nearest(name: str, candidates: Iterable[str], prefix: str = "") -> str:
    """Suggest the most similar candidate for a misspelt name.

    Args:
        name: What the user wrote.
        candidates: Valid names.
        prefix: Put before the suggested name, ``"data."``.

    Returns:
        ``; did you mean NAME?``, to end a message with, or an empty string if no candidate is similar.
    """
    close = difflib.get_close_matches(name, sorted({*candidates} - {name}), n=1, cutoff=0.5)
    return f"; did you mean {prefix}{close[0]}?" if close else ""
