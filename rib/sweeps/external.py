"""External weights, fine-tuned outside rib, scored as a run of method `external`.

The run's key depends on the digest of the weights file, the pretrained model that it was fine-tuned from, and the
source, which does not count as a target. How it was trained is unknown, so the run has no options besides a name. Its
precision is the one given as ``precision=``, since runs of different precisions cannot share a table.
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
from rib.runtime.weights_file import find_weights_file, weights_file_digest
from rib.sweeps.scoring_job import ScoringJob, scoring_job_of


def external_job(config: EvaluateConfig) -> ScoringJob:
    """Return the job that scores a file of external weights.

    Args:
        config: Its ``weights`` is the file; ``model`` the pretrained model, ``dataset`` the source.

    Raises:
        RibError: If there is no such file, if its weights do not fit the model, if an option does not apply, or if
            other weights have the same name.
    """
    file = Path(str(config.weights)).expanduser()
    if (file / "metrics.json").is_file():
        raise RibError(f"weights: {file} is a finished run; score it with runs={file}, or give a file of weights")
    name, file = config.name or file.stem, find_weights_file(file)
    if not file.is_file():
        what = f"{file} is a folder" if file.is_dir() else f"there is no {file}"
        raise RibError(f"weights: expected a file of weights, {what}")
    if config.model.name == "none":
        raise RibError(
            "model: external weights are compared with the pretrained model that they were fine-tuned from; give "
            "model=NAME"
        )
    if config.method:
        raise RibError(
            f"method={'+'.join(config.method)}: external weights always have method {EXTERNAL}; leave method out"
        )
    node = {"name": name, "digest": weights_file_digest(file)}
    plain = {name: getattr(config, name) for name in Config.__dataclass_fields__}
    spec = resolve(Config(**plain | {"method": {EXTERNAL: node}, "force": False}))
    known = spec.catalog.specs
    if spec.source_name not in ("none", *known):
        raise RibError(f"dataset={spec.source_name}: there is no such dataset; known: {', '.join(known)}")
    job = replace(scoring_job_of(spec, RunStore(config.paths.runs), {}), weights=file, force=config.force)
    _check_name(node["name"], job)
    if job.run.metrics() is None:
        # Raises for weights that do not fit, before anything is written to the store.
        build(replace(spec.start, weights=file), len(spec.catalog.wnids))
    return job


def _check_name(name: str, job: ScoringJob) -> None:
    """Raise a RibError if other external weights have the same name: both would be the same row of a table."""
    spec = job.spec
    for other in job.store.finished(model=spec.start.name, source=spec.source_name, method=EXTERNAL):
        other_name = (other.metrics() or {"options": {}})["options"].get(f"method.{EXTERNAL}.name")
        if other_name == name and other.key != job.run.key:
            raise RibError(f"name: other weights already have the name {name} ({other.folder}); give name=ANOTHER")
