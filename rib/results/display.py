"""HTML and pictures that notebooks show for runs, lists of runs and comparisons; nothing is loaded from a network."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from functools import partial
from html import escape
from typing import TYPE_CHECKING

from rib.data.worlds import title_of
from rib.reporting.data_warning import warning_after
from rib.reporting.formatting import cost_line, with_interval, world_and_suite
from rib.runs.spec import PRETRAINED
from rib.runtime.counting import plural
from rib.schemas.metrics import Metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def page(title: str, lines: Iterable[str], columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a compact HTML block: a title, lines of text, and a table whose first column is text.

    Args:
        title: In bold.
        lines: Lines below the title.
        columns: Headers of the table.
        rows: Cells by row, as text or numbers; everything is escaped.
    """
    head = "".join(_cell("th", text, number) for number, text in enumerate(columns))
    body = "".join(f"<tr>{''.join(_cell('td', text, number) for number, text in enumerate(row))}</tr>" for row in rows)
    text = "".join(f"<div>{escape(line)}</div>" for line in lines)
    # No colours or fonts of its own: a notebook's theme may be dark.
    return (
        f"<div><div><b>{escape(title)}</b></div>{text}"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(tag: str, text: object, number: int) -> str:
    align = "left" if number == 0 else "right"
    return f'<{tag} style="text-align: {align}; white-space: nowrap">{escape(str(text))}</{tag}>'


def run_html(metrics: Metrics, title: str, key: str) -> str:
    """Return the HTML of a run: its title, RI, and its accuracies by dataset."""
    improvement, kind = metrics["robustness_improvement"], metrics["data"]["kind"]
    trained = metrics["method"] != PRETRAINED
    counted = improvement["targets"] if improvement else []
    lines = [f"{world_and_suite(metrics)}, key {key}", cost_line(metrics)]
    lines += filter(None, [warning_after([metrics["model"]], kind)])
    if improvement and trained:
        lines.insert(
            0, f"RI {with_interval(improvement)} points over {plural(len(counted), 'target')} (95 %, images only)"
        )
    columns = ["dataset", "images", *(("before %", "after %", "change, points [95 %]") if trained else ("accuracy %",))]
    rows = []
    for name, entry in metrics["accuracy"].items():
        role = "" if name in counted else " (source)" if name == metrics["source"] else " (not in RI)"
        before, after = f"{100 * entry['before']:.2f}", f"{100 * entry['after']:.2f}"
        cells = (before, after, with_interval(entry["change"])) if trained else (after,)
        rows.append((title_of(name, kind) + (role if trained else ""), f"{entry['num_images']:,}", *cells))
    return page(title, lines, columns, rows)


def in_notebooks(figure: Figure) -> Figure:
    """Make a notebook show a figure that was drawn without pyplot, as it shows those of pyplot; return the figure."""
    # IPython asks the object for this method, which a figure has only once pyplot's inline backend is active.
    figure._repr_png_ = partial(_png, figure)  # type: ignore[attr-defined]
    return figure


def _png(figure: Figure) -> tuple[bytes, dict[str, int]]:
    """Return a figure as rib saves it, and the size in pixels at which to show it: 96 an inch, so that it is sharp."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=160)
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    return picture.getvalue(), {"width": width, "height": height}
