"""Tables of a user's own suites: never two in one, their own names, and a head that says what it is from."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from rib.config.command_schema import ReportConfig
from rib.config.schema import PathsConfig
from rib.data import mini
from rib.data.catalog import real
from rib.data.worlds import logged_name, register_recorded, suffix_of, title_of
from rib.reporting.apart import explain_groups
from rib.reporting.comparability import group_comparable
from rib.reporting.heads import note_on_heads
from rib.reporting.paper_table import paper_table
from rib.reporting.remedies import remedies
from rib.reporting.reported_runs import runs_to_report
from rib.reporting.run_view import run_table
from rib.reporting.runs_table import comparison_table
from rib.reporting.shared_options import describe_shared, shared_options
from rib.reporting.source_table import MOST_COLUMNS
from rib.runs.store import RunStore
from tests.reporting.test_layout import render
from tests.support.suite_store import add_run, suite
from tests.support.tables import paper

STYLES = {f"style_{i}": f"Style number {i} of a long list" for i in range(20)}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Results on ImageNet, mini and two suites that have a domain of one name."""
    root = tmp_path_factory.mktemp("suites")
    pets = suite("pets", "Pets in four styles", {"photo": "Photographs", "web": "Web", "cut": "Cut-outs"}, 7, "web")
    art = suite("art", "Art", {"photo": "Photos", "paint": "Paintings", "draw": "Drawings"})
    for catalog in (pets, art):
        for source in ("photo", list(catalog.specs)[2]):
            add_run(root, catalog, source, gain=-0.2)
            add_run(root, catalog, source, "ewc", gain=0.1)
    for catalog in (real(), mini.catalog()):
        add_run(root, catalog, "imagenet_r", head=None)
    return RunStore(root)


def results(store):
    return [(run, m) for run in store.finished() for m in run.all_metrics() if m["source"] != "none"]


def test_each_suite_is_a_table_of_its_own_whose_headings_say_which(store):
    groups = group_comparable(results(store))
    kinds = [{m["data"]["kind"] for _, m in group.results} for group in groups]
    assert kinds == [{"user"}, {"art"}, {"pets"}, {"mini"}]
    tables = [paper_table(group.results, store) for group in groups]
    assert [re.sub(": .*", "", table.title) for table in tables] == [
        "Robustness improvement on user data, suite seven",
        "Robustness improvement on Art, suite art",
        "Robustness improvement on Pets in four styles, suite pets",
        "Robustness improvement on toy data (mini), suite seven",
    ]
    for group, table in zip(groups, tables, strict=True):
        shown = comparison_table([m for _, m in group.results])
        assert table.about.partition(",")[0] in shown.title
        assert [t.title for t in table.rich()][1].endswith(f"({table.about.partition(',')[0]})")


def test_a_suite_that_stands_apart_has_nothing_to_remedy(store):
    groups = group_comparable(results(store))
    assert explain_groups(groups)[:2] == [
        "4 runs on Art: results of two suites never share a table",
        "4 runs on Pets in four styles: results of two suites never share a table",
    ]
    art, pets, _ = remedies(groups)
    assert art.commands == pets.commands == ()
    assert art.lines == ["summary_2: 4 runs on Art: results of two suites never share a table"]


@pytest.mark.parametrize(("filters", "rows"), [({"suites": "pets"}, 4), ({"suites": ["art", "pets"]}, 8)])
def test_reports_select_suites_by_name(store, filters, rows):
    asked = ReportConfig(PathsConfig(str(store.root), None), {"name": "none"}, None, None)
    shown, selection = runs_to_report(replace(asked, **filters), store)
    assert len(shown) == rows
    assert selection.startswith(f"{rows} of 10 runs shown: suites=")


def test_the_accuracy_in_distribution_has_the_suites_name_or_no_column(store):
    tables = {t.kind: t for t in (paper_table(group.results, store) for group in group_comparable(results(store)))}
    assert {kind: table.columns[-1] for kind, table in tables.items()} == {
        "user": "val %",
        "mini": "val %",
        "pets": "Web %",
        "art": "sources",
    }
    assert "Web in percent, before > after." in tables["pets"].notes[0]
    assert tables["art"].notes[0].endswith("then over seeds.")
    assert tables["art"].frame()["val_after"].isna().all()
    runs = {
        group.results[0][1]["data"]["kind"]: [m for _, m in group.results] for group in group_comparable(results(store))
    }
    assert "Web %" in comparison_table(runs["pets"]).columns
    assert not {"val %", "Web %"} & {*comparison_table(runs["art"]).columns}


