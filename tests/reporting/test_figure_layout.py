"""Texts of every figure in one column, two columns and on screen: of 7 to 9 points, on the page, none on another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from rib.analysis import figures as analyses
from rib.reporting.comparison_panels import TALLEST, comparison_figure, comparison_figures
from rib.reporting.figures import search_figure
from rib.reporting.folded_text import fold, text_width
from rib.reporting.run_figures import change_figure, curve_figure, loss_figure
from rib.reporting.sized_figure import heights_of_rows
from rib.reporting.summary_panels import summary_figure
from rib.studies.against import Against
from rib.studies.cka import Shift
from rib.studies.controls import Controls
from rib.studies.errata import Errata
from rib.studies.scale import Map, Scale
from rib.studies.size import Size
from rib.studies.tradeoff import Tradeoff
from rib.sweeps.study import Study
from tests.support.drawings import (
    LONG,
    METHODS,
    MODELS,
    TARGETS,
    layers_table,
    metrics,
    overlapping_texts,
    paper_table,
    sizes,
    study_table,
    texts_outside,
)

Builder = Callable[[float | None], Figure]

WIDTHS = (3.3, 6.8, None)


def runs(methods: int, sources: int = 1, seeds: int = 2):
    return [
        metrics(method, model, source, seed)
        for method in METHODS[:methods]
        for model in MODELS
        for source in TARGETS[:sources]
        for seed in range(seeds)
    ]


def of(study: Study, table: pd.DataFrame, name: str) -> Builder:
    """The figure of a study, with the longest headline."""

    def draw(width: float | None) -> Figure:
        study.width = width
        study.note = ", toy data (mini), at most 100 images per dataset: a quick look, not a result"
        return study.figures(table)[name]

    return draw


def trials(width: float | None) -> Figure:
    rows = [
        {"optimizer.lr": 10.0**-k, "method.ewc.strength": 10.0**k, "held_out": 0.3 + 0.01 * k}
        | {"before": 0.3, "num_images": 26}
        for k in (1, 2, 3, 4)
    ]
    diverged = {"optimizer.lr": 0.5, "method.ewc.strength": 3.0}
    options = ["optimizer.lr", "method.ewc.strength"]
    return search_figure([*rows, diverged], options, f"{LONG}, ewc on mini R (toy data (mini))", width)


def effects(methods: int) -> pd.DataFrame:
    table = study_table(methods).groupby("curve", sort=False).first().reset_index()
    ends = {"difference": table["mri"], "difference_low": table["low"], "difference_high": table["high"]}
    return table.assign(switch="paper.resize_imagenet_c", p_holm=0.03, **ends)


def controls() -> pd.DataFrame:
    table = study_table(10, control=["shuffled labels", "finetune", "random start"], holds=[True, None, False])
    return table.groupby("curve", sort=False).first().reset_index()


ABOUT = {"dataset": "imagenet_val", "kind": "mini", "images": 240, "estimator": "minibatch"}
ABOUT |= {"run_label": f"{LONG}, ewc on imagenet_r, seed 0", "against_label": f"{LONG}, pretrained"}


def layers(blocks: int) -> pd.DataFrame:
    table = layers_table(blocks, 1, 1)[["layer", "cka", "cka_low", "cka_high", "note"]]
    return table.rename(columns={"cka_low": "low", "cka_high": "high"})


def heat(blocks: int) -> Builder:
    names = layers(blocks)["layer"].to_numpy(dtype=str)
    square = (len(names), len(names))
    values = np.linspace(0, 1, square[0] * square[1]).reshape(square)
    arrays = {"cka": values, "defined": values > 0.1, "one": names, "other": names}
    return lambda width: analyses.heat_figure(arrays, ABOUT, width)


def epochs(blocks: int) -> pd.DataFrame:
    return pd.concat([layers(blocks).assign(epoch=epoch) for epoch in range(1, 13)])


FEW: dict[str, Builder] = {
    "change": lambda width: change_figure(metrics(), width),
    "curve": lambda width: curve_figure(metrics("wise_ft"), width),
    "comparison": lambda width: comparison_figure(runs(3), width),
    "summary": lambda width: summary_figure(paper_table(5), width),
    "search": trials,
    "against": of(Against("optimizer.lr", "peak learning rate"), study_table(5), "against"),
    "size": of(Size(-1.0), study_table(3), "size"),
    "scale": of(Scale(), study_table(3), "scale"),
    "map": of(Map(), study_table(2), "map"),
    "controls": of(Controls(), controls(), "controls"),
    "errata": of(Errata(), effects(5), "errata"),
    "tradeoff": of(Tradeoff({}), study_table(5), "tradeoff"),
    "shift": of(Shift(), layers_table(4), "shift"),
    "layers": of(Shift(), layers_table(6), "layers"),
    "cka": lambda width: analyses.curve_figure([(layers(12), ABOUT)] * 2, width),
    "heat": heat(12),
    "epochs": lambda width: analyses.epochs_figure(epochs(4), ABOUT, width),
    "drift": lambda width: analyses.drift_figure(layers(12).assign(drift=0.1), ABOUT, width),
}
"""Every kind of figure, by name, with long names of models."""

MANY: dict[str, Builder] = {
    **{f"summary of {n}": lambda width, n=n: summary_figure(paper_table(n, 1), width) for n in (1, 23)},
    **{f"comparison of {n}": lambda width, n=n: comparison_figure(runs(n, 3, 1), width) for n in (1, 7)},
    **{
        f"against of {n}": of(Against("optimizer.lr", "peak learning rate"), study_table(n), "against") for n in (1, 23)
    },
    **{f"errata of {n}": of(Errata(), effects(n), "errata") for n in (1, 23)},
    **{f"tradeoff of {n}": of(Tradeoff({}), study_table(n), "tradeoff") for n in (1, 23)},
    **{f"shift of {n}": of(Shift(), layers_table(1, curves=n), "shift") for n in (1, 23)},
    **{f"layers of {n}": of(Shift(), layers_table(4, curves=n), "layers") for n in (1, 23)},
    "layers of a ConvNet": of(Shift(), layers_table(0), "layers"),
    "cka of a ConvNet": lambda width: analyses.curve_figure([(layers(0), ABOUT)], width),
    "heat of a ConvNet": heat(0),
    "heat of 24 blocks": heat(24),
    "epochs of 24 blocks": lambda width: analyses.epochs_figure(epochs(24), ABOUT, width),
    "drift of 24 blocks": lambda width: analyses.drift_figure(layers(24).assign(drift=0.1), ABOUT, width),
    "change of a pretrained model": lambda width: change_figure(metrics("pretrained", source="none"), width),
}
"""Figures of one method and of many, and of networks with many layers."""


def check(draw: Builder, width: float | None) -> None:
    figure = draw(width)
    figure.draw_without_rendering()  # a legend's texts have no place before
    assert width is None or figure.get_figwidth() == width
    assert texts_outside(figure) == []
    assert overlapping_texts(figure) == []
    assert min(sizes(figure)) >= 7
    assert max(sizes(figure)) <= 9
    assert min(heights_of_rows(figure)) > 0.4, "panels are flat"
    assert figure.caption.endswith("."), figure.caption


@pytest.mark.parametrize("name", FEW)
def test_no_text_leaves_the_page_or_covers_another_in_one_column(name):
    check(FEW[name], 3.3)


@pytest.mark.slow
@pytest.mark.parametrize("width", [6.8, None])
@pytest.mark.parametrize("name", FEW)
def test_no_text_leaves_the_page_or_covers_another_in_two_columns_and_on_screen(name, width):
    check(FEW[name], width)


@pytest.mark.parametrize("name", ["change", "curve", "summary"])
def test_without_a_headline_toy_data_are_still_named(name):
    def draw(width: float | None) -> Figure:
        figure = FEW[name](width)
        tall = figure.get_figheight()
        figure.drop_headline()
        assert figure.get_figheight() < tall
        assert figure.get_suptitle() == "toy data (mini)"
        return figure

    check(draw, 3.3)


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", FEW)
def test_no_text_covers_another_without_a_headline(name, width):
    def draw(width: float | None) -> Figure:
        figure = FEW[name](width)
        figure.drop_headline()
        return figure

    check(draw, width)


def test_a_panel_of_a_comparison_is_as_high_as_its_own_lines_need():
    few = [m for m in runs(7) if m["model"] != LONG or m["method"] == "finetune"]
    short, tall = sorted(heights_of_rows(comparison_figure(few, 3.3)))
    assert short < 0.5 * tall


@pytest.mark.slow
def test_a_comparison_taller_than_a_page_has_a_figure_for_each_model_and_source():
    assert list(comparison_figures(runs(2), 3.3)) == [""]
    by_model = comparison_figures(runs(2, 3), 3.3)
    assert list(by_model) == [f"-{model}" for model in sorted(MODELS)]
    by_source = comparison_figures(runs(7, 2, 4), 3.3)
    assert list(by_source) == [f"-{model}-{source}" for model in sorted(MODELS) for source in sorted(TARGETS[:2])]
    for figure in (*by_model.values(), *by_source.values()):
        assert figure.get_figheight() < TALLEST + 0.5


def test_a_method_has_one_colour_in_all_figures_of_a_comparison():
    parts = comparison_figures([m for m in runs(3, 2) if m["model"] != LONG or m["method"] == "ewc"], 3.3)
    (alone,) = parts[f"-{LONG}"].legends[0].get_lines()
    beside = dict(zip(("finetune", "ewc"), parts[f"-{MODELS[0]}"].legends[0].get_lines(), strict=False))
    assert alone.get_color() == beside["ewc"].get_color() != beside["finetune"].get_color()


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", MANY)
def test_no_text_leaves_the_page_or_covers_another_with_one_method_or_many(name, width):
    check(MANY[name], width)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_loss_curve_fits(tmp_path, width):
    log = tmp_path / "metrics.csv"
    log.write_text("step,loss,penalty/ewc\n" + "".join(f"{i},{3 - 0.01 * i},{0.001 * i}\n" for i in range(100)))
    check(lambda width: loss_figure([log], metrics(), width), width)


def test_these_tests_see_a_text_that_is_cut_and_one_that_covers_another():
    figure = FEW["change"](None)
    figure.suptitle(figure.get_suptitle().replace("\n", " ") * 2, x=0.01, ha="left")
    assert texts_outside(figure)
    figure = FEW["summary"](None)
    first = figure.axes[0]
    first.set_yticks(first.get_yticks(), [label.get_text() * 6 for label in first.get_yticklabels()])
    first.set_xticks(np.linspace(*first.get_xlim(), 60))
    assert overlapping_texts(figure)
    assert texts_outside(figure)


def test_text_is_folded_at_spaces_then_between_the_parts_of_a_name():
    assert fold("one two", 9.0, 8) == "one two"
    lines = fold(f"a {LONG}", 1.0, 8).split("\n")
    assert "".join(lines).replace(" ", "") == f"a{LONG}"
    assert all(text_width(line, 8) <= 1.0 for line in lines)
    assert lines[1].endswith(("_", ".", "-"))
    assert fold("x" * 100, 0.5, 8).replace("\n", "") == "x" * 100


def test_all_models_have_their_methods_in_one_order():
    figure = summary_figure(paper_table(5), None)
    order = [[label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes[::3]]
    assert order[0] == order[1]


def test_a_model_has_no_rows_of_methods_that_it_never_had():
    table = paper_table(5)
    table = replace(table, rows=[row for row in table.rows if row.model != LONG or row.method == "ewc"])
    figure = summary_figure(table, 3.3)
    names = [[label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes[::3]]
    assert sorted(map(len, names)) == [1, 5]
    short, tall = sorted(heights_of_rows(figure))
    assert short < 0.5 * tall


def test_rows_over_other_sources_stand_apart_in_the_order_of_the_table():
    table = paper_table(3, 1)
    high = replace(table.rows[0].over_images, value=90.0)
    over_one = {TARGETS[0]: 90.0}
    rows = [replace(table.rows[0], improvement=over_one, over_images=high), *table.rows[1:3]]
    external = replace(table.rows[1], method="external", options={"method.external.name": "own"}, seeds=(None,))
    figure = summary_figure(replace(table, rows=[*rows, external], num_runs=8))
    assert figure.axes[0].get_yticklabels()[0].get_text() == "finetune", "the highest mRI, but over one source"
    assert sum(line.get_linestyle() == "--" for line in figure.axes[0].lines) == 1
    assert "8 runs" in figure.caption and "4 methods on" in figure.caption and "A dashed line" in figure.caption
    title = " ".join(figure.axes[0].get_title(loc="left").split())
    assert title.endswith("3 of 6 sources, 1 to 3 per row, 1 seed")


def test_external_weights_count_as_a_method_but_not_as_a_seed():
    some = [metrics(f"{method}", MODELS[0], seed=seed) for method in METHODS[:1] for seed in (0, 1)]
    longer = {**some[0], "options": {"epochs": 2}}
    external = {**some[0], "method": "external", "options": {"method.external.name": "own"}, "seed": None}
    assert "3 runs of 1 method in 2 settings with 2 seeds;" in comparison_figure([*some, longer]).caption
    assert "3 runs of 2 methods with 2 seeds;" in comparison_figure([*some, external]).caption
    assert "1 run of 1 method; " in comparison_figure([external]).caption


def test_the_interval_over_two_seeds_does_not_set_the_scale():
    low, high = summary_figure(paper_table(5), None).axes[0].get_xlim()
    assert high - low < 45, "the interval over seeds alone is 120 wide"


def test_each_panel_of_a_comparison_has_its_own_scale():
    panels = runs(2, 1, 1)
    for m in panels:
        if m["model"] == MODELS[0]:
            for entry in (*m["accuracy"].values(), {"change": m["robustness_improvement"]}):
                entry["change"].update({key: entry["change"][key] / 50 for key in ("value", "low", "high")})
    one, other = (np.ptp(axes.get_xlim()) for axes in comparison_figure(panels).axes)
    assert one < other / 10
