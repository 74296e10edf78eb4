"""External weights, fine-tuned outside rib, scored as a run of method `external`.

The run's key depends on the digest of the weights file, the pretrained model that it was fine-tuned from, and the
source, which does not count as a target. How it was trained is unknown, so the run has no options besides a name. A
precision given as ``precision=`` is recorded; without one it shares tables with runs of any precision.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import rib.config
from rib.config.command_schema import EvaluateConfig
from rib.config.schema import Config
from rib.config.shipped import options
from rib.errors import RibError
from rib.models.build import build
from rib.runs.resolve import resolve
from rib.runs.spec import EXTERNAL, RunSpec
from rib.runs.store import RunStore
from rib.runtime.console import say
from rib.runtime.counting import plural
from rib.runtime.weights_file import find_weights_file, weights_file_digest
from rib.sweeps.run_paths import is_finished
from rib.sweeps.scoring_job import ScoringJob, scoring_job_of


def external_job(config: EvaluateConfig) -> ScoringJob:
    """Return the job that scores a file of external weights.

    Args:
        config: Its ``weights`` is the file; ``model`` the pretrained model, ``dataset`` the source.

    Raises:
        RibError: If there is no such file, if its weights do not fit the model, if an option does not apply, or if
            other weights have the same name.
    """
    given = Path(str(config.weights)).expanduser()
    if (given / "metrics.json").is_file():
        raise RibError(f"weights: {given} is a finished run; score it with runs={given}, or give a file of weights")
    file = find_weights_file(given)
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
    stored, store = _stored(file), RunStore(config.paths.runs)
    node = stored or {"name": given.stem, "digest": weights_file_digest(file)}
    node = {**node, "name": config.name or node["name"]}
    plain = {name: getattr(config, name) for name in Config.__dataclass_fields__}
    spec = resolve(Config(**plain | {"method": {EXTERNAL: node}, "force": False}))
    known = spec.catalog.specs
    if spec.source_name not in ("none", *known):
        raise RibError(f"dataset={spec.source_name}: there is no such dataset; known: {', '.join(known)}")
    if not (config.name or stored) and (name := _name_in_store(spec, store)) not in (None, given.stem):
        say(f"weights: these weights are in the store as {name}, and keep that name; give name=ANOTHER to rename them")
        node = {**node, "name": str(name)}
        spec = replace(spec, config=replace(spec.config, method={EXTERNAL: node}))
    job = replace(scoring_job_of(spec, store, {}), weights=file, force=config.force)
    _check_name(node, job)
    _say_what_is_assumed(job)
    if job.run.metrics() is None:
        # Raises for weights that do not fit, before anything is written to the store.
        build(spec.start.with_weights(file))
    return job


def _stored(file: Path) -> dict[str, str] | None:
    """Return the recorded name and digest if a file holds the weights of an external run of a store, else None.

    The store keeps them in its own format. They are the same weights, whatever became of the file that they came from.
    """
    if file.name != "weights.safetensors" or not is_finished(file.parent):
        return None
    node: dict[str, str] | None = rib.config.load_config(file.parent / "config.yaml").method.get(EXTERNAL)
    return node


def _name_in_store(spec: RunSpec, store: RunStore) -> str | None:
    """Return the name of a run's weights in a store, that of any other run of the same weights, or None.

    They may have several runs: on other sources, or with ``data.limit``.
    """
    others = store.finished(model=spec.start.name, method=EXTERNAL)
    for run in (store.run_of(spec), *others):
        node = _stored(run.weights_file)
        if node is not None and spec.external is not None and node["digest"] == spec.external["digest"]:
            return node["name"]
    return None


def _say_what_is_assumed(job: ScoringJob) -> None:
    """Print what a user may not expect: that a run in the store gets another name, and that no source was given."""
    node, stored = job.spec.external, _stored(job.run.weights_file)
    if node is not None and stored is not None and stored["name"] != node["name"]:
        say(f"name: these weights are in the store as {stored['name']}; renamed to {node['name']}")
    if job.spec.source_name == "none":
        targets = plural(len(job.spec.config.suite.targets), "target")
        say(
            f"dataset= was not given: RI of {node and node['name']} is over all {targets} of the suite, the dataset "
            "that these weights were fine-tuned on among them, and rib.report leaves the run out; give dataset=SOURCE"
        )


def _check_name(node: dict[str, str], job: ScoringJob) -> None:
    """Raise a RibError if a method or other external weights have the same name: both would be one row of a table."""
    spec, name = job.spec, node["name"]
    methods = (*options("method"), EXTERNAL)
    if all(part.strip().lower() in methods for part in name.split("+")):
        raise RibError(
            f"name: {name} is the name of a method of rib, whose runs these weights would look like; give "
            f"name=my_{name.replace('+', '_')}"
        )
    for other in job.store.finished(model=spec.start.name, source=spec.source_name, method=EXTERNAL):
        other_name = (other.metrics() or {"options": {}})["options"].get(f"method.{EXTERNAL}.name")
        if other_name != name or other.key == job.run.key:
            continue
        # The same weights may have several runs, with and without data.limit, which never share a table.
        if (_stored(other.weights_file) or node)["digest"] != node["digest"]:
            raise RibError(f"name: other weights already have the name {name} ({other.folder}); give name=ANOTHER")
