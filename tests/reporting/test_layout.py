"""Tables at every width: each number is there, nothing is cut, no line is too long."""

from __future__ import annotations

import io
import re
from collections import Counter

import pytest
from rich.console import Console

from rib.data.worlds import shortened
from rib.reporting import layout
from rib.reporting.layout import FittedTable, output
from rib.reporting.run_view import run_table
from tests.support.tables import metrics, tables

WIDTHS = (40, 60, 80, 120, 200)
NUMBER = re.compile(r"[+-]?\d+(?:,\d{3})*(?:\.\d+)?")
NAMES = (
    *("run", "runs", "paper", "cost", "plan", "status", "trials"),
    *("jobs", "ingredients", "curve", "published", "check"),
)


def render(table: FittedTable, width: int) -> str:
    file = io.StringIO()
    Console(file=file, width=width, color_system=None).print(table)
    return file.getvalue()


def number_columns(table: FittedTable) -> dict[str, list[str]]:
    """Return the numeric columns by heading; of a column that is constant, and so may be left out, one entry."""
    start, columns = len(table.words), list(zip(*(row.cells for row in table.rows), strict=True))
    numeric = zip(table.numbers, columns[start : start + len(table.numbers)], strict=True)
    return {name: list(cells if len(set(cells)) > 1 else cells[:1]) for name, cells in numeric}


def test_every_table_is_rendered():
    assert list(tables()) == list(NAMES)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NAMES)
def test_no_number_is_cut_and_no_line_too_long(name, width):
    table = tables()[name]
    text = render(table, width)
    assert "…" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    columns = number_columns(table)
    if left_out := re.search("No room here for (.*?): see (.*?[.]csv)[.]", " ".join(text.split())):
        assert left_out[2] == table.file  # which has them
        spared = {shortened(heading) for names in table.optional for heading in names}
        assert set(left_out[1].split(", ")) <= spared
        columns = {k: v for k, v in columns.items() if shortened(k) not in left_out[1].split(", ")}
    expected = Counter(number for cells in columns.values() for cell in cells for number in NUMBER.findall(cell))
    assert not expected - Counter(NUMBER.findall(text))
    for heading, cells in columns.items():
        assert not any(cells) or all(word in text for word in shortened(heading).split())


@pytest.mark.parametrize("name", NAMES)
def test_in_a_pipe_every_row_is_one_whole_line_without_colour(name, capsys):
    table = tables()[name]
    output().print(table)
    lines = capsys.readouterr().out.splitlines()
    assert "\x1b" not in "".join(lines)
    for row in table.rows:
        assert any(all(cell in line for cell in row.cells) for line in lines), row
    assert all(column in "\n".join(lines) for column in table.columns)


@pytest.mark.parametrize("kind", ["mini", "user"])
def test_a_run_is_one_table_of_fifteen_lines(kind):
    text = render(run_table(metrics(kind)), 80)
    assert len(text.partition("Changes in")[0].splitlines()) <= 15
    assert ("toy data (mini)" in " ".join(text.split())) == (kind == "mini")
    assert ("mini R (source)" if kind == "mini" else "ImageNet-R (source)") in text
    assert "RI, 4 unrelated targets" in text


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("plan", "status", "trials", "check", "published")])
def test_every_table_of_results_on_toy_data_says_so(name):
    text = render(tables("mini")[name], 200)
    assert "toy data (mini)" in text.split("──")[0]
    assert not re.search("ImageNet-|ObjectNet (?!val)", text.replace("mini ObjectNet", ""))


def test_a_row_equal_to_another_is_left_out():
    one = metrics()
    one["robustness_improvement"]["without_derived"] = dict(one["robustness_improvement"])
    text = render(run_table(one), 120)
    assert "RI, 6 targets" in text
    assert "nrelated" not in text


def table(words=("source", "model"), rows=((("ImageNet-R", "m"), "1.25", "7"), (("ImageNet-A", "m"), "2.50", "7"))):
    made = FittedTable("of ImageNet-R", words, ("change in points", "seed"))
    for names, *cells in rows:
        made.add_row(*names, *cells)
    return made


