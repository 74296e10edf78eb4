"""Find the hash keys of a run that change with an option, and why, for ``rib options``.

The tables are those of `rib.runs.keys`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rib.runs.keys import LEFT_OUT, METHOD_RESOLVED, NEUTRAL, RESOLVED, find_entry

SHOWN_ONLY = ("model.published", "model.pretraining.")
"""Options of a model that are only shown beside results."""


@dataclass(frozen=True)
class Keys:
    """The keys that an option is part of.

    Attributes:
        training: True if another value gives other weights, and so another run.
        score: True if another value gives other predictions of the same weights.
        reason: Why it is in no training key, or how it is in there.
    """

    training: bool
    score: bool
    reason: str = ""

    def __str__(self) -> str:
        """The keys in a few words."""
        names = [name for name, yes in (("training", self.training), ("score", self.score)) if yes]
        return f"{' and '.join(names)} key{'s' * (len(names) > 1)}" if names else "no key"


def keys_of(option: str) -> Keys:
    """Return which keys an option of `rib.train` is part of.

    Args:
        option: Its dotted name, ``data.root``, or the name of a config group, ``model``.
    """
    if find_entry(SHOWN_ONLY, option):
        return Keys(False, False, "it is only shown beside results")
    last = option.removeprefix("method.").partition(".")[2]
    neutral = f"except at {NEUTRAL[option]!r}, which changes nothing" if option in NEUTRAL else ""
    neutral = neutral.replace("None", "null").replace("False", "false")
    if option.startswith("method.") and last:
        return Keys(True, False, f"as {METHOD_RESOLVED[last]}" if last in METHOD_RESOLVED else neutral)
    if entry := _entry(RESOLVED, option):
        return Keys(True, "each score key" in RESOLVED[entry], f"as {RESOLVED[entry]}")
    why_not, no_score = _entry(LEFT_OUT["trained"], option), _entry(LEFT_OUT["score"], option)
    in_score = no_score is None or "each score key" in LEFT_OUT["score"][no_score]
    return Keys(why_not is None, in_score, LEFT_OUT["trained"][why_not] if why_not else neutral)


def _entry(table: Iterable[str], option: str) -> str | None:
    """Return the entry of a table that an option, or a config group as a whole, falls under."""
    return find_entry(table, option) or find_entry(table, f"{option}.")
