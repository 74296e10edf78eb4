"""A page for each file of conf/method: formula, options, cost, what it cannot be combined with, measurements."""

from __future__ import annotations

import csv
import importlib
import inspect
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generated import keep_only, write
from sphinx.application import Sphinx

from rib.config.shipped import conf_dir, options, shipped_nodes
from rib.methods.clashes import CLASHES

KINDS = {
    "training": "Methods that train",
    "weights": "Methods made from finished runs",
    "control": "Baselines and controls",
}


SYMBOLS = {
    r"\theta_0": r"$\theta_0$ are the pretrained weights",
    r"\theta_{0": r"$\theta_0$ are the pretrained weights",
    r"\lambda": r"$\lambda$ is `strength`",
    r"\eta": r"$\eta$ is the learning rate",
}
"""What symbols of more than one formula stand for."""


INGREDIENTS = (
    "finished runs that it is made from, each [given relative to this run](../../howto/choose.md#stack-methods)"
)

CHOOSE = (
    "For your own model and data, [choose on held-out images of the source](../../howto/choose.md#choose-a-strength)."
)
"""What follows the sentence on where a method's default strength is from."""


@dataclass(frozen=True)
class Header:
    """The comment above a method's options: what it is, commands, remarks, and its cost."""

    commands: list[str]
    remarks: list[str]
    cost: str


def header_of(text: str) -> Header:
    """The parts of a conf file's comment.

    Args:
        text: The whole file.
    """
    unwrapped = re.sub(r"\s*\\\n#\s*", " ", text)
    lines = [line[1:].removeprefix(" ") for line in unwrapped.splitlines() if line.startswith("#")]
    commands = [command for line in lines for command in re.findall(r"(?:^|\s{2})(python -m .+)$", line)]
    prose = "\n".join(re.sub(r"(^|\s{2,})python -m .+$", "", line).rstrip() for line in lines)
    paragraphs = re.split(r"\n\s*\n|\n(?=Cost:)", prose)
    joined = [" ".join(part.split()) for part in paragraphs if part.strip()]
    cost = next((part.removeprefix("Cost: ") for part in joined if part.startswith("Cost:")), "")
    return Header(commands, [part for part in joined if not part.startswith("Cost:")], cost)


def comments_of(text: str) -> dict[str, str]:
    """By option, the comment before and behind it in a conf file."""
    found: dict[str, str] = {}
    before: list[str] = []
    for line in text.splitlines():
        if re.match(r"\s+#", line):
            before.append(line.strip("# "))
        elif option := re.match(r"  (\w+):(?:.*?\s{2,}#\s*(.*))?", line):
            found[option[1]] = " ".join([*before, option[2] or ""]).strip()
            before = []
    return found