FULL = """\
of ImageNet-R
source      model  change in points  seed
─────────────────────────────────────────
ImageNet-R  m                  1.25     7
ImageNet-A  m                  2.50     7"""

DROPPED = """\
of ImageNet-R
same in every row: model m, seed 7
source      change in points
────────────────────────────
ImageNet-R              1.25
ImageNet-A              2.50"""

WORDS = """\
of ImageNet-R
same in every row: model m
source      change in points  seed
──────────────────────────────────
ImageNet-R              1.25     7
ImageNet-A              2.50     7"""

SHORT = """\
of R
same in every row: model m, seed 7
source  change in points
────────────────────────
R                   1.25
A                   2.50"""

FOLDED = """\
of R
same in every row: model m, seed 7
           change in
source        points
────────────────────
R               1.25
A               2.50"""

LIST = """\
of R
same in
every row:
model m,
seed 7
R
  change
  in
  points:
  1.25
A
  change
  in
  points:
  2.50"""

UPRIGHT = """\
x             row

aaaaaaaaaaaa  1.5
bbbbbbbbbbbb  2.5
cccccccccccc  3.5"""


FORMS = ((41, FULL), (40, WORDS), (34, WORDS), (33, DROPPED), (28, DROPPED), (27, SHORT), (23, FOLDED), (20, FOLDED))


@pytest.mark.parametrize(("width", "text"), [*FORMS, (10, LIST)])
def test_the_forms_come_in_their_order(width, text):
    lines = [line.rstrip() for line in render(table(), width).splitlines()]
    expected = text.splitlines()
    if text in (DROPPED, SHORT, FOLDED):  # the line on constant columns may be longer than the table is wide
        end = next(i for i, line in enumerate(lines) if line.lstrip().startswith(("source", "change in")))
        lines[1:end] = [" ".join(lines[1:end])]
    if text == FOLDED:  # as wide as there is room
        lines, expected = ([" ".join(line.split()) for line in some if "─" not in line] for some in (lines, expected))
    assert lines == expected


def test_few_rows_of_many_columns_stand_upright():
    wide = FittedTable("", ("x",), ("a" * 12, "b" * 12, "c" * 12))
    wide.add_row("row", "1.5", "2.5", "3.5")
    assert [line.rstrip() for line in render(wide, 30).splitlines()] == UPRIGHT.splitlines()


def many_rows():
    made = FittedTable("", ("method",), ("mRI", "A", "R"), optional=(("A", "R"),), file="all.csv")
    for i in range(19):
        made.add_row(f"method{i}", f"{i}.5", f"{i}.{i}123456", f"{i}.{i}234567")
    return made


def test_columns_are_left_out_before_a_table_turns_upright_and_the_file_that_has_them_is_named():
    lines = render(many_rows(), 30).splitlines()
    assert [line.split() for line in lines[2:21]] == [[f"method{i}", f"{i}.5"] for i in range(19)]
    assert " ".join(" ".join(lines[21:]).split()) == "No room here for A, R: see all.csv."
    assert "No room" not in render(many_rows(), 60)


@pytest.mark.parametrize("name", ["runs", "paper"])
def test_at_80_columns_a_run_is_a_row(name):
    table = tables()[name]
    number = table.columns.index({"runs": "RI, points", "paper": "mRI [images]"}[name])
    lines = render(table, 80).splitlines()
    assert all(any(row.cells[number] in line for line in lines) for row in table.rows)
    assert any(line.startswith("model ") for line in lines)


def test_brackets_are_no_markup_and_one_row_has_no_constants():
    made = FittedTable("t [bold]", ("a",), ("[95 %]",))
    made.add_row("[red]", "[1, 2]")
    text = render(made, 80)
    assert "[red]" in text and "[1, 2]" in text and "[95 %]" in text and "same in" not in text


def test_a_notebook_is_neither_a_terminal_nor_a_pipe(monkeypatch):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert output().width == layout.NOTEBOOK
