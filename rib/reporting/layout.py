"""Tables that fit any terminal without cutting a number.

A `FittedTable` tries forms in this order, and takes the first one that fits: all columns; without columns whose entries
are all equal (a line above the table says them); with short names (``R`` for ``ImageNet-R``); with headings on several
lines and long words folded; without the columns that the table can spare (a line below says which file has them);
upright, with a column for each row; and a list. Rich alone would cut numbers with an
ellipsis. Files and pipes have no width: there a table has all its columns, and no colour.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from rib.data.worlds import shortened
from rib.reporting.stripped import Stripped

NO_LIMIT = 10_000
"""Width of a file or pipe, in characters."""

NOTEBOOK = 100
"""Width of a notebook's output, in characters."""

LEAST_WORDS, LEAST_PROSE = 12, 28
"""Width, in characters, below which a column of words or of sentences is not folded any further."""


def output() -> Console:
    """Return the console for results on stdout: as wide as the terminal; in a file or pipe without limit or colour.

    The variable ``COLUMNS`` sets another width.
    """
    console = Console()
    if console.is_terminal:
        return console
    if console.is_jupyter:
        return Console(width=NOTEBOOK)
    width = console.width if os.environ.get("COLUMNS", "").isdecimal() else NO_LIMIT
    return Console(width=width, color_system=None, force_terminal=False)


def as_text(table: FittedTable) -> str:
    """Return a table as plain text, in the form that fits where `output` prints."""
    console = Console(width=output().width, color_system=None, file=io.StringIO())
    with console.capture() as printed:
        console.print(table)
    return "\n".join(line.rstrip() for line in printed.get().splitlines())


@dataclass(frozen=True)
class Row:
    """A row of a `FittedTable`: its entries, a Rich style, and whether a gap follows."""

    cells: tuple[str, ...]
    style: str = ""
    end_section: bool = False


