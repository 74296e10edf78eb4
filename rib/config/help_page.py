"""Help page of a command: summary, three examples, main options with the comments of ``conf/``, and where the rest is.

Neither Hydra nor torch is imported.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from rib.config.conf_comments import Option, default_of, examples, options_of, summary
from rib.config.shipped import conf_dir, options

MAIN: dict[str, tuple[str, ...]] = {
    "train": (
        *("method", "model", "dataset", "suite", "experiment", "epochs", "batch_size", "optimizer.lr", "optimizer"),
        *("seed", "precision", "trainer", "head", "data.root", "data.limit", "data.holdout", "paths.runs", "logger"),
        "force",
    ),
    "benchmark": (
        *("models", "sources", "methods", "seeds", "axes", "study", "plan_only", "action", "jobs", "threads", "retry"),
        *("suite", "head", "data.root", "data.limit", "epochs", "paths.runs"),
    ),
    "evaluate": (
        *("runs", "weights", "model", "dataset", "name", "fail_below", "suite", "data.root", "models_at_a_time"),
        "force",
    ),
    "report": (
        "paths.runs",
        "methods",
        "models",
        "sources",
        "seeds",
        "where",
        "sort",
        "out",
        "search_trials",
        "logger",
    ),
    "search": (
        "method",
        "model",
        "dataset",
        "suite",
        "trials",
        "search.lr",
        "search.strength",
        "data.holdout",
        "data.root",
    ),
    "analyze": (
        "run",
        "against",
        "analysis",
        "datasets",
        "images",
        "tokens",
        "estimator",
        "stir",
        "data.root",
        "data.suite",
        "force",
    ),
    "data": ("action", "folder", "data.root", "data.suite", "out", "force", "data.rescan", "paths.cache"),
    "pretrain": ("pretrain", "out", "threads", "seed", "batch_size", "lr"),
}
"""Options on each command's help page; all others are shown by ``rib options``."""

FLAGS = {
    "-m": "several values with commas between them, one run after the other: -m seed=0,1,2",
    "--cfg job": "print the whole config and stop",
    "--info": "print where configs come from; --hydra-help shows all flags of Hydra",
}


def show_help(command: str, program: str) -> None:
    """Print the help page of a command; end quietly where the reader, such as ``head``, closes the pipe.

    Args:
        command: One of `COMMANDS`.
        program: How the command was called, ``rib train`` or ``python -m rib.train``.
    """
    show(help_page(command, program, width()))


def help_page(command: str, program: str, columns: int) -> str:
    """Return the help page of a command.

    Args:
        command: One of `COMMANDS`.
        program: How the command was called, ``rib train`` or ``python -m rib.train``.
        columns: Width of the terminal.
    """
    file = Path(conf_dir(), f"{command}.yaml")
    known = options_of(command)
    lines = [*textwrap.wrap(f"{program}: {summary(file)}", columns), "", "Examples"]
    for example in examples(file)[:3]:
        lines += example_lines(example.replace(f"python -m rib.{command}", program), columns)
    rows = [_row(known[name]) for name in MAIN[command]]
    title = f"Main options, given as NAME=VALUE ({len(known)} in all)"
    lines += ["", *textwrap.wrap(title, columns), *definitions(rows, columns)]
    flags = {flag: text for flag, text in FLAGS.items() if flag != "-m" or command in ("train", "search")}
    lines += ["", "Flags", *definitions(flags.items(), columns)]
    groups = [name for name in MAIN[command] if known[name].group]
    choices = [(known[name].argument, " ".join(options(name))) for name in groups if len(options(name)) <= 30]
    if choices:
        lines += ["", "Names", *definitions(choices, columns)]
    lines += ["", "More", *definitions(_more(command), columns)]
    return "\n".join(lines)


def definitions(rows: Iterable[tuple[str, str]], columns: int) -> list[str]:
    """Return lines with a term on the left and its wrapped text on the right, or below it in a narrow terminal.

    Args:
        rows: Terms with their texts, in which no line ends at a no-break space.
        columns: Width of the terminal.
    """
    rows = list(rows)
    left = min(max((len(term) for term, _ in rows), default=0), max(12, columns // 3)) + 4
    lines = []
    for term, text in rows:
        wrapped = textwrap.wrap(text, max(20, columns - left), break_on_hyphens=False) or [""]
        fits = len(term) + 4 <= left
        lines.append(f"  {term:<{left - 2}}{wrapped[0]}".rstrip() if fits else f"  {term}")
        lines += [f"{'':<{left}}{line}" for line in wrapped[1 if fits else 0 :]]
    return [line.replace("\xa0", " ") for line in lines]


def show(text: str) -> None:
    """Print a text to stdout; end quietly where the reader, such as ``head``, closes the pipe."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Python flushes stdout once more at exit, which would print a message of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def width() -> int:
    """Return the number of columns to print in: the terminal's, at most 100; 80 in a pipe."""
    return max(40, min(100, shutil.get_terminal_size((80, 24)).columns))


def program_name(command: str) -> str:
    """Return how the running command was called, ``rib-train`` or ``python -m rib.train``."""
    name = Path(sys.argv[0]).stem
    return name if name == f"rib-{command}" else f"python -m rib.{command}"


def _row(option: Option) -> tuple[str, str]:
    hidden = default_of(option) in ("null", "???", "default", "none (plain fine-tuning)")
    default = "" if hidden else f" (default {default_of(option)})"
    return option.argument, f"{option.meaning}{default}"


def _more(command: str) -> list[tuple[str, str]]:
    """Return what shows the rest: commands with what they show."""
    runs = command in ("train", "benchmark", "search", "evaluate")
    rows = [(f"rib options {command}", "every option: its default, its meaning, and the key that it is part of")]
    if runs:
        rows += [("rib options ewc", "options of a method, or of a group: model, data, optimizer.lr")]
        rows += [("rib methods", "all methods"), ("rib models", "all models")]
    return rows


def example_lines(line: str, columns: int) -> list[str]:
    """Return a command that fits: its remark above it if there is no room behind, and long commands on two lines.

    Args:
        line: The command, with a remark behind ``#``.
        columns: Width of the terminal.
    """
    command, _, remark = (
        (part.strip() for part in re.split(r"(\s{2,}#\s)", line, maxsplit=1))
        if "  # " in line
        else (line.strip(), "", "")
    )
    if len(command) + len(remark) + 6 <= columns:
        return [f"  {command}" + (f"  # {remark}" if remark else "")]
    lines = [f"  # {text}" for text in textwrap.wrap(remark, columns - 4)]
    return [*lines, *_broken(command, columns)]


def _broken(command: str, columns: int) -> list[str]:
    """Return a command in lines that a shell reads as one; words are never divided."""
    lines, line = [], " "
    for word in _shell_words(command):
        if len(line) + len(word) + 3 > columns and line.strip():
            lines.append(f"{line} \\")
            line = "     "
        line += f" {word}"
    return [*lines, line]


def _shell_words(command: str) -> Sequence[str]:
    """Divide a command at spaces outside quotes, and keep the quotes."""
    lexer = shlex.shlex(command, posix=False, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    return list(lexer)
