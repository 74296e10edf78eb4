"""The repository's notebooks as pages, with the outputs that are stored in them."""

from __future__ import annotations

from pathlib import Path

from generated import keep_only, write
from sphinx.application import Sphinx


def generate(app: Sphinx) -> None:
    """Copy notebooks/*.ipynb to where Sphinx reads."""
    source = Path(app.srcdir)
    files = sorted((source.parent / "notebooks").glob("*.ipynb"))
    for file in files:
        write(source, f"notebooks/{file.name}", file.read_text())
    keep_only(source, "notebooks", {file.name for file in files})


def setup(app: Sphinx) -> dict[str, bool]:
    """Copy once a build."""
    app.connect("builder-inited", generate)
    return {"parallel_read_safe": True}
