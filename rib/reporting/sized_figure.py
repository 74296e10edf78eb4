"""Figures drawn at their final width with text of 7 to 9 points; their height follows from what they show.

Example::

    figure = SizedFigure(5.2, width)              # natural width, and the asked one (None: natural)
    axes = figure.add_subplot()
    ...
    figure.headline("mini_small, ewc on mini R")
    figure.legend_below(*axes.get_legend_handles_labels())
    return figure.fit(2.4)                        # inches of axes; titles, labels and legend come on top
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from rib.data.worlds import TOY
from rib.reporting.folded_text import fold, text_width

TICK, LABEL, HEAD = 7.0, 8.0, 9.0
"""Sizes of text in points, at the figure's final size: ticks and notes; labels of axes; headlines."""

MARGIN = 0.08
"""Inches kept free at each side of a headline or legend."""


class SizedFigure(Figure):
    """Figure of a given width in inches, whose height `fit` adapts to its text, and with a caption.

    Args:
        natural: Width in inches if none is asked for.
        width: The asked width; None: ``natural``.

    Attributes:
        caption: What the figure shows, n, and what the intervals are; `rib.reporting.style.save` writes it.
        inches: Width of the figure.
        narrowing: Share of the natural width that is there, at most 1, for heights that follow the width.
    """

    def __init__(self, natural: float, width: float | None = None) -> None:
        self.inches = width or natural
        self.narrowing = min(1.0, self.inches / natural)
        self.caption = ""
        self._legend_lines = 0
        self._axes_height: float | None = None
        self._optional: list[Text] = []
        super().__init__(figsize=(self.inches, 3.0), layout="constrained")

    def headline(self, text: str) -> None:
        """Write a headline at the top left, in as many lines as the width needs."""
        lines = fold(text, self.inches - 2 * MARGIN, HEAD)
        self.suptitle(lines, x=MARGIN / self.inches, ha="left", fontsize=HEAD)

    def drop_headline(self) -> None:
        """Remove the headline, as a paper's caption says it; what warns that data are toy data stays, in small."""
        said = f"{self.get_suptitle()} {self.caption}"
        if not self.get_suptitle():
            return
        self.suptitle(TOY if TOY in said else "", x=MARGIN / self.inches, ha="left", fontsize=TICK)
        if self._axes_height is not None:
            self.fit(self._axes_height)
            self.hide_overlapping(self._optional)

    def legend_below(self, handles: Sequence[Any], labels: Sequence[str]) -> None:
        """Draw a legend below the axes, in as many columns as fit."""
        if not labels:
            return
        handle, room = 0.38, self.inches - 2 * MARGIN  # inches of a handle and the space around it
        texts = [fold(label, room - handle, TICK) for label in labels]
        widths = [handle + max(text_width(line, TICK) for line in text.split("\n")) for text in texts]
        columns = next(n for n in range(len(texts), 0, -1) if n == 1 or _width_of_columns(widths, n) <= room)
        self._legend_lines = sum(text.count("\n") + 1 for text in texts)
        self.legend(
            handles,
            texts,
            loc="outside lower left",
            ncols=columns,
            fontsize=TICK,
            frameon=False,
            handlelength=2.0,
            columnspacing=1.0,
        )

    def fit(self, axes_height: float) -> SizedFigure:
        """Set the height so that the panels of one column are together ``axes_height`` inches high.

        Args:
            axes_height: Inches, without titles, tick labels, labels and legends, for which the height is increased.

        Returns:
            The figure itself.
        """
        self._axes_height = axes_height
        # Room for all text in the first step, without which nothing would be laid out.
        self.set_figheight(axes_height + 3 + 0.15 * self._legend_lines)
        layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.05)
        for _ in range(3):
            layout.execute(self)
            for axes in self.axes:
                _thin_ticks(axes)
            missing = axes_height - sum(heights_of_rows(self))
            if abs(missing) < 0.02:
                break
            self.set_figheight(self.get_figheight() + missing)
        else:
            layout.execute(self)
        self.set_layout_engine("none")  # everything has its place; writing each format need not look for it again
        return self

    def hide_overlapping(self, texts: Iterable[Text]) -> None:
        """Hide each of some texts that would cover an earlier one, or reach out of the figure, laid out by `fit`.

        Args:
            texts: Texts that are no titles or tick labels, the most important first.
        """
        self._optional = list(texts)
        kept: list[Bbox] = []
        for text in self._optional:
            text.set_visible(True)
            box = text.get_window_extent()
            outside = box.x0 < 0 or box.y0 < 0 or box.x1 > self.bbox.x1 or box.y1 > self.bbox.y1
            if outside or any(box.overlaps(other) for other in kept):
                text.set_visible(False)
            else:
                kept.append(box)

    def _repr_png_(self) -> bytes:
        """Return the figure as PNG, which a notebook shows."""
        picture = io.BytesIO()
        self.savefig(picture, format="png", dpi=110)
        return picture.getvalue()


