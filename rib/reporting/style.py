"""Colours, markers, line styles and text sizes shared by all figures, and `save`, which writes a figure's files."""

from __future__ import annotations

import io
from collections.abc import Collection
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from rib.config.schema import FIGURE_FORMATS, FiguresConfig
from rib.reporting.captions import origin
from rib.reporting.sized_figure import SizedFigure
from rib.runtime.files import write_atomically

# Okabe and Ito's palette, which colour-blind readers can tell apart.
GAIN, LOSS, NEUTRAL = "#0072B2", "#D55E00", "#7F7F7F"

SERIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")

MARKERS = "os^Dv<>"

LINES = ("-", "--", "-.", ":")
"""Line styles, so that lines without markers can be told apart in grey."""

WRITING: Any = {
    "pdf.fonttype": 42,  # TrueType, embedded: editors can change the text, and publishers accept it
    "svg.fonttype": "path",  # glyphs as shapes: SVG files cannot embed a font, and the reader's may be another
    "svg.hashsalt": "rib",
    "savefig.bbox": None,  # a user's matplotlibrc may crop the page, which would change its width
}


def style(number: int) -> dict[str, str]:
    """Return the colour and marker of a figure's n-th line; they repeat after 49 lines."""
    return {"color": SERIES[number % 7], "marker": MARKERS[(number + number // 7) % 7]}


def save(figure: Figure, file: Path, figures: FiguresConfig | None = None, command: str = "") -> list[Path]:
    """Write a figure in every asked format, and its caption as a text file, each atomically; remove its other files.

    The same figure gives the same bytes: no file holds a date.

    Args:
        figure: Of `rib.reporting.sized_figure`, or any other, which is then resized to the asked width.
        file: Path without an ending, ``RUN/figures/change``; its folder is made if needed.
        figures: Formats, width, and whether to keep the headline; None: png and pdf, at the figure's own width.
        command: Shell command that makes the figure, for the caption.

    Returns:
        The files: one per format, in the order of the option, then the caption.
    """
    figures = figures or FiguresConfig()
    if not figures.title and isinstance(figure, SizedFigure):
        figure.drop_headline()
    height, width = figure.get_figheight(), figure.get_figwidth()
    if figures.width is not None and width != figures.width:
        figure.set_layout_engine("constrained")
        figure.set_size_inches(figures.width, height * min(1, figures.width / width))
    dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    written = []
    with mpl.rc_context(WRITING):
        for ending in figures.format:
            picture = io.BytesIO()
            figure.savefig(picture, format=ending, dpi=160, metadata=dates.get(ending))
            written.append(_with_ending(file, ending))
            write_atomically(written[-1], picture.getvalue())
    caption = " ".join(figure.caption.split()) if isinstance(figure, SizedFigure) else ""
    text = "\n\n".join(filter(None, (caption, origin(figures, command))))
    written.append(_with_ending(file, "txt"))
    write_atomically(written[-1], f"{text}\n".encode())
    remove(file, but=written)
    return written


def remove(file: Path, but: Collection[Path] = ()) -> None:
    """Remove all files of a figure, since it is not drawn any more; files in ``but`` stay.

    Args:
        file: Path without an ending, as in `save`.
        but: Files to keep.
    """
    for ending in (*FIGURE_FORMATS, "txt"):
        if (old := _with_ending(file, ending)) not in but:
            old.unlink(missing_ok=True)


def remove_others(folder: Path, names: Collection[str]) -> None:
    """Remove the files of all figures in a folder but those named; a text file without a picture is no figure's."""
    for ending in FIGURE_FORMATS:
        for old in folder.glob(f"*.{ending}"):
            if old.stem not in names:
                remove(old.with_suffix(""))


def _with_ending(file: Path, ending: str) -> Path:
    return file.with_name(f"{file.name}.{ending}")  # with_suffix would cut cka_heatmap.imagenet_a
