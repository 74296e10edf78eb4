"""A table prints every column at 80 columns, and leaves its numbers as they are."""

from __future__ import annotations

import pandas as pd
import pytest

import rib
from rib.reporting.frame import WholeFrame


@pytest.fixture
def wide():
    return WholeFrame({f"column_{number}": [number / 3] for number in range(20)})


def test_no_column_is_hidden_and_numbers_keep_their_digits(wide, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert "..." in repr(pd.DataFrame(wide)), "pandas itself hides columns"
    for frame in (wide, wide.rename(columns=str), wide[list(wide)[:15]], wide.sort_values("column_1")):
        text = repr(frame)
        assert isinstance(frame, WholeFrame) and all(name in text for name in frame) and "..." not in text
        assert max(map(len, text.splitlines())) <= 80
        assert "column_14" in frame._repr_html_() and "0.33" in frame._repr_html_()
    assert "0.33" in repr(wide) and "0.333" not in repr(wide)
    assert wide.loc[0, "column_1"] == 1 / 3
    with pd.option_context("display.float_format", "{:.4f}".format):
        assert "0.3333" in repr(wide)


def test_the_tables_of_runs_fit_80_columns_in_one_block(toy):
    comparison = rib.compare(toy.ewc, toy.plain)
    for table in (toy.ewc.table(), comparison.table()):
        lines = repr(table).splitlines()
        assert len(lines) == len(table) + 2 and max(map(len, lines)) <= 80
    for table in (comparison.classes("imagenet_r"), rib.find_runs(runs=toy.root).table(), toy.ewc.images("imagenet_r")):
        assert all(name in repr(table) for name in table)
