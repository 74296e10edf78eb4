"""Sort the rows of tables by a column that the user names (``sort=-mRI``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import isnan
from typing import TypeVar

from rib.data.catalog import real
from rib.errors import RibError, nearest

T = TypeVar("T")


def _spellings_of_val() -> tuple[str, ...]:
    name = real().in_distribution or ""
    return real()[name].title.lower(), "val accuracy", name


COLUMNS = {
    "mRI": ("mri", "ri"),
    "source": ("source", "source accuracy", "on the source", "source after"),
    "val": ("val", *_spellings_of_val(), "in distribution"),
    "seconds": ("seconds", "seconds per run", "time"),
    "model": ("model",),
    "method": ("method",),
}
"""Names that each column goes by, in lower case and without a percent sign."""


@dataclass(frozen=True)
class Order:
    """Order of a table's rows.

    Attributes:
        column: Key of `COLUMNS`.
        descending: True if the largest value comes first.
    """

    column: str
    descending: bool

    def sort(self, rows: Iterable[T], values: Mapping[str, Callable[[T], float | str]]) -> list[T]:
        """Return rows in this order, those without a number last.

        Args:
            rows: Rows of any kind.
            values: For each key of `COLUMNS`, the function that returns a row's value.
        """
        value = values[self.column]

        def is_missing(row: T) -> bool:
            number = value(row)
            return isinstance(number, float) and isnan(number)

        known = list(rows)
        missing = [row for row in known if is_missing(row)]
        present = [row for row in known if not is_missing(row)]
        return [*sorted(present, key=value, reverse=self.descending), *missing]


def parse_order(text: str | None) -> Order | None:
    """Return the order that ``sort=`` asks for: ``mRI`` or ``mRI asc``, and ``-mRI`` or ``mRI desc``; None for null.

    Raises:
        RibError: If there is no such column; the message names the nearest one.
    """
    if text is None:
        return None
    name, _, direction = text.strip().lower().replace("%", "").strip().rpartition(" ")
    if direction not in ("asc", "desc"):
        name, direction = f"{name} {direction}", "asc"
    name = name.strip()
    if name.startswith("-"):
        name, direction = name[1:].strip(), "desc"
    for column, spellings in COLUMNS.items():
        if name in spellings:
            return Order(column, direction == "desc")
    known = {spelling: column for column, spellings in COLUMNS.items() for spelling in spellings}
    close = nearest(name, known).removeprefix("; did you mean ").removesuffix("?")
    meant = f"; did you mean {known[close]}?" if close else ""
    raise RibError(f"sort: expected one of {', '.join(COLUMNS)}, or -COLUMN for the largest first, got {text}{meant}")
