"""Colours, markers and panels shared by all figures, and how a figure is saved."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure

from rib.runtime.files import write_atomically

GAIN, LOSS, NEUTRAL = "#0072B2", "#D55E00", "#7F7F7F"

SERIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")

MARKERS = "os^Dv<>"

CHARACTERS = 14
"""Of text at 8 points that an inch holds."""


def style(number: int) -> dict[str, str]:
    """Colour and marker of a figure's n-th line: 49 lines before two look alike."""
    return {"color": SERIES[number % 7], "marker": MARKERS[(number + number // 7) % 7]}


def save(figure: Figure, file: Path) -> Path:
    """Write a figure as PNG, whole or not at all, making its folder."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=160)
    write_atomically(file, picture.getvalue())
    return file
