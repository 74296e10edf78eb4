"""``rib models``: the models of ``conf/model`` with architecture, pretraining and size; those of timm and open_clip."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from rib.config.conf_comments import header
from rib.config.help_page import definitions
from rib.config.shipped import conf_dir, options, shipped_nodes
from rib.errors import RibError, nearest

ANY = ("timm", "open_clip")
"""Files that stand for any model of a library."""


def models_page(arguments: Sequence[str], columns: int) -> str:
    """Return a list of models.

    Args:
        arguments: Nothing, or a part of a name or a pattern with ``*``; ``--all`` to search timm and open_clip, which
            takes a few seconds.
        columns: Width of the terminal.

    Raises:
        RibError: If no model matches; the message says how to search further.
    """
    words = [argument for argument in arguments if argument != "--all"]
    if "--all" in arguments:
        return _libraries(words)
    rows = [
        (name, _text(name)) for name in sorted(options("model"), key=lambda n: (n in ANY, not n.startswith("mini")))
    ]
    for ending in (r"(?![a-z])", ""):  # whole words first: `mini` is not meant to find "minimisation"
        found = [(name, text) for name, text in rows if all(_matches(word, name, text, ending) for word in words)]
        if found:
            break
    rows = found
    if not rows:
        close = (
            nearest(words[0], options("model"))
            or _nearest_part(words[0])
            or f"; search timm and open_clip with rib models {words[0]} --all"
        )
        raise RibError(f"{' '.join(words)}: no model in conf/model matches{close}")
    foot = "`rib train model=NAME` takes one; `rib models PATTERN --all` searches timm and open_clip"
    return "\n".join([*definitions(rows, columns), "", *textwrap.wrap(foot, columns)])


def _text(name: str) -> str:
    """Return a model's description, library and tag, parameters, pretraining images and published accuracy."""
    node = shipped_nodes("model")[name]
    text = " ".join(header(Path(conf_dir(), "model", f"{name}.yaml")))
    about = re.split(r": (?:timm|open_clip)'s |\. |: photographs", " ".join(text.split()))[0]
    about = re.sub(r",? ?(as a zero-shot classifier) \(.*", r", \1", about)
    about = re.sub(r" ?\([\d ]*px.*", "", about)
    if name in ANY:
        return re.split(r"[:,] ", about)[0]
    parameters = re.search(r"([\d.]+ M|[\d,]+) parameters", text)
    images = node.get("pretraining", {}).get("images")
    val = node.get("published", {}).get("imagenet_val")
    facts = [
        f"{node['library']} {node['architecture']}{'.' + node['tag'] if node.get('tag') else ''}",
        f"{parameters[1]} parameters".replace(" ", "\xa0") if parameters else "",
        f"pretrained on {_count(images)} images ({node['pretraining']['objective']})" if images else "",
        f"val {val:.1f} %".replace(" ", "\xa0") if val else "",
        "needs\xa0head=probe" if " parameters without a head" in text else "",
    ]
    return "; ".join([about, *(fact for fact in facts if fact)])


def _count(images: int) -> str:
    """Return a number of images in three digits, ``1.28 M``."""
    for size, unit in ((10**9, " B"), (10**6, " M"), (10**3, " k")):
        if images >= size:
            return f"{images / size:.3g}{unit}"
    return str(images)


def _libraries(words: Sequence[str]) -> str:
    """Return the models of timm and open_clip that match, with the arguments that select them."""
    if not words:
        raise RibError("expected a pattern to search for, as in rib models vit_base --all")
    from rib.models.library import find_models

    found = find_models(words[0])
    if not found:
        raise RibError(f"{words[0]}: neither timm nor open_clip has a pretrained model with this in its name")
    return "\n".join(" ".join(arguments) for arguments in found)


def _matches(word: str, name: str, text: str, ending: str) -> bool:
    """Return True if a word is in a model's name, or begins a word of its description that ends in `ending`."""
    if "*" in word:
        return fnmatch(name.lower(), word.lower())
    return word.lower() in name.lower() or bool(re.search(rf"(?<![a-z]){re.escape(word)}{ending}", text, re.I))


def _nearest_part(word: str) -> str:
    """Return the hint at the most similar beginning of a network's name: ``vit_base`` for ``vit_bse``."""
    parts = word.count("_") + 1
    names = {str(node.get("architecture", "")) for node in shipped_nodes("model").values()}
    return nearest(word, {"_".join(name.split("_")[:parts]) for name in names} - {""}, "rib models ")
