"""Figures that compare runs: accuracy changes on every target by method, a panel per model and source."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from rib.data.worlds import place_of, title_of
from rib.reporting.captions import COMPARISON, OVER_IMAGES, counted, images_of, methods_in_settings, with_seeds
from rib.reporting.folded_text import fold
from rib.reporting.formatting import world
from rib.reporting.sized_figure import LABEL, SizedFigure, name_rows, tidy
from rib.reporting.style import NEUTRAL, style
from rib.reporting.summary import PLAIN, label_with_options, own_name
from rib.runs.metrics_file import improvement_of
from rib.schemas.metrics import Metrics

NARROWEST = 2.1
"""Least width of a panel with its labels, inches."""

TALLEST = 9.0
"""Height of a page, inches."""

AROUND, BETWEEN = 1.3, 0.45
"""Inches that a headline, a legend and the last axis take, and those between two rows of panels; roughly."""


def comparison_figures(runs: Sequence[Metrics], width: float | None = None) -> dict[str, SizedFigure]:
    """Plot the comparison of runs as one figure, or as several where one would be taller than a page.

    Args:
        runs: As for `comparison_figure`.
        width: Inches; None: 1.6 and 3 for each of up to three panels beside one another.

    Returns:
        Figures by the end of their files' names: ``""`` for one figure of all runs, else ``-MODEL``, or where that
        is still too tall ``-MODEL-SOURCE``. A method has the same colour in all.
    """
    trained = [m for m in runs if m["source"] != "none" and improvement_of(m)]
    return {
        "".join(f"-{name.replace('/', '_')}" for name in part): comparison_figure(some, width, trained)
        for part, some in _pages(trained, width).items()
    }


def _pages(runs: Sequence[Metrics], width: float | None) -> dict[tuple[str, ...], list[Metrics]]:
    """Divide runs among figures of at most a page, by model, then by source; the keys are their names."""
    pages: dict[tuple[str, ...], list[Metrics]] = {(): list(runs)}
    for field in ("model", "source"):
        divided: dict[tuple[str, ...], list[Metrics]] = {}
        for name, some in pages.items():
            if _height(some, width) <= TALLEST:
                divided[name] = some
                continue
            kinds = {str(m[field]): m["data"]["kind"] for m in some}
            for value in sorted(kinds, key=lambda value: place_of(value, kinds[value])):
                divided[*name, value] = [m for m in some if m[field] == value]
        pages = divided
    return pages


def _height(runs: Sequence[Metrics], width: float | None) -> float:
    """Estimate the height in inches of a comparison of runs, without drawing it."""
    panels = _panels(runs)
    columns = _columns(len(panels), width)
    heights = _heights_of_rows([_lines_height(members) for members in panels.values()], columns)
    return sum(heights) + BETWEEN * len(heights) + AROUND


def _panels(runs: Sequence[Metrics]) -> dict[tuple[str, str], list[Metrics]]:
    """Return the runs of each panel, by source and model."""
    places = {place_of(m["source"], m["data"]["kind"]): m["source"] for m in runs}
    models = sorted({m["model"] for m in runs})
    known = {(m["source"], m["model"]) for m in runs}
    names = [(source, model) for _, source in sorted(places.items()) for model in models if (source, model) in known]
    return {name: [m for m in runs if (m["source"], m["model"]) == name] for name in names}


def _columns(panels: int, width: float | None) -> int:
    """Return how many panels stand beside one another."""
    columns = min(panels, 3)
    return columns if width is None else max(1, min(columns, int(width / NARROWEST)))


def _heights_of_rows(panels: Sequence[float], columns: int) -> list[float]:
    """Return the height of each row of panels: that of its highest one."""
    return [max(panels[start : start + columns]) for start in range(0, len(panels), columns)]


def comparison_figure(
    runs: Sequence[Metrics], width: float | None = None, among: Sequence[Metrics] | None = None
) -> SizedFigure:
    """Plot the accuracy change on each target, and RI, by method; one panel per model and source, one line per run.

    Each panel has its own scale: changes of a small and a large model differ by an order of magnitude.

    Args:
        runs: Metrics of fine-tuned runs, of at most as many methods as there are colours (`rib.reporting.style`).
        width: Inches; None: 1.6 and 3 for each of up to three panels beside one another.
        among: Runs of all figures that share the names and colours of methods; None: ``runs``.

    Returns:
        The figure; changes in percentage points, RI as the top row of each panel.
    """
    trained = [m for m in runs if m["source"] != "none" and improvement_of(m)]
    family = trained if among is None else among
    name_of = partial(_name, shared=_shared_options(family))
    # Plain fine-tuning first, then by name: the same colours whatever order the runs come in.
    methods = sorted({name_of(m) for m in family}, key=lambda name: (not name.startswith(PLAIN), name))
    drawn = {name_of(m) for m in trained}
    looks = {method: style(number) for number, method in enumerate(methods) if method in drawn}
    kind, panels = trained[0]["data"]["kind"], _panels(trained)
    columns = _columns(len(panels), width)
    figure = SizedFigure(1.6 + 3.0 * columns, width)
    grid = figure.subplots(-(-len(panels) // columns), columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    # A source is no target of its own run: only panels of one source have the same rows, and can share their labels.
    shared = len({m["source"] for m in trained}) == 1
    heights = []
    for number, (axes, (source, model)) in enumerate(zip(grid.flat, panels, strict=False)):
        members = panels[source, model]
        room = (0.27 if columns == 1 else 0.4 / columns) * figure.inches
        heights.append(_draw_panel(axes, members, looks, name_of, room))
        over = (0.72 if columns == 1 else 0.58) * figure.inches / columns
        axes.set_title(fold(f"{model} on {title_of(source, kind)}", over, LABEL), fontsize=LABEL, loc="left")
        if number // columns == (len(panels) - 1) // columns or number + columns >= len(panels):
            axes.set_xlabel("change, points", fontsize=LABEL)
        if shared and number % columns:
            axes.tick_params(labelleft=False)
    seeds = len({m["seed"] for m in trained} - {None})  # external weights have None
    methods_drawn = len({own_name(m["method"], m["options"]) for m in trained})
    per_seed = f", a line for each of {seeds} seeds" if seeds > 1 else ""
    figure.headline(f"Change in accuracy, 95 % over images{per_seed}; {world(trained[0])}")
    handles = [Line2D([], [], lw=1.2, ms=4, color=look["color"], marker=look["marker"]) for look in looks.values()]
    figure.legend_below(handles, list(looks))
    models = list(dict.fromkeys(model for _, model in panels))
    sources = [title_of(source, kind) for source in dict.fromkeys(source for source, _ in panels)]
    figure.caption = (
        f"{COMPARISON} by fine-tuning, on each target and as their mean, the robustness improvement (RI), in "
        f"percentage points. {'Each panel is one model and source and has its own scale. ' if len(panels) > 1 else ''}"
        f"{', '.join(models)} fine-tuned on {', '.join(sources)}; {counted([len(trained)], 'run')} of "
        f"{methods_in_settings(methods_drawn, len(looks))}{with_seeds([seeds])}; {world(trained[0])}; "
        f"{_most_images(trained)}. Each line is one run: the marker "
        f"is the change, the ends are its 95 % interval over images. {OVER_IMAGES}."
    )
    rows = _heights_of_rows(heights, columns)
    grid[0, 0].get_gridspec().set_height_ratios(rows)
    return figure.fit(sum(rows))


def _most_images(runs: Sequence[Metrics]) -> str:
    """Return the numbers of images of all datasets that any of the runs has as a target."""
    targets = dict.fromkeys(name for m in runs for name in improvement_of(m)["targets"])
    accuracy = {name: entry for m in runs for name, entry in m["accuracy"].items() if name in targets}
    return images_of({**runs[0], "accuracy": accuracy})


def _shared_options(runs: Sequence[Metrics]) -> set[str]:
    """Return the names of the options that all runs have with the same value, which need not be in their names."""
    first = runs[0]["options"]
    return {key for key, value in first.items() if all(m["options"].get(key, ...) == value for m in runs)}


def _name(metrics: Metrics, shared: Collection[str]) -> str:
    options = {key: value for key, value in metrics["options"].items() if key not in shared}
    return label_with_options(metrics["method"], options)


def _draw_panel(
    axes: Axes,
    runs: Sequence[Metrics],
    looks: Mapping[str, dict[str, str]],
    name_of: Callable[[Metrics], str],
    room: float,
) -> float:
    """Draw a panel of `comparison_figure`: accuracy changes on targets, and RI, of the runs of one model and source.

    Args:
        axes: Axes to draw on.
        runs: Metrics of the runs.
        looks: Colour and marker of each method.
        name_of: Names a run's method, one of ``looks``.
        room: Inches that the labels of rows may take.

    Returns:
        Height in inches that the panel needs.
    """
    kind, own = runs[0]["data"]["kind"], {name_of(m) for m in runs}
    methods = [method for method in looks if method in own]
    targets = _targets(runs)
    seeds = sorted({m["seed"] for m in runs}, key=str)  # external weights have None, which does not sort
    for m in runs:
        # A row is 1 high; its lines share the middle 0.7, by method and then by seed, so that none covers another.
        slot = methods.index(name_of(m)) + (seeds.index(m["seed"]) + 0.5) / len(seeds)
        shift = 0.7 * (slot / len(methods) - 0.5)
        values = [m["accuracy"][n]["change"] for n in reversed(targets)] + [improvement_of(m)]
        look = looks[name_of(m)]
        for row, value in enumerate(values):
            axes.plot([value["low"], value["high"]], [row - shift] * 2, color=look["color"], lw=1.2)
            axes.plot(value["value"], row - shift, ms=3.5, **look)  # type: ignore[arg-type]
    axes.axvline(0, color="black", lw=0.8)
    axes.axhline(len(targets) - 0.5, color=NEUTRAL, lw=0.6)
    row_height = name_rows(axes, [*(title_of(n, kind) for n in reversed(targets)), "RI"], room)
    axes.get_yticklabels()[-1].set_fontweight("bold")
    tidy(axes, "x")
    return max(row_height * (len(targets) + 1), _lines_height(runs))


def _targets(runs: Sequence[Metrics]) -> list[str]:
    """Return the targets of the runs of one model and source."""
    return [n for n in runs[0]["accuracy"] if n in improvement_of(runs[0])["targets"]]


def _lines_height(runs: Sequence[Metrics]) -> float:
    """Return the height in inches of the panel of the runs of one model and source; no panel is taller than a page."""
    methods = len({(m["method"], str(m["options"])) for m in runs})
    lines = methods * len({m["seed"] for m in runs})
    return min(max(0.2, 0.08 + 0.055 * lines) * (len(_targets(runs)) + 1), TALLEST - AROUND - BETWEEN)
