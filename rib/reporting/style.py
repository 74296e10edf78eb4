"""Colours and markers shared by all figures, and `save`, which writes a figure to a file."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure

from rib.runtime.files import write_atomically

# Okabe and Ito's palette, which colour-blind readers can tell apart.
GAIN, LOSS, NEUTRAL = "#0072B2", "#D55E00", "#7F7F7F"

SERIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")

MARKERS = "os^Dv<>"

CHARACTERS = 14
"""Characters of 8-point text that fit into one inch."""


def style(number: int) -> dict[str, str]:
    """Return the colour and marker of a figure's n-th line; they repeat after 49 lines."""
    return {"color": SERIES[number % 7], "marker": MARKERS[(number + number // 7) % 7]}


def save(figure: Figure, file: Path) -> Path:
    """Write a figure to a PNG file atomically, make its folder if needed, and return the file."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=160)
    write_atomically(file, picture.getvalue())
    return file
