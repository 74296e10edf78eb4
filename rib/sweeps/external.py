"""Weights from elsewhere as a run of method `external`: how people compare their own fine-tunes.

The run's key is of the file's digest, the model that it began as, and the source, which is no target. What it was
trained with is not known, so the run has no options but a name; its precision is what ``precision=`` says, since runs
of different precisions share no table.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rib.config.command_schema import EvaluateConfig
from rib.config.schema import Config
from rib.errors import RibError
from rib.models.build import build
from rib.runs.resolve import resolve
from rib.runs.spec import EXTERNAL
from rib.runs.store import RunStore
from rib.runtime.files import file_digest
from rib.sweeps.scoring_job import ScoringJob, scoring_job_of


def external_job(config: EvaluateConfig) -> ScoringJob:
    """A task for weights from elsewhere, which fit the model."""
    file = Path(str(config.weights)).expanduser()
    if (file / "metrics.json").is_file():
        raise RibError(f"weights: {file} is a finished run; score it with runs={file}, or give a file of weights")
    if not file.is_file():
        what = f"{file} is a folder" if file.is_dir() else f"there is no {file}"
        raise RibError(f"weights: expected a file of weights, {what}")
    if config.model.name == "none":
        raise RibError("model: weights from elsewhere are compared with the model they began as; give model=NAME")
    if config.method:
        raise RibError(
            f"method={'+'.join(config.method)}: weights from elsewhere are of method {EXTERNAL}; leave it out"
        )
    node = {"name": config.name or file.stem, "digest": file_digest(file)}
    plain = {name: getattr(config, name) for name in Config.__dataclass_fields__}
    spec = resolve(Config(**plain | {"method": {EXTERNAL: node}, "force": False}))
    known = spec.catalog.specs
    if spec.source_name not in ("none", *known):
        raise RibError(f"dataset={spec.source_name}: there is no such dataset; known: {', '.join(known)}")
    task = replace(scoring_job_of(spec, RunStore(config.paths.runs), {}), weights=file, again=config.force)
    _check_name(node["name"], task)
    if task.run.metrics() is None:
        build(replace(spec.start, weights=file), len(spec.catalog.wnids))  # before anything is written
    return task


def _check_name(name: str, task: ScoringJob) -> None:
    """Two files of one name would be one row of a table."""
    spec = task.spec
    for other in task.store.finished(model=spec.start.name, source=spec.source_name, method=EXTERNAL):
        called = (other.metrics() or {"options": {}})["options"].get(f"method.{EXTERNAL}.name")
        if called == name and other.key != task.run.key:
            raise RibError(f"name: other weights are called {name} already ({other.folder}); give name=ANOTHER")
