"""The pages of the documentation, and the code blocks and commands in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
RUNNABLE = "<!-- runnable -->"
PAGES = sorted(
    [
        ROOT / "README.md",
        *(page for page in DOCS.rglob("*.md") if not {"_generated", "_build"} & set(page.relative_to(DOCS).parts)),
    ]
)


@dataclass(frozen=True)
class Block:
    """A fenced block of code: its language, its text, and whether a test runs it."""

    language: str
    text: str
    runnable: bool


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page that stand at the left margin, in order."""
    found = re.findall(rf"({RUNNABLE}\n)?^```(\w+)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    return [Block(language, text, bool(mark)) for mark, language, text in found]


def commands(text: str) -> list[list[str]]:
    """The ``python -m rib...`` and ``rib ...`` commands of a shell text, each as its module and arguments."""
    names = "train|benchmark|evaluate|report|search|analyze|data|pretrain"
    text = re.sub(rf"^(\s*)rib ({names})\b", r"\1python -m rib.\2", text, flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    calls = [match[1] for line in lines for match in re.finditer(r"python -m (rib\b[^|)]*)", line)]
    return [shlex.split(call, comments=True) for call in calls]


def documented_commands() -> list[list[str]]:
    """Commands in the documentation and the README that no test runs, and those in the files of methods and heads."""
    texts = [block.text for page in PAGES for block in blocks(page) if block.language == "bash" and not block.runnable]
    texts += [code for page in PAGES for code in re.findall(r"`(python -m rib[^`]+)`", page.read_text())]
    for file in (file for group in ("method", "head") for file in (ROOT / "conf" / group).glob("*.yaml")):
        texts += re.findall(r"(python -m rib.*)", re.sub(r"\s*\\\n#\s*", " ", file.read_text()))
    found = {tuple(command) for text in texts for command in commands(text)}
    # NAME and ... stand for what the reader fills in; my_methods is run by test_own_method.py.
    return sorted(list(c) for c in found if not re.search(r"NAME|\.\.\.|my_methods", " ".join(c)))
