"""Choose the settings that get a column of their own in a table of results, and format their values."""

from __future__ import annotations

from collections.abc import Sequence

from rib.config.shipped import shipped_nodes
from rib.reporting.summary import Summary


def setting_axes(rows: Sequence[Summary]) -> tuple[str, ...]:
    """Return the settings that get a column of their own in a table.

    These are the general settings that differ between any rows, and those of a method that differ between its rows.
    """
    axes = []
    # How external weights were trained is unknown, so it sets no row apart; their name is part of their label.
    rows = [row for row in rows if not row.is_external]
    for key in dict.fromkeys(key for row in rows for key in row.settings):
        # A strength that only EWC has does not set EWC apart from LwF: it needs a column if EWC has two of them.
        of_method = key.startswith(("method.", "paper."))
        groups = {row.method for row in rows} if of_method else {None}
        values = [{value_of(row, key) for row in rows if method in (None, row.method)} for method in groups]
        if any(len(different) > 1 for different in values):
            axes.append(key)
    return tuple(axes)


def value_of(row: Summary, axis: str) -> str:
    """Return the value of one setting (``optimizer.lr``) in a table row, as text.

    Args:
        row: Any row.
        axis: Name of the setting, ``optimizer.lr`` or ``method.ewc.strength``.

    Returns:
        The value; ``default`` if none was given and none is known; empty if the row's method has no such option;
        ``unknown`` for a training setting of external weights.
    """
    if row.is_external and row.settings.get(axis) is None:
        return "" if axis.startswith("method.") else "unknown"
    if axis in row.settings:
        return str(row.settings[axis])
    if not axis.startswith("method."):
        return "default"
    _, method, option = axis.split(".", 2)
    if method not in row.method.split("+"):
        return ""
    # Only options that were given are stored, so that the default of a method comes from conf/method as shipped now.
    default = shipped_nodes("method").get(method, {}).get(option)
    return "default" if default is None else str(default)
