"""Record what a run is made with: config, versions of libraries, the user's code, weights of its ingredients."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Final

import rib.config
from rib.config.user_code import copy_code, installed_versions, targets, user_code
from rib.runs.run import Run, weights_digest
from rib.runs.spec import RunSpec
from rib.runtime.environment import environment
from rib.schemas.files import MadeFrom

MADE_FROM: Final = "made_from.json"
"""File in a run's folder with the digests that the weights of its ingredients had when it began."""


def begin_record(spec: RunSpec, run: Run, ingredients: Sequence[Run]) -> None:
    """Record config, environment and ingredients in a run's folder before it begins.

    An attempt that began from other weights of the ingredients is deleted, rather than continued.

    Args:
        spec: The resolved run.
        run: Its folder, new or left by an interrupted attempt.
        ingredients: The finished runs that it needs.
    """
    made_from: MadeFrom = {"weights": [weights_digest(ingredient) for ingredient in ingredients]}
    if ingredients and run.read_json(MADE_FROM) not in (None, made_from):
        shutil.rmtree(run.folder)  # its checkpoint continues from weights that no longer exist
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "config.yaml").write_text(rib.config.to_yaml(spec.config))
    record_code(spec, run)
    if ingredients:
        run.write_json(MADE_FROM, made_from)


def record_code(spec: RunSpec, run: Run) -> None:
    """Write versions, git commits and the command to env.json, and copy the user's own code to the folder ``code``."""
    nodes = [spec.config.method, spec.config.optimizer]
    code = [found for target in targets(nodes) if (found := user_code(target)) is not None]
    env = environment({name: file for one in code for name, file in one.files.items()})
    env["versions"] |= installed_versions(nodes)
    run.write_json("env.json", env)
    copy_code(nodes, run.folder / "code")
