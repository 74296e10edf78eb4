"""Formulas in docstrings, which are indented paragraphs, as literal blocks."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

LIST_ITEM = re.compile(r"([-*+]|\d+[.)]|\.\.)\s")


def mark_formulas(app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Put ``::`` before each indented paragraph that follows an unindented one, in place."""
    marked: list[str] = []
    opener = ""  # the last unindented line
    for number, line in enumerate(lines):
        after_blank = number > 0 and not lines[number - 1].strip()
        if line.strip() and not line.startswith(" "):
            # The first line of a paragraph decides: a list item or a directive owns what is indented below it.
            opener = line if after_blank or not opener else opener
            ends_with_colons = line.rstrip().endswith("::")
            opener = "::" if ends_with_colons else opener
        elif line.strip() and after_blank and not (opener.endswith("::") or LIST_ITEM.match(opener)):
            marked += ["::", ""]
            opener = "::"
        marked.append(line)
    lines[:] = marked


def setup(app: Sphinx) -> dict[str, bool]:
    """Run before napoleon, which turns sections such as Args into indented fields."""
    app.connect("autodoc-process-docstring", mark_formulas, priority=100)
    return {"parallel_read_safe": True}