def arguments_of(docstring: str) -> dict[str, str]:
    """By argument, its entry in the Args section of a Google docstring."""
    section = re.search(r"\nArgs:\n((?:    .*\n|\n)+)", f"{docstring}\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section[1] if section else "", re.M)
    return {name: " ".join(text.split()).replace("``", "`") for name, text in entries}


def default_of(value: Any) -> str:
    """A value as YAML writes it on one line."""
    words = {None: "null", True: "true", False: "false"}
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {default_of(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(default_of(v) for v in value) + "]"
    return words[value] if value is None or isinstance(value, bool) else str(value)


def cell(text: str) -> str:
    """A text that may stand in a Markdown table."""
    return text.replace("|", "\\|")


def options_table(name: str, node: dict[str, Any], text: str, docstring: str) -> str:
    """The table of a method's options; a meaning is from the conf file, else from the docstring."""
    arguments = {"ingredients": INGREDIENTS, **arguments_of(docstring)}
    comments = comments_of(text)
    rows = [
        f"| `method.{name}.{key}` | `{default_of(value)}` | {cell(comments.get(key) or arguments.get(key, ''))} |"
        for key, value in node.items()
        if key != "_target_"
    ]
    return "\n".join(["| option | default | meaning |", "|---|---|---|", *rows]) if rows else "It has no options."


def clashes_of(name: str) -> str:
    """Return the methods that a method cannot be combined with, and the reasons."""
    rows = [f"- `{other}`: {why}." for pair, why in CLASHES.items() if name in pair for other in pair - {name}]
    return "\n".join(sorted(rows)) or "Every method that trains, and one method made from finished runs."


def measured(source: Path, name: str) -> list[str]:
    """Sentences on what docs/measured/*.csv say of a method."""
    found = []
    with (source / "measured" / "steps.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == name]
    found += [
        f"- A training step takes {row['step']} times the CPU time of plain fine-tuning; peak memory is "
        f"{row['memory_gb']} GB ({row['network']}, batch {row['batch']})."
        for row in rows
    ]
    with (source / "measured" / "methods.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == name]
    found += [
        f"- {row['model']}: mRI {row['mri']} [{row['mri_low']}, {row['mri_high']}] points, accuracy on the source "
        f"{row['before']} > {row['after']} %."
        for row in rows
    ]
    return found


def symbols_of(note: dict[str, str]) -> str:
    """A sentence on the symbols in a method's formula."""
    found = [
        meaning for symbol, meaning in SYMBOLS.items() if re.search(re.escape(symbol) + r"(?![a-z])", note["formula"])
    ]
    found += [note["symbols"]] if "symbols" in note else []
    return "; ".join(dict.fromkeys(found)) + "." if found else ""


def page(source: Path, name: str, note: dict[str, str]) -> str:
    """The text of a method's page."""
    text = Path(conf_dir(), "method", f"{name}.yaml").read_text()
    node = shipped_nodes("method")[name]
    header, target = header_of(text), node.get("_target_")
    docstring, code = "", ""
    if target:
        module, _, cls = target.rpartition(".")
        docstring = inspect.getdoc(getattr(importlib.import_module(module), cls)) or ""
        code = f"```{{eval-rst}}\n.. automodule:: {module}\n   :no-members:\n   :no-index:\n\n"
        code += f".. autoclass:: {target}\n   :no-members:\n   :no-index:\n```\n"
    paper = f" [arXiv {note['paper']}](https://arxiv.org/abs/{note['paper']})." if "paper" in note else ""
    cost = header.cost[:1].upper() + header.cost[1:] or "That of fine-tuning, or none if nothing is trained."
    remarks = "\n\n".join(header.remarks)
    numbers = "\n".join(measured(source, name))
    limits = "See [Which method should I take?](../../which_method.md) for what these numbers can and cannot say."
    parts = [
        f"# {name}: {note['title']}",
        f"{note['summary']}{paper}",
        f"$$\n{note['formula']}\n$$",
        symbols_of(note),
        "```bash\n" + "\n".join(header.commands) + "\n```",
        f"## When to take it\n\n{note['when']}",
        f"## Options\n\n{options_table(name, node, text, docstring)}",
        f"{note['defaults']} {CHOOSE}" if "defaults" in note else "",
        f"## Cost\n\n{cost}",
        f"## Measured on the built-in data\n\n{numbers}\n\n{limits}" if numbers else "",
        "## Combining methods\n\n"
        + ("It stands alone." if name == "pretrained" else combines(name, node) + clashes_of(name)),
        f"## Notes from the configuration file\n\n{remarks}",
        f"## Reference\n\n{code}" if code else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def combines(name: str, node: dict[str, Any]) -> str:
    """The sentence before the list of what a method cannot be combined with."""
    if "ingredients" in node:
        return (
            "Methods that train stand before it in a stack, and their run takes the place of `finetune` among its "
            f"ingredients: `'+method=[lwf,{name}]'`. It cannot be combined with another method made from finished "
            "runs. Methods whose runs have no weights (`visual_prompt`, `output_ensemble`) cannot be averaged.\n\n"
            "Beyond that it combines with:\n\n"
        )
    clashes = any(name in pair for pair in CLASHES)
    return "It cannot be combined with:\n\n" if clashes else "It combines with:\n\n"


def index(notes: dict[str, dict[str, str]]) -> str:
    """The list of all methods by kind."""
    parts = ["```{toctree}\n:hidden:\n\n" + "\n".join(f"methods/{name}" for name in notes) + "\n```"]
    for kind, title in KINDS.items():
        rows = [
            f"| [`{name}`](methods/{name}.md) | {note['summary']} | "
            + (f"[{note['paper']}](https://arxiv.org/abs/{note['paper']}) |" if "paper" in note else "|")
            for name, note in notes.items()
            if note["kind"] == kind
        ]
        parts.append(f"## {title}\n\n| `+method=` | what it does | paper |\n|---|---|---|\n" + "\n".join(rows))
    return "\n\n".join(parts) + "\n"


def generate(app: Sphinx) -> None:
    """Write the pages before Sphinx looks for its sources; a method without a note is an error."""
    source = Path(app.srcdir)
    notes = tomllib.loads((source / "methods" / "notes.toml").read_text())
    for name in options("method"):
        write(source, f"methods/{name}.md", page(source, name, notes[name]))
    keep_only(source, "methods", {f"{name}.md" for name in notes})
    intro = (source / "methods" / "intro.md").read_text()
    write(source, "methods.md", f"{intro}\n{index(notes)}")


def setup(app: Sphinx) -> dict[str, bool]:
    """Generate once a build."""
    app.connect("builder-inited", generate)
    return {"parallel_read_safe": True}
