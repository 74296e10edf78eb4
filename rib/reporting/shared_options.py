"""Options that all runs of a table share, which are said once below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rib.reporting.summary import EXTERNAL_NAME

Options = Mapping[str, Any]

MISSING = object()


def shared_options(runs: Sequence[tuple[Options, bool]]) -> dict[str, Any]:
    """Return the options that all runs have with the same value, but external weights, whose training is unknown.

    Args:
        runs: The options of each run or row, and whether it is of external weights. Where all are, all count.
    """
    trained = [options for options, is_external in runs if not is_external] or [options for options, _ in runs]
    first: Options = trained[0] if trained else {}
    return {
        key: value
        for key, value in first.items()
        if key != EXTERNAL_NAME and all(options.get(key, MISSING) == value for options in trained)
    }


def describe_shared(shared: Options, runs: Sequence[tuple[Options, bool]]) -> str:
    """Return the sentence on shared options, ``All with epochs=1, data.limit=60``; empty if there is none.

    Args:
        shared: Some of `shared_options`, in the order in which they are named.
        runs: As there.
    """
    if not shared:
        return ""
    have_all = all(options.get(key, MISSING) == value for options, _ in runs for key, value in shared.items())
    who = "All" if have_all else "All but external weights"
    return f"{who} with {', '.join(f'{key}={value}' for key, value in shared.items())}"
