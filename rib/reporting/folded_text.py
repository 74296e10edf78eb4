"""Break a figure's text into lines of a given width in inches."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path


@cache
def text_width(text: str, size: float) -> float:
    """Return the width of one line of text in inches.

    Args:
        text: Text without line breaks.
        size: Points.
    """
    # On screen glyphs are placed on whole pixels, which makes a line up to 3 % wider.
    return 1.03 * text_to_path.get_text_width_height_descent(text, FontProperties(size=size), False)[0] / 72


def fold(text: str, inches: float, size: float) -> str:
    """Break text into lines of at most a width: at spaces, else behind ``_ . / + - =``, else anywhere.

    Args:
        text: Text; its own line breaks stay.
        inches: Width of a line.
        size: Points.
    """
    return "\n".join(line for part in text.split("\n") for line in _lines(part, inches, size))


def _lines(text: str, inches: float, size: float) -> Iterable[str]:
    line = ""
    for word in re.findall(r"\S+\s*", text) or [""]:
        if text_width((line + word).rstrip(), size) <= inches:
            line += word
            continue
        if line:
            yield line.rstrip()
            line = ""
        if text_width(word.rstrip(), size) <= inches:
            line = word
            continue
        for piece in re.findall(r"[^_./+=\-]*[_./+=\-]|[^_./+=\-]+", word):
            if text_width((line + piece).rstrip(), size) > inches:
                if line:
                    yield line.rstrip()
                line = ""
                while text_width(piece.rstrip(), size) > inches and len(piece) > 1:
                    end = next(
                        n for n in range(len(piece) - 1, 0, -1) if n == 1 or text_width(piece[:n], size) <= inches
                    )
                    yield piece[:end]
                    piece = piece[end:]
            line += piece
    yield line.rstrip()