def test_a_suite_with_other_classes_than_before_is_another_table(tmp_path):
    domains = {"photo": "Photos", "paint": "Paintings", "draw": "Drawings"}

    def runs(catalog, source, **more):
        add_run(tmp_path / source, catalog, source, **more)
        return [(run, m) for run in RunStore(tmp_path / source).finished() for m in run.all_metrics() if m["before"]]

    seven, eight = (suite("art", "Art", domains, classes) for classes in (7, 8))
    groups = group_comparable([*runs(seven, "photo"), *runs(eight, "paint")])
    assert [line.partition(": ")[2] for line in explain_groups(groups)] == ["number of classes 8, not 7"]


def test_a_changed_domain_is_another_table_whatever_run_comes_first(tmp_path):
    art = suite("art", "Art", {"photo": "Photos", "paint": "Paintings", "draw": "Drawings"})
    before = [add_run(tmp_path, art, source, head=f"probe:{source}") for source in ("paint", "photo", "draw")]
    run, metrics = before[1]
    scores = {**metrics["scores"], "paint": {"key": "new", "images": "changed"}}
    again = (run, {**metrics, "scores": scores})
    assert explain_groups(group_comparable([*before, again])) == [
        "1 run cannot share the first table (of 3): different images of paint"
    ]
    for order in ([*before, again], [again, *before], [before[0], again, *before[1:]]):
        sizes = [len(group.results) for group in group_comparable(order)]
        assert sum(sizes) == 4, "none is dropped for another one"
        for group in group_comparable(order):
            assert len({m["scores"]["paint"]["images"] for _, m in group.results if m["source"] != "paint"}) == 1


def test_other_outputs_of_imagenet_for_the_classes_are_another_table(tmp_path):
    art = suite("art", "Art", {"photo": "Photos", "paint": "Paintings", "draw": "Drawings"})
    sources = ("photo", "paint", "draw")
    results = [
        add_run(tmp_path, art, s, model=f"vit_{s}", head=h)
        for s, h in zip(sources, ("zero_shot", "subset", "subset"), strict=True)
    ]
    for (_, metrics), first in zip(results[1:], (0, 1), strict=True):
        metrics["data"]["suite"]["outputs"] = [[first + i] for i in range(7)]
    groups = group_comparable(results)
    assert [len(group.results) for group in groups] == [2, 1]
    assert explain_groups(groups)[0].endswith("other outputs for the classes (imagenet: in the suite's file)")
    results[2][1]["data"]["suite"]["outputs"] = results[1][1]["data"]["suite"]["outputs"]
    assert len(group_comparable(results)) == 1


def test_one_probe_per_source_never_shares_a_table_with_one_start_for_all(tmp_path):
    art = suite("art", "Art", {"photo": "Photos", "paint": "Paintings", "draw": "Drawings"})
    probes = [add_run(tmp_path, art, s, m, head=f"probe:{s}") for s in ("photo", "paint") for m in ("finetune", "ewc")]
    others = [add_run(tmp_path, art, s, head=h) for s, h in (("photo", "zero_shot"), ("paint", "reference:draw"))]
    groups = group_comparable([*probes, *others])
    assert [len(group.results) for group in groups] == [4, 2]
    (line,) = explain_groups(groups)
    assert line.endswith("cannot share the first table (of 4): head one for all sources, not one for each source")
    # All sources of a method are one row, though the starts differ; each change is against its own.
    table = paper_table(groups[0].results, RunStore(tmp_path))
    starts = {m["before"] for _, m in probes}
    assert len(starts) == 2
    assert [(row.method, sorted(row.improvement)) for row in table.rows] == [
        (name, ["paint", "photo"]) for name in (table.rows[0].method, table.rows[1].method)
    ]
    values = {(m["source"], m["method"]): m["robustness_improvement"]["value"] for _, m in probes}
    for row in table.rows:
        assert row.over_images.value == pytest.approx(sum(values[s, row.method] for s in ("photo", "paint")) / 2)
    assert any("trained on a part of each source's images" in note for note in table.notes)
    assert all(row.against_plain is not None for row in table.rows if row.method == "ewc")