def _width_of_columns(widths: Sequence[float], columns: int) -> float:
    """Return the width in inches of a legend, which fills its columns from top to bottom, the first ones longer."""
    least, longer = divmod(len(widths), columns)
    starts = [least * n + min(n, longer) for n in range(columns + 1)]
    gaps = (columns - 1) * TICK / 72
    return gaps + sum(max(widths[a:b]) for a, b in pairwise(starts))


def heights_of_rows(figure: Figure) -> list[float]:
    """Return the height in inches of each row of a figure's panels."""
    rows: dict[int, float] = {}
    for axes in figure.axes:
        if (cell := axes.get_subplotspec()) is not None and axes.get_visible():
            rows.setdefault(cell.rowspan.start, axes.get_position().height * figure.get_figheight())
    return list(rows.values())


def _thin_ticks(axes: Axes) -> None:
    """Reduce the ticks of a numeric x axis until no two of its labels touch."""
    for number in (5, 4, 3, 2):
        labels = [label for label in axes.get_xticklabels() if label.get_text() and label.get_visible()]
        boxes = [label.get_window_extent() for label in labels if label.get_rotation() == 0]
        inside = [box for box in boxes if axes.bbox.x0 - 1 <= (box.x0 + box.x1) / 2 <= axes.bbox.x1 + 1]
        touching = any(one.x1 + 4 > other.x0 for one, other in pairwise(inside))
        if not touching or type(axes.xaxis.get_major_locator()).__name__ not in ("AutoLocator", "MaxNLocator"):
            return
        integer = bool(getattr(axes.xaxis.get_major_locator(), "_integer", False))
        axes.xaxis.set_major_locator(MaxNLocator(number, integer=integer))


def tidy(axes: Axes, along: str = "both") -> None:
    """Apply the look of all figures: small tick labels, a light grid behind the data, no box.

    Args:
        axes: Axes to style.
        along: Direction of the grid, ``both``, ``x`` or ``y``.
    """
    axes.tick_params(labelsize=TICK)
    axes.set_axisbelow(True)
    axes.grid(axis=along, lw=0.4, alpha=0.5)  # type: ignore[arg-type]
    axes.spines[["top", "right"]].set_visible(False)


def name_rows(axes: Axes, labels: Sequence[str], inches: float) -> float:
    """Label the rows of a figure at their heights 0, 1, ..., and return the height in inches that a row needs.

    Args:
        axes: Axes with one row per label.
        labels: From bottom to top.
        inches: Width that labels may take.
    """
    axes.set_yticks(range(len(labels)), [fold(label, inches, TICK) for label in labels], fontsize=TICK)
    axes.set_ylim(-0.6, len(labels) - 0.4)
    return max(height_of_name(label, inches) for label in labels)


def fold_below(label: str, inches: float) -> str:
    """Fold the label of a narrow panel, which is a seventh of a figure; a longer word may be up to a fifth.

    Args:
        label: Label of an x axis.
        inches: Width of the figure.
    """
    longest = max(text_width(word, TICK) for word in label.split())
    return fold(label, max(0.5, 0.14 * inches, min(longest, 0.2 * inches)), TICK)


def height_of_name(label: str, inches: float) -> float:
    """Return the height in inches of a row with a label, which is folded to a width."""
    return max(0.2, 0.04 + 1.2 * TICK / 72 * (fold(label, inches, TICK).count("\n") + 1))
