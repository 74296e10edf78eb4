"""Write the suite's file of what was recognised in a folder, with comments on what was found and can be changed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from rib.data.suites.class_fields import words_of
from rib.data.suites.found import Found, FoundDomain
from rib.data.suites.imagenet_names import imagenet_classes, words_of_wnid
from rib.data.suites.scan_domain import named
from rib.data.suites.spellings import same_classes
from rib.data.suites.suite_file import RESERVED, clean_name
from rib.runtime.counting import plural

HEAD = """\
# Suite of your own data, written by `python -m rib.data init`. Give it to any command: suite={file}
#
# Found {what}.
"""

SETTINGS = """
name: {name}
title: {title}
root: {root}
licence: ""       # terms of use of the images; a domain may have its own licence: and may_train:
may_train: true   # false: images that no model may be trained on

# Head of models whose outputs are not these classes: zero_shot (open_clip) | subset (ImageNet classifiers, by imagenet:
# below) | probe (logistic regression on frozen features); null: the first of these that the model allows.
head: null
# Domain that trains the probe alone, neither source nor target; null: 30 % of each source.
reference: null
# Sentences of a zero-shot head, ["a photo of a {{}}."]; null: the 80 of ImageNet.
templates: null
"""

ROLES = """
# Domains to fine-tune on, and those whose mean change in accuracy is RI; domains in reported are scored beside them.
sources: {sources}
targets: {targets}
reported: []
"""


def suite_text(found: Found, file: Path) -> str:
    """Return the text of a suite's file.

    Args:
        found: What was recognised in a folder.
        file: Where the file is going to be; its ``root`` is relative to it.
    """
    names = _list_of(found.domains)
    root = os.path.relpath(found.root.resolve(), file.resolve().parent)
    settings = SETTINGS.format(name=suite_name(found), title=_quoted(found.root.resolve().name), root=_quoted(root))
    parts = [
        _heading(found, file),
        settings,
        _classes(found),
        _domains(found),
        ROLES.format(sources=names, targets=names),
    ]
    return "".join(parts)


def suite_name(found: Found) -> str:
    """Return the name of a suite, after its folder."""
    name = clean_name(found.root.resolve().name) or "suite"
    return f"my_{name}" if name in RESERVED else name


def in_words(found: Found) -> str:
    """Return what was found in a few words: ``4 domains, 7 classes and 84 images (folders DOMAIN/CLASS)``."""
    images = sum(sum(one.counts.values()) for one in found.domains.values())
    classes = plural(len(found.classes), "class", "classes")
    return f"{plural(len(found.domains), 'domain')}, {classes} and {plural(images, 'image')} ({found.layout})"


def lacking(found: Found, domain: FoundDomain) -> list[str]:
    """Return the classes of the suite that a domain has no image of."""
    return [name for name in found.classes if name not in domain.counts]


def _heading(found: Found, file: Path) -> str:
    text = HEAD.format(file=file.name, what=in_words(found))
    lines = [f"Ignored: {reason}." for reason in found.ignored] + [f"Please check: {doubt}." for doubt in found.doubts]
    return text + "".join(f"# {line}\n" for line in lines)


def _classes(found: Found) -> str:
    outputs = imagenet_classes(found.classes)
    same = {theirs: ours for names in _same(found).values() for theirs, ours in names.items()}
    lines = [
        "",
        "# In label order. name: its words in a zero-shot head's sentences; imagenet: [...]: WordNet ids or output ids",
        "# of ImageNet-1K that count as this class, for head=subset.",
        "classes:",
    ]
    for name in found.classes:
        more = "" if outputs is None else f", imagenet: [{outputs[name]}]"
        is_wnid = outputs is not None and name == outputs[name]
        words = words_of_wnid(name) if is_wnid else words_of(name)
        note = f"   # the same as {same[name]}? see class_names below" if name in same else ""
        lines.append(f"  {_quoted(name)}: {{name: {_quoted(words)}{more}}}{note}")
    return "\n".join(lines) + "\n"


def _same(found: Found) -> Mapping[str, Mapping[str, str]]:
    return same_classes({name: one.counts for name, one in found.domains.items()})


def _domains(found: Found) -> str:
    same = _same(found)
    lines = [
        "",
        "# Where the images of each domain are. Further keys: licence, may_train, derived_from (the domain from whose",
        "# images these were made), class_names ({its name of a class: the name above}; null leaves the class out).",
        "domains:",
    ]
    for name, one in found.domains.items():
        lacks = lacking(found, one)
        gaps = f"; no image of {named(lacks, 'class', 'classes')}" if lacks else ""
        classes = plural(len(one.counts), "class", "classes")
        lines += [
            f"  {_quoted(name)}:   # {classes}, {plural(sum(one.counts.values()), 'image')}{gaps}",
            f"    title: {_quoted(one.title)}",
            *(f"    {key}: {_quoted(value)}" for key, value in one.place.items()),
        ]
        if name in same:
            pairs = ", ".join(f"{_quoted(theirs)}: {_quoted(ours)}" for theirs, ours in same[name].items())
            lines += [
                "    # Probably the same classes, spelt otherwise; if so, use this line and remove them from classes:",
                f"    # class_names: {{{pairs}}}",
            ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Return a text as YAML reads it back, in quotes where it needs them."""
    plain = re.fullmatch(r"[\w./][\w./ -]*", text) and not text.endswith(" ")
    return text if plain and yaml.safe_load(f"[{text}]") == [text] else json.dumps(text, ensure_ascii=False)


def _list_of(names: Iterable[str]) -> str:
    return f"[{', '.join(map(_quoted, names))}]"
