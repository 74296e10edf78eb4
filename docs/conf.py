"""Sphinx settings: `make docs` builds docs/ into docs/_build/html, without a network."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

project = "rib"
author = "the rib authors"
copyright = "the rib authors, Apache-2.0"
extensions = [
    "myst_nb",
    "sphinx_design",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "docstrings",
    "mathml",
    "api_pages",
    "method_pages",
    "notebook_pages",
]
exclude_patterns = ["_build", "_ext", "_static", "methods"]
default_role = "py:obj"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "html_image"]
myst_heading_anchors = 3
nb_execution_mode = "off"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
# Matplotlib writes a method `set` into every subclass of its figures, in words that need its own Sphinx roles.
autodoc_default_options = {"members": True, "show-inheritance": True, "exclude-members": "set"}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes of dataclasses are documented once, by autodoc
napoleon_attr_annotations = False  # types are in autodoc's signatures; as fields, numpy.str_ reads as a reference
suppress_warnings = ["ref.python"]  # annotations imported for type checking alone are found by their last name

html_theme = "furo"
html_title = "rib"
html_static_path = ["_static"]
html_css_files = ["math.css"]
html_show_sourcelink = False