def test_two_backbones_of_one_name_are_no_row_of_a_probe(tmp_path):
    art = suite("art", "Art", {"photo": "Photos", "paint": "Paintings"})
    one, other = (add_run(tmp_path, art, "photo", head="probe:photo", seed=seed) for seed in (0, 1))
    other[1]["before"] = "0" * 16
    assert len(group_comparable([one, other])) == 2


def test_the_note_on_heads_says_which_and_from_which_images(tmp_path):
    art = suite("art", "Art", {"photo": "Photos", "paint": "Paintings", "draw": "Drawings"})
    heads = {"clip": "zero_shot", "vit": "subset", "dino": "reference:draw"}
    made = {model: add_run(tmp_path, art, "photo", model=model, head=head)[1] for model, head in heads.items()}
    own = add_run(tmp_path, art, "photo", model="own", head=None)[1]
    assert note_on_heads([own]) == ""
    assert note_on_heads([made["dino"]]).startswith("Head: linear probe trained on Drawings, which is neither")
    note = note_on_heads([*made.values(), own])
    assert "Head of clip: zero-shot" in note
    assert note.endswith("Head of own: its own.")
    assert any("Drawings" in note for note in run_table(made["dino"]).notes)


def test_many_sources_are_lines_of_a_table_of_their_own():
    suite("things", "Things", STYLES, 65)
    table = paper("things", tuple(STYLES))
    assert len(STYLES) > MOST_COLUMNS
    main, by_source, _ = table.rich()
    assert main.title.endswith(": 72 runs on 20 sources")
    assert [row.cells[0] for row in by_source.rows] == list(STYLES.values())
    for width in (40, 60, 80, 120, 200):
        text = render(by_source, width)
        assert max(map(len, text.splitlines())) <= width
        assert all(cell in text for row in by_source.rows for cell in row.cells[1:])
    numbers = [row.cells[1] for row in by_source.rows]
    assert table.markdown().count("| Style number 7 of a long list |") == 1
    assert all(number in table.markdown() for number in numbers)
    assert table.latex().count(r"\begin{tabular}") == 2
    assert set(table.frame().columns) >= {f"ri.{name}" for name in STYLES}


def test_names_in_dashboards_tell_suites_apart():
    suite("pets", "Pets in four styles", {"photo": "Photographs"})
    assert [logged_name("photo", kind) for kind in ("pets", "art")] == ["pets photo", "art photo"]
    assert logged_name("imagenet_r", "user") == "imagenet_r"
    assert logged_name("imagenet_r", "mini") == "mini R"
    assert [suffix_of(kind) for kind in ("pets", "user", "mini")] == [
        " (Pets in four styles)",
        "",
        " (toy data (mini))",
    ]


def test_a_store_explains_its_suites_without_their_files(tmp_path):
    _, metrics = add_run(tmp_path, suite("told", "Told", {"a": "The first", "b": "The second"}), "a")
    register_recorded("retold", metrics["data"]["suite"])
    assert title_of("b", "retold") == "The second"


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ([({"epochs": 1}, False), ({"epochs": 1, "lr": 2}, False)], "All with epochs=1"),
        ([({"epochs": 1}, False), ({"epochs": 1}, True)], "All with epochs=1"),
        ([({"epochs": 1}, False), ({"epochs": 2}, True)], "All but external weights with epochs=1"),
        ([({"epochs": 1}, False), ({}, True)], "All but external weights with epochs=1"),
        ([({"epochs": 1}, False), ({"epochs": 2}, False)], ""),
        ([({"epochs": 1}, True), ({"epochs": 1}, True)], "All with epochs=1"),
    ],
)
def test_what_all_share_is_said_of_all_that_have_it(runs, said):
    assert describe_shared(shared_options(runs), runs) == said
