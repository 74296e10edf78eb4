"""Write down what a run is made with: config, versions, the user's code, weights of its ingredients."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Final

import rib.config
from rib.config.user_code import copy_code, installed_versions
from rib.runs.run import Run, weights_digest
from rib.runs.spec import RunSpec
from rib.runtime.environment import environment
from rib.schemas.files import MadeFrom

MADE_FROM: Final = "made_from.json"
"""In a run's folder: digests of the weights of the runs that it needs, as they were when it was begun."""


def begin_record(spec: RunSpec, run: Run, parts: Sequence[Run]) -> None:
    """Write down what is made and from what; what was begun from other weights of these runs is thrown away."""
    made_from: MadeFrom = {"weights": [weights_digest(part) for part in parts]}
    if parts and run.read_json(MADE_FROM) not in (None, made_from):
        shutil.rmtree(run.folder)
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "config.yaml").write_text(rib.config.to_yaml(spec.config))
    record_code(spec, run)
    if parts:
        run.write_json(MADE_FROM, made_from)


def record_code(spec: RunSpec, run: Run) -> None:
    """Keep what a run was made with: versions in env.json, and the user's own files in code/."""
    nodes = [spec.config.method, spec.config.optimizer]
    about = environment()
    about["versions"] |= installed_versions(nodes)
    run.write_json("env.json", about)
    copy_code(nodes, run.folder / "code")
