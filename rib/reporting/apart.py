"""Say why the runs of one group of comparable results get a table of their own."""

from __future__ import annotations

from collections.abc import Sequence

from rib.data.worlds import describe_kind, is_suite
from rib.reporting.comparability import Group
from rib.runs.metrics_file import is_older, older_words
from rib.runtime.counting import plural


def reference_of(groups: Sequence[Group], number: int) -> int:
    """Return the number of the group that a group is measured against: the first one, or the first one of its suite.

    Results of two suites never share a table, so there is nothing to say about how to make them.

    Args:
        groups: From `group_comparable`.
        number: Index of the group.
    """
    kinds = [group.results[0][1]["data"]["kind"] for group in groups]
    if not any(map(is_suite, (kinds[0], kinds[number]))):
        return 0
    return kinds.index(kinds[number])


def explain_groups(groups: Sequence[Group]) -> list[str]:
    """Return messages that say why some runs get a table of their own, one message per such group.

    Args:
        groups: From `group_comparable`. The first needs no line unless an older version of rib made it.
    """
    return [text for number in range(len(groups)) if (text := explain_group(groups, number))]


def explain_group(groups: Sequence[Group], number: int) -> str:
    """Return a message that says why the runs of one group get a table of their own; empty if there is no reason.

    Args:
        groups: From `group_comparable`.
        number: Index of the group.
    """
    metrics, runs = groups[number].results[0][1], plural(len(groups[number].results), "run")
    if is_older(metrics):
        return (
            f"{runs}: each {older_words(metrics)}, and this version computes different numbers; they get "
            "tables of their own. To remake a run, repeat the command that made it"
        )
    if number == 0:
        return ""
    reference = reference_of(groups, number)
    if reference == number:
        return f"{runs} on {describe_kind(metrics['data']['kind'])}: results of two suites never share a table"
    reasons = "; ".join(groups[reference].differences(metrics))
    name = "first table" if reference == 0 else f"table summary_{reference + 1}"
    return f"{runs} cannot share the {name} (of {len(groups[reference].results)}): {reasons}"
