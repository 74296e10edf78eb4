"""The pages of ``rib``: its help, and ``rib options``, ``rib methods``, ``rib models`` and ``rib version``."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from rib.config.conf_comments import COMMANDS, summary
from rib.config.help_page import definitions, example_lines, width
from rib.config.shipped import conf_dir
from rib.errors import RibError, nearest

PAGES = {
    "options": "what can be set, with meaning, default and key: rib options [ewc | model | data.* | optimizer.lr]",
    "methods": "all methods with their main options: rib methods [PATTERN]",
    "models": "all models with pretraining and size: rib models [PATTERN]; --all: timm's and open_clip's too",
    "version": "versions of rib, torch, lightning, timm, ... and the device",
}
"""Subcommands that are no commands of their own, with what they show."""

EXAMPLES = (
    "rib train +method=ewc model=mini_small",
    "rib benchmark 'methods=[finetune,ewc]' 'seeds=[0,1,2]'",
    "rib data init photos  # the file of a suite of your own, for suite=photos/photos.yaml",
    "rib options ewc",
)


def page(name: str, arguments: Sequence[str]) -> str:
    """Return the text of a page.

    Args:
        name: First word after ``rib``: a key of `PAGES`, ``help`` or ``--version``.
        arguments: Words after it.

    Raises:
        RibError: If there is no such page or command; the message has the nearest one.
    """
    columns = width()
    asks_help = bool({"-h", "--help"} & {*arguments})
    if name in ("help", "-h", "--help") or (name in PAGES and asks_help):
        return overview(columns)
    if name == "options":
        from rib.terminal.option_list import options_page

        return options_page(arguments, columns)
    if name == "methods":
        from rib.terminal.method_list import methods_page

        return methods_page(arguments, columns)
    if name == "models":
        from rib.terminal.model_list import models_page

        return models_page(arguments, columns)
    if name in ("version", "--version", "-V"):
        from rib.terminal.versions import versions_page

        return versions_page()
    return _unknown(name)


def overview(columns: int) -> str:
    """Return the page that ``rib`` alone shows: all commands and pages with one line each.

    Args:
        columns: Width of the terminal.
    """
    commands = [(name, summary(Path(conf_dir(), f"{name}.yaml")).rstrip(".")) for name in COMMANDS]
    return "\n".join(
        [
            *textwrap.wrap("rib: robust fine-tuning of pretrained vision models, measured.", columns),
            "",
            "Commands: rib COMMAND [NAME=VALUE ...]",
            *definitions(commands, columns),
            "",
            "Pages",
            *definitions(PAGES.items(), columns),
            "",
            "Examples",
            *(line for example in EXAMPLES for line in example_lines(example, columns)),
            "",
            *textwrap.wrap("`rib COMMAND --help` shows examples and the main options of a command.", columns),
        ]
    )


def _unknown(name: str) -> str:
    """Raise an error for a first word that is neither a command nor a page."""
    if "=" in name or name.startswith("-"):
        raise RibError(f"{name}: expected a command first; did you mean rib train {name}?")
    known = ", ".join((*COMMANDS, *PAGES))
    same = f"; did you mean rib {name.lower()}?" if name.lower() in (*COMMANDS, *PAGES) else ""
    close = same or nearest(name.lower(), [*COMMANDS, *PAGES, "help"], "rib ")
    raise RibError(f"{name}: there is no such command{close or f'; expected one of {known}'}")