@dataclass(frozen=True)
class FittedTable:
    """A table for ``Console.print`` in whatever form fits.

    Attributes:
        title: Line above the table.
        words: Headings of the first columns, which name a row.
        numbers: Headings of the next columns; their entries are never broken, except by a list in very few columns.
        prose: Headings of the last columns, whose entries are sentences or paths.
        notes: Lines below the table.
        optional: Headings of columns that may be left out for want of room, those of one entry together, the least
            important first.
        file: File that has all columns; it is named where some are left out.
        rows: The rows; `add_row` adds one.
    """

    title: str
    words: tuple[str, ...]
    numbers: tuple[str, ...] = ()
    prose: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    optional: tuple[tuple[str, ...], ...] = ()
    file: str = ""
    rows: list[Row] = field(default_factory=list)

    @property
    def columns(self) -> tuple[str, ...]:
        """All headings."""
        return (*self.words, *self.numbers, *self.prose)

    def add_row(self, *cells: str, style: str = "", end_section: bool = False) -> None:
        """Add a row.

        Args:
            cells: One text for each column.
            style: Rich style, such as ``bold``.
            end_section: Leave a gap below, unless it is the last row.
        """
        assert len(cells) == len(self.columns), (cells, self.columns)
        self.rows.append(Row(cells, style, end_section))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Yield the title, the table in the first form that fits, and the notes."""
        table, form, above = self._fit(console, options)
        lines = [Text(line, style=style) for line, style in ((form.title, "italic"), (above, "")) if line]
        yield Stripped(Group(*lines, table, *map(Text, form.notes)))

    def _fit(self, console: Console, options: ConsoleOptions) -> tuple[RenderableType, FittedTable, str]:
        """Return the first form that fits, the table whose columns it has, and a line on the columns that it lacks."""
        named, about_names = self._without_constants(range(len(self.words)))
        fewer, common = self._without_constants(range(len(self.columns)))
        brief = fewer._shortened()
        for form, above in ((self, ""), (named, about_names), (fewer, common), (brief, shortened(common))):
            if _fits(form._table(), console, options):
                return form._table(), form, above
        for form in (brief, *brief._with_fewer_columns()):
            if (folded := form._folded(options.max_width)) is not None:
                return folded, form, shortened(common)
        return brief._upright(options.max_width) or _List(brief), brief, shortened(common)

    def _with_fewer_columns(self) -> Iterator[FittedTable]:
        """Yield the table without its first optional columns, without the first and second ones, and so on."""
        left_out: list[str] = []
        for names in self.optional:
            left_out += [name for name in map(shortened, names) if name in self.columns]
            table = self._with_columns([i for i, name in enumerate(self.columns) if name not in left_out])
            note = f"No room here for {', '.join(left_out)}: see {self.file}."
            yield replace(table, notes=(note, *self.notes))

    def _with_columns(self, kept: Sequence[int]) -> FittedTable:
        """Return the table with some of its columns, by number."""
        parts, start = [], 0
        for names in (self.words, self.numbers, self.prose):
            parts.append(tuple(name for i, name in enumerate(names, start) if i in kept))
            start += len(names)
        rows = [replace(row, cells=tuple(row.cells[i] for i in kept)) for row in self.rows]
        return replace(self, words=parts[0], numbers=parts[1], prose=parts[2], rows=rows)

    def _without_constants(self, among: range) -> tuple[FittedTable, str]:
        """Return the table without columns of equal entries, and what these say: ``same in every row: seed 0``.

        Args:
            among: Columns that may be left out.
        """
        if len(self.rows) < 2:
            return self, ""
        columns = list(zip(*(row.cells for row in self.rows), strict=True))
        kept = [i for i, cells in enumerate(columns) if len(set(cells)) > 1 or i not in among]
        if not [i for i in kept if i < len(self.words)]:  # a row must have a name
            kept = sorted({len(self.words) - 1, *kept})
        said = [
            f"{name} {cells[0]}".strip()
            for i, (name, cells) in enumerate(zip(self.columns, columns, strict=True))
            if i not in kept and cells[0]
        ]
        return self._with_columns(kept), f"same in every row: {', '.join(said)}" if said else ""

    def _shortened(self) -> FittedTable:
        """Return the table with short names of datasets, in headings and entries."""
        end = len(self.words) + len(self.numbers)  # sentences stay as they are
        rows = [replace(row, cells=(*map(shortened, row.cells[:end]), *row.cells[end:])) for row in self.rows]
        words, numbers = (tuple(map(shortened, names)) for names in (self.words, self.numbers))
        return replace(self, title=shortened(self.title), words=words, numbers=numbers, rows=rows)

    def _is_number(self, column: int) -> bool:
        return len(self.words) <= column < len(self.words) + len(self.numbers)

    def _table(self, widths: Sequence[int] | None = None) -> Table:
        """Return a Rich table; its columns are as wide as their entries, or as ``widths`` says."""
        table = _empty_table(show_header=any(self.columns))
        for i, name in enumerate(self.columns):
            width = None if widths is None else widths[i]
            justify: JustifyMethod = "right" if self._is_number(i) else "left"
            table.add_column(
                Text(name), justify=justify, width=width, no_wrap=widths is None, overflow="fold", vertical="top"
            )
        for row in self.rows:
            end_section = row.end_section and row is not self.rows[-1]
            table.add_row(*map(Text, row.cells), style=row.style, end_section=end_section)
        return table

    def _folded(self, width: int) -> Table | None:
        """Return the table with headings on several lines and long words folded; None if that is too wide as well."""
        least, most = [], []
        for i, name in enumerate(self.columns):
            entries = max((cell_len(row.cells[i]) for row in self.rows), default=0)
            word = max(map(cell_len, name.split()), default=0)
            limit = LEAST_PROSE if i >= len(self.words) + len(self.numbers) else LEAST_WORDS
            least.append(max(word, entries if self._is_number(i) else min(entries, limit), 1))
            most.append(max(cell_len(name), entries, 1))
        spare = width - 2 * (len(least) - 1)
        if sum(least) > spare:
            return None
        while sum(most) > spare:
            most[max(range(len(most)), key=lambda i: (most[i] > least[i], most[i] - least[i]))] -= 1
        return self._table(most)

    def _upright(self, width: int) -> RenderableType | None:
        """Return the table with a column for each row, in blocks if not all fit side by side; None if no two do."""
        named, left = len(self.words), max(map(cell_len, self.columns))
        widths = []
        for row in self.rows:
            words = max((min(cell_len(cell), LEAST_WORDS) for cell in row.cells[:named]), default=0)
            widths.append(max([words, *map(cell_len, row.cells[named:])]))
        blocks: list[list[int]] = [[]]
        for i, needed in enumerate(widths):
            if blocks[-1] and left + sum(2 + widths[k] for k in blocks[-1]) + 2 + needed > width:
                blocks.append([])
            blocks[-1].append(i)
        if any(left + 2 + needed > width for needed in widths) or len(blocks) == len(self.rows) > 1:
            return None
        return Group(*[part for block in blocks for part in ("", self._block(block, widths, left))][1:])

    def _block(self, rows: Sequence[int], widths: Sequence[int], left: int) -> Table:
        """Return some rows as the columns of a table."""
        table = _empty_table(show_header=False)
        table.add_column(width=left)
        for i in rows:
            table.add_column(width=widths[i], justify="right", overflow="fold")
        for k, name in enumerate(self.columns):
            cells = [Text(self.rows[i].cells[k], style=self.rows[i].style) for i in rows]
            table.add_row(Text(name), *cells, end_section=k + 1 == len(self.words))
        return table


@dataclass(frozen=True)
class _List:
    """The rows of a table as a list."""

    table: FittedTable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        named = len(self.table.words)
        for row in self.table.rows:
            yield Text(", ".join(filter(None, row.cells[:named])), style=row.style, overflow="fold")
            items = [
                f"{name}: {cell}" if name else cell
                for name, cell in zip(self.table.columns[named:], row.cells[named:], strict=True)
                if cell
            ]
            for line in _pack(items, options.max_width - 2):
                for part in Text(line, style=row.style, overflow="fold").wrap(console, options.max_width - 2):
                    part.rstrip()
                    yield Text("  ").append_text(part)


def _fits(table: Table, console: Console, options: ConsoleOptions) -> bool:
    return console.measure(table, options=options.update(width=NO_LIMIT)).maximum <= options.max_width


def _empty_table(show_header: bool) -> Table:
    # A rule below the headings and two spaces between columns: no line or column is spent on borders.
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), show_header=show_header)


def _pack(items: Sequence[str], width: int) -> list[str]:
    """Join texts with semicolons, as many on a line as fit."""
    lines: list[str] = []
    for item in items:
        if lines and cell_len(f"{lines[-1]}; {item}") <= width:
            lines[-1] += f"; {item}"
        else:
            lines.append(item)
    return lines
