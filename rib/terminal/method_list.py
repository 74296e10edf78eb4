"""``rib methods``: all methods by kind, each with one line, its stage and its main options."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from rib.config.conf_comments import file_options, summary
from rib.config.help_page import definitions
from rib.config.shipped import conf_dir, options
from rib.errors import RibError, nearest

KINDS: Mapping[str, tuple[str, ...]] = {
    "a penalty in the loss": ("ewc", "l2sp", "lwf", "ldifs"),
    "a rule for the optimizer's step": ("spd", "ftp", "surgical", "layer_decay", "ema"),
    "fewer trained weights": ("linear_probe", "freeze_embed", "lora", "visual_prompt"),
    "another start": ("lp_ft",),
    "weights made from finished runs": (
        *("wise_ft", "soup", "rib_soup", "lines", "model_stock", "fisher_merge", "task_arithmetic", "ties"),
    ),
    "averaged predictions": ("output_ensemble",),
    "baselines and controls": ("finetune", "pretrained", "other_start"),
}
"""Methods by what they do."""

STAGES: Mapping[str, tuple[str, ...]] = {
    "before training": ("lp_ft", "other_start"),
    "choice of the weights that train": ("linear_probe", "freeze_embed", "lora", "visual_prompt"),
    "after training": (*KINDS["weights made from finished runs"], "output_ensemble"),
    "no training": ("pretrained",),
}
"""Methods by when they act; all others act during training."""

ALWAYS = ("strength", "alpha", "ingredients", "temperature", "rank", "curve")
"""Options that are shown first."""


def methods_page(arguments: Sequence[str], columns: int) -> str:
    """Return a list of methods.

    Args:
        arguments: Nothing, or parts of names, kinds or summaries to look for.
        columns: Width of the terminal.

    Raises:
        RibError: If no method matches; the message has the nearest one.
    """
    lines: list[str] = []
    wanted = [argument.lower().lstrip("+").removeprefix("method=") for argument in arguments]
    for kind, names in KINDS.items():
        rows = [(name, _text(name)) for name in names]
        rows = [(name, text) for name, text in rows if all(w in f"{name} {kind} {text}".lower() for w in wanted)]
        if rows:
            lines += ["", f"{kind[:1].upper()}{kind[1:]}", *definitions(rows, columns)]
    if not lines:
        word = wanted[0].replace("-", "_")
        raise RibError(f"{' '.join(arguments)}: there is no such method{nearest(word, options('method'))}")
    foot = "`rib options NAME` explains a method's options; `rib train +method=NAME` runs it."
    return "\n".join([*lines[1:], "", *textwrap.wrap(foot, columns)])


def stage_of(name: str) -> str:
    """Return when a method acts, ``during training``.

    Args:
        name: Name of the method.
    """
    return next((stage for stage, names in STAGES.items() if name in names), "during training")


def _text(name: str) -> str:
    """Return a method's summary, its stage and its options."""
    text = summary(Path(conf_dir(), "method", f"{name}.yaml"))
    text = re.sub(r" \([^()]*\b(?:19|20)\d\d\b[^()]*\)", "", text)  # the paper is on the page of the method
    sentence = re.split(r"(?<!\bal)(?<!\beq)\. |; (?=[\w-]+/)", text)[0].rstrip(".:")
    keys = [option.rpartition(".")[2] for option in file_options("method", name)]
    shown = [*(key for key in ALWAYS if key in keys), *(key for key in keys if key not in ALWAYS)][:4]
    found = f"; options: {', '.join(shown)}{', ...' if len(keys) > 4 else ''}" if shown else ""
    return f"{sentence}. Stage: {stage_of(name)}{found}"
