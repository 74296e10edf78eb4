"""Bold type within one model and recipe only, with ties; the order of rows; external weights in a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import nan
from typing import Any

import pytest

from rib.errors import RibError
from rib.metrics import Interval
from rib.metrics.comparison import PairedTest
from rib.reporting.axes import setting_axes
from rib.reporting.bold import best_rows, note_on_bold
from rib.reporting.paper_table import VALUES, PaperTable
from rib.reporting.sorting import parse_order
from rib.reporting.summary import Summary
from rib.reporting.table_notes import by_sources, full_name, untested

USUAL = {"epochs": 5, "batch_size": 64, "batch_norm": "update", "optimizer.lr": 0.005, "data.holdout": 0.0}


def row(method: str, mri: float, model: str = "net", lr: float = 0.005, **fields: Any) -> Summary:
    """A row on one source; options are given by dotted name."""
    options = fields.pop("options", {})
    usual = dict.fromkeys(USUAL) if method == "external" else {**USUAL, "optimizer.lr": lr}
    values: dict[str, Any] = {
        "model": model,
        "method": method,
        "options": options,
        "settings": {**usual, **options},
        "improvement": {"imagenet_r": mri},
        "seeds": (0,),
        "over_images": Interval(mri, mri - 1, mri + 1, "images"),
        "over_seeds": None,
        "against_plain": None,
        "p_adjusted": nan,
        "val_before": 0.5,
        "val_after": 0.4,
        "source_before": 0.3,
        "source_after": 0.6,
        "images_trained": 9.0,
        "images_scored": 9.0,
        "seconds": 1.0,
        "devices": (),
        "made_from": 0,
        "is_trial": False,
    }
    return Summary(**{**values, **fields})


def table(*rows: Summary) -> PaperTable:
    sources = ("imagenet_r",)
    return PaperTable(rows, setting_axes(rows), {}, sources, sources, "mini", "seven", "toy data", len(rows))


def bold(*rows: Summary) -> list[int]:
    return sorted(best_rows(rows, 1))


TEN = {"epochs": 10}
RATE = {"optimizer.lr": 0.1}


@pytest.mark.parametrize(
    ("rows", "indices"),
    [
        ((row("ewc", 2), row("finetune", 1)), [0]),
        ((row("finetune", 1), row("ewc", 2)), [1]),
        ((row("ewc", 1.004), row("lwf", 0.996), row("finetune", 0.99)), [0, 1]),
        ((row("ewc", 2), row("finetune", 1), row("ewc", 5, "other"), row("finetune", 3, "other")), [0, 2]),
        ((row("ewc", 2),), []),
        # Another recipe wins nothing from this one, and nothing alone.
        ((row("ewc", 9, options=TEN), row("lwf", 2), row("finetune", 1)), [1]),
        ((row("ewc", 9, options=TEN), row("finetune", 1)), []),
        ((row("ewc", 9, options=TEN), row("finetune", 8, options=TEN), row("ewc", 2), row("finetune", 3)), [0, 3]),
        ((row("ewc", 9, lr=0.1, options=RATE), row("finetune", 1)), []),
        ((row("ewc", 9, options={"data.augment": "flip"}), row("finetune", 1)), []),
        # A visual prompt's own learning rate is part of the method.
        ((row("visual_prompt", 9, lr=40), row("finetune", 1)), [0]),
        ((row("visual_prompt", 9, lr=0.1, options=RATE), row("finetune", 1)), []),
        # Of several settings of a method only the default one counts.
        ((row("ewc", 9, options={"method.ewc.strength": 9.0}), row("ewc", 2), row("finetune", 1)), [1]),
        ((row("ewc", 9, options={"method.ewc.strength": 9.0}), row("finetune", 1)), [0]),
        ((row("ewc", 9, is_trial=True), row("lwf", 2), row("finetune", 1)), [1]),
        ((row("external", 9), row("lwf", 2), row("finetune", 1)), [1]),
        ((row("ewc", 9, improvement={}), row("lwf", 2), row("finetune", 1)), [1]),
    ],
)
def test_the_best_of_a_model_and_recipe_is_bold(rows: Sequence[Summary], indices: list[int]):
    assert bold(*rows) == indices


def test_markdown_and_latex_print_the_same_rows_bold():
    shown = table(row("ewc", 9, options=TEN), row("lwf", 2), row("finetune", 2), row("spd", 1))
    marked = [i for i, line in enumerate(shown.markdown().splitlines()[4:8]) if "**" in line]
    body = [line for line in shown.latex().splitlines() if " & " in line][1:]
    assert marked == [i for i, line in enumerate(body) if r"\textbf" in line] == sorted(shown.best) == [1, 2]
    assert "Bold: best mRI of a model among rows with the same recipe." in shown.notes


def test_why_nothing_is_bold_is_said():
    own = row("finetune", 1)
    assert note_on_bold([own], ()) == ""
    assert note_on_bold([own, row("external", 2)], ()) == (
        "Nothing is bold. External weights cannot be bold: how they were trained is unknown."
    )


def test_external_weights_go_by_their_name_and_make_no_columns():
    mine = row("external", 2, options={"method.external.name": "mine"})
    one = table(mine, row("finetune", 1))
    assert one.axes == ()
    assert one.cells(mine)[:2] == ["net", "mine (external)"]
    several = table(mine, row("finetune", 1), row("finetune", 3, options=TEN))
    assert several.cells(mine)[:3] == ["net", "mine (external)", "unknown"]
    assert one.title == "Robustness improvement on toy data: 2 runs on mini R"


def test_what_all_rows_share_is_not_said_of_external_weights():
    rows = (row("external", 2), row("finetune", 1, options=TEN))
    shown = PaperTable(rows, (), TEN, ("imagenet_r",), ("imagenet_r",), "mini", "seven", "toy data", 2)
    assert shown.shared == "All but external weights with epochs=10"


@pytest.mark.parametrize(
    ("sort", "methods"),
    [
        ("mRI", "abc"),
        ("RI", "abc"),
        ("-mRI", "cba"),
        ("mri desc", "cba"),
        ("mRI asc", "abc"),
        ("source accuracy", "bac"),
        ("-source %", "abc"),
        ("val", "cab"),
        ("-seconds", "acb"),
        ("method desc", "cba"),
        ("model", "cab"),
    ],
)
def test_rows_are_sorted_by_any_column_and_those_without_a_number_come_last(sort: str, methods: str):
    rows = [
        row("b", 2, "net", source_after=0.1, val_after=nan, seconds=1.0),
        row("a", 1, "net", source_after=0.2, val_after=0.3, seconds=3.0),
        row("c", 3, "another", source_after=nan, val_after=0.1, seconds=2.0),
    ]
    order = parse_order(sort)
    assert order is not None
    found = "".join(r.method for r in order.sort(rows, VALUES))
    assert found == {"model": "cba"}.get(sort, methods)


def test_a_column_that_does_not_exist_names_the_nearest():
    assert parse_order(None) is None
    with pytest.raises(RibError, match=r"sort: expected one of mRI, source, .*, got secnds; did you mean seconds\?"):
        parse_order("secnds")


def on(sources: tuple[str, ...], method: str, value: float) -> Summary:
    return replace(row(method, value), improvement=dict.fromkeys(sources, value))


def test_rows_of_one_set_of_sources_stand_together_and_the_largest_set_comes_first():
    rows = [on(("a",), "ewc", 9), on(("a", "r"), "lwf", 5), on(("r",), "ldifs", 4), on(("a",), "finetune", 1)]
    ordered = by_sources(rows, ("a", "r"))
    assert [(r.method, tuple(r.improvement)) for r in ordered] == [
        ("lwf", ("a", "r")),
        ("ewc", ("a",)),
        ("finetune", ("a",)),
        ("ldifs", ("r",)),
    ]


def test_a_row_without_a_test_is_named():
    tested = replace(row("ewc", 2), against_plain=PairedTest(1.0, 0.5, 0.05), p_adjusted=0.2)
    rows = [tested, row("lwf", 1), row("finetune", 0)]
    assert [r.method for r in untested(rows)] == ["lwf"]
    assert not untested(rows[:2])


def test_the_notes_say_what_is_missing_or_not_compared():
    tested = replace(row("ewc", 2), against_plain=PairedTest(1.0, 0.5, 0.05), p_adjusted=0.2)
    one = table(tested, row("lwf", 1), row("finetune", 0))
    assert "One source, mini R: mRI is the RI on it." in one.notes
    assert "Not compared with finetune, which has no run with their settings, source and seed: lwf." in one.notes
    assert any("Holm over 1 comparison at" in note for note in one.notes)
    assert "mini R" not in one.columns
    sources = ("imagenet_a", "imagenet_r")
    two = replace(one, rows=[on(sources, "lwf", 5), on(sources[1:], "ewc", 9)], sources=sources, asked=sources)
    assert any("compare only rows with the same ones" in note for note in two.notes)
    assert "mini R" in two.columns
    assert r"\midrule" in two.latex().partition("ewc")[0].partition("lwf")[2]


def test_rows_of_one_method_are_named_with_the_settings_that_tell_them_apart():
    short = row("lwf", 1, options={"epochs": 2})
    one = table(row("finetune", 0, options={"epochs": 2}), short, row("lwf", 3), row("own", 2))
    names = [full_name(one, each) for each in one.rows]
    assert names == ["finetune epochs=2", "lwf epochs=2", "lwf epochs=5", "own"]
    assert any(note.endswith("source and seed: lwf epochs=2, lwf epochs=5, own.") for note in one.notes)
    assert "mRI/net/lwf/value" in one.numbers  # names on a dashboard stay
