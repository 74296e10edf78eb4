"""Convert a table to Markdown, and plain text to LaTeX."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table with the given headings."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def escape_latex(text: str) -> str:
    """Escape plain text for LaTeX, with minus signs and ``>`` in math mode."""
    escaped = re.sub(r"([&%$#_{}])", r"\\\1", text.replace("\\", "/"))
    escaped = escaped.replace("~", r"\textasciitilde{}").replace("^", r"\textasciicircum{}")
    # A hyphen before a digit is a minus sign unless it joins words: "-1.20", but not "ImageNet-21k".
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", escaped).replace(" > ", r" $\to$ ")


def tabular(columns: str, rows: Sequence[str]) -> list[str]:
    """Return the lines of a LaTeX table in the style of booktabs.

    Args:
        columns: Alignment of the columns, ``llrr``.
        rows: Its lines, with their rules.
    """
    return [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *rows, r"\bottomrule", r"\end{tabular}"]
