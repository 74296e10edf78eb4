"""Choose the rows of a table to print in bold: the best mRI among rows of one model with the same recipe."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

from rib.config.shipped import shipped_nodes
from rib.reporting.formatting import points
from rib.reporting.summary import Summary

OF_METHODS = ("method.", "paper.")
"""Prefixes of settings that belong to a method; all others are its recipe (epochs, optimizer, data, ...)."""

RATE = "optimizer.lr"


def best_rows(rows: Sequence[Summary], num_sources: int) -> set[int]:
    """Return the indices of the rows to print in bold.

    Each is the best of its model among at least two rows with the same recipe. Rows that print the same mRI as the best
    one are bold as well. Only rows with every source count. As mRI is computed on the targets, taking the best of
    several settings of one method would select on them: of such rows only the default setting counts, and trials of a
    search never do. External weights do not count either, since nobody knows their recipe.

    Args:
        rows: All rows of the table.
        num_sources: Number of sources in the table.
    """
    rivals: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        if len(row.improvement) == num_sources and not row.is_external and _may_win(row, rows):
            rivals[row.model, recipe_of(row, rows)].append(i)
    best = set[int]()
    for indices in rivals.values():
        top = points(max(rows[i].over_images.value for i in indices))
        best |= {i for i in indices if len(indices) > 1 and points(rows[i].over_images.value) == top}
    return best


def note_on_bold(rows: Sequence[Summary], best: Collection[int]) -> str:
    """Return a note that explains which rows are bold and which cannot be; empty if there is nothing to explain.

    Args:
        rows: All rows of the table.
        best: From `best_rows`.
    """
    own = [row for row in rows if not row.is_external]
    among = " among rows with the same recipe" if len({recipe_of(row, rows) for row in own}) > 1 else ""
    notes = [f"Bold: best mRI of a model{among}." if best else "Nothing is bold."]
    if len(own) < len(rows):
        notes.append("External weights cannot be bold: how they were trained is unknown.")
    if not all(_may_win(row, rows) for row in own):
        notes.append(
            "Of a method with several settings only the default can be bold, and search trials cannot: the best of "
            "them would be selected on the targets."
        )
    return " ".join(notes) if best or len(notes) > 1 else ""


def _may_win(row: Summary, rows: Sequence[Summary]) -> bool:
    """Return True if a row has its method's only or default settings and is no trial of a search."""
    same = [other for other in rows if (other.model, other.method) == (row.model, row.method)]
    is_default = not any(key.startswith(OF_METHODS) for key in row.options)
    return not row.is_trial and (is_default or len({_method_settings(other) for other in same}) == 1)


def _method_settings(row: Summary) -> str:
    """Return the settings of a row that belong to its method, as text that can be compared."""
    return repr(sorted((key, value) for key, value in row.settings.items() if key.startswith(OF_METHODS)))


def recipe_of(row: Summary, rows: Sequence[Summary]) -> str:
    """Return the recipe of a row, as text that can be compared: all settings that do not belong to its method.

    A method with a learning rate of its own that the user left alone (a visual prompt's is 40) has the recipe of the
    rows at the default rate.

    Args:
        row: A row of a table.
        rows: All rows of the table.
    """
    recipe = {key: value for key, value in row.settings.items() if not key.startswith(OF_METHODS)}
    if _has_own_rate(row):
        defaults = {
            other.settings.get(RATE) for other in rows if RATE not in other.options and not _has_own_rate(other)
        }
        defaults.discard(None)
        recipe[RATE] = defaults.pop() if len(defaults) == 1 else row.settings.get(RATE)
    return repr(sorted(recipe.items()))


def _has_own_rate(row: Summary) -> bool:
    """Return True if a method brings its own learning rate and the user gave none."""
    names = row.method.split("+")
    own = any(shipped_nodes("method").get(n, {}).get("lr") or f"method.{n}.lr" in row.options for n in names)
    return own and RATE not in row.options
