"""Metadata in the header of weights.safetensors: what the weights are, how they were made, and under which terms.

All values are texts. They follow from the run alone, so that the same run has the same file on every machine, and they
hold no path: of a file that the user gave, only the name is kept.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

import rib
import rib.config
from rib.config.shipped import options
from rib.models.checkpoints import licence_of
from rib.runs.heads import splits_source
from rib.runs.keys import LEFT_OUT
from rib.runs.spec import EXTERNAL, RunSpec
from rib.runtime.weights_file import VERSION

WHOLE = re.compile(r"(?:~|\.{1,2}|[A-Za-z]:)?[/\\][^=]*")
"""A text that is a path, with spaces or not, and not only a name in a repository."""

FOLDERS = re.compile(r"(?<![\w.~/:\\-])(?:~|\.{1,2}|[A-Za-z]:)?[/\\](?:[^\s,'\"\]}/\\]*[/\\])*")
"""The folders of a path within a longer text."""

DIGESTS = (".code", ".content")
"""Endings of a run's options that record digests of the user's files; they are not options themselves."""


def weights_metadata(spec: RunSpec) -> dict[str, str]:
    """Return the metadata of a run's weights: model, transform, run key, command, licences and rib's version.

    Args:
        spec: The resolved run.
    """
    start = spec.start
    trained_on = spec.head_images if spec.source is None else spec.source
    transform = {name: value for name, value in vars(start.transform).items() if value is not None}
    found = {
        "format": "pt",  # what transformers asks of a file
        VERSION: rib.__version__,
        "model": start.name,
        "library": "timm" if start.library == "mini" else start.library,
        "architecture": start.architecture,
        "transform": json.dumps(transform, sort_keys=True, default=str),
        "method": spec.method,
        "source": spec.source_name,
        "data": spec.catalog.kind,
        "run": spec.training_key,
        "command": shlex.join(_command(spec)),
        "licence_weights": licence_of(spec.config.model, start.name),
        "licence_data": "" if trained_on is None else trained_on.spec.licence,
    }
    return {key: value for key, value in found.items() if value}


def _command(spec: RunSpec) -> Iterator[str]:
    """Yield the words of the command that makes a run's weights, without paths."""
    config, model = spec.config, spec.config.model
    yield from ("python", "-m", "rib.train" if spec.external is None else "rib.evaluate")
    if spec.external is None:
        methods = list(config.method)
        given: dict[str, object] = {"+method": methods if len(methods) > 1 else methods[0]} if methods else {}
    else:
        given = {"weights": "FILE", "name": config.method[EXTERNAL]["name"]}
    if model.name in options("model"):
        given["model"] = model.name
    else:
        given |= {"model": model.library, "model.name": model.name, "model.tag": model.tag, "model.hub": model.hub}
    given |= {"model.weights": model.weights, "model.activation": model.activation}
    if config.data.suite is not None:
        given["suite"] = Path(config.data.suite).name
    if spec.source_name != "none" or splits_source(config):
        given["dataset"] = config.dataset.name
    given |= {"head": config.head.kind, "head.reference": config.head.reference}
    if spec.source is not None:
        given["seed"] = config.seed
    # The options of a merged run's training are those of its ingredients.
    irrelevant = tuple(LEFT_OUT["trained" if spec.kind == "merged" else spec.kind])
    for key, value in spec.options.items():
        if not key.startswith((*irrelevant, f"method.{EXTERNAL}.")) and not key.endswith(DIGESTS):
            given[key] = value
    yield from (
        rib.config.spell_override(key, without_folders(value)) for key, value in given.items() if value is not None
    )


def without_folders(value: Any) -> Any:
    """Return a value with every path in its texts shortened to the name of its file or last folder.

    Args:
        value: Text, number, or nested lists and dictionaries of them.
    """
    if isinstance(value, Mapping):
        return {key: without_folders(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(child) for child in value]
    if not isinstance(value, str):
        return value
    return PureWindowsPath(value).name if WHOLE.fullmatch(value) else FOLDERS.sub("", value)
