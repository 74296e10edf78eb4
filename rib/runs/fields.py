"""Flat dictionary of everything that a run depends on, from which its hash keys are made; free of local paths.

Every option of the config is in it under its own name, unless `rib.runs.keys.RESOLVED` names what replaces it: digests
of content for images, weights and folders, registered names for rib's own methods, digests of files for the user's
code, and the resolved value for an option that is null. `rib.runs.keys` hashes it. torch is imported only for a run of
more than one process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rib.config.flatten import flat
from rib.config.schema import BatchNorm, Config
from rib.config.shipped import shipped_nodes
from rib.config.user_code import targets, user_code
from rib.data.tree import ImageTree
from rib.runs import errata, method_stack
from rib.runs.keys import METHOD_LEFT_OUT, METHOD_RESOLVED, NUMERICS, RESOLVED, find_entry, is_neutral, key_of
from rib.runtime.content import file_digest_of, folder_digest_of
from rib.runtime.processes import num_processes

if TYPE_CHECKING:
    from rib.models.start import Start
    from rib.runs.spec import RunSpec

READS_FILES: Mapping[str, tuple[str, ...]] = {"method.lwf.inputs": ("source", "augmented")}
"""Options of rib's own methods that may name a folder or a file, each with the values that do not."""


def resolved_fields(spec: RunSpec) -> dict[str, Any]:
    """Return a run spec as a flat dictionary: options by dotted name, and digests of its input files and code."""
    config, start, recipe = spec.config, spec.start, spec.recipe
    options = {name: value for name, value in flat(config).items() if find_entry(RESOLVED, name) is None}
    if code_digests(config.optimizer):
        # An optimizer of the user's own may read files, too.
        by_content = {f"optimizer.{k}": _by_content(None, k, v, spec.records) for k, v in config.optimizer.items()}
        options |= flat(by_content)
    return {
        **options,
        "numerics": NUMERICS,
        "start": start.digest,
        "library": start.library,
        "architecture": start.architecture,
        **{f"transform.{name}": value for name, value in asdict(start.transform).items()},
        **_source(spec),
        "epochs": recipe and recipe.epochs,
        "optimizer.lr": recipe and recipe.lr,
        "optimizer.warmup_steps": recipe and recipe.warmup_steps,
        "precision": recipe and recipe.precision,
        "steps": recipe and recipe.max_steps,
        "optimizer.code": code_digests(config.optimizer),
        "trainer.strategy": _strategy(config),
        "methods": method_fields(spec),
        "ingredients": [(ingredient.key, ingredient.source) for ingredient in spec.ingredients],
        "probe": spec.probe and spec.probe.key,
        # A method that chooses among ingredients compares accuracies, which depend on the precision of scoring.
        "chosen_at": config.evaluation.precision if spec.ingredients and spec.held_out is not None else None,
        "external": spec.external and [spec.external["digest"], spec.source_name],
        "processes": _processes(spec),
    }


def score_key(spec: Mapping[str, Any], tree: ImageTree) -> str:
    """Return the hash key of predictions on one dataset; it covers images and scoring, but not the weights.

    Args:
        spec: The run's `resolved_fields`.
        tree: The dataset's images.
    """
    return key_of({**spec, **image_fields("images", tree)}, "score")


def fisher_key(spec: RunSpec, probe: str | None) -> str:
    """Return the hash key of EWC's Fisher information: everything that it depends on, except the options of EWC itself.

    Args:
        spec: The run that estimates it.
        probe: Digest of the weights of the linear probe that training starts from; None without a probe.
    """
    # A method of the user's may change the start weights by any option of the run, so that nothing can be left out.
    nodes = method_stack.training_methods(spec.config).values()
    has_own = any(method_stack.registered_name(node) is None for node in nodes)
    surgery = spec.training_key if has_own else method_fields(spec, surgery=True)
    return key_of({**spec.fields, "surgery": surgery, "probe": probe}, "fisher")


def method_fields(spec: RunSpec, surgery: bool = False) -> list[list[Any]]:
    """Return the methods that determine a run's weights, with their options and digests of code, sorted by name.

    Args:
        spec: The run; of a merged one, only the merging method counts (its ingredients have keys of their own).
        surgery: Only methods that may change the start model, or choose which weights train, before a Fisher is
            estimated.

    Returns:
        For each method its registered name or class, its options, and the digests of the user's code.
    """
    if spec.external is not None:
        return []
    names = [spec.merged] if spec.ingredients and spec.merged else sorted(method_stack.training_methods(spec.config))
    found: list[list[Any]] = []
    for name in names:
        node = spec.config.method[name]
        registered = method_stack.registered_name(node)
        if not (surgery and registered in method_stack.LEAVE_THE_START):
            defaults = shipped_nodes("method")[registered] if registered else {}
            resolved = METHOD_RESOLVED.keys() - ({"lr"} - method_stack.read_by_rib(node))
            options = {key: value for key, value in {**defaults, **node}.items() if key not in resolved}
            content = {key: _by_content(registered, key, value, spec.records) for key, value in options.items()}
            written = {k: v for k, v in content.items() if not (registered and _is_in_no_key(registered, k, v))}
            found.append([registered or node["_target_"], written, code_digests(node)])
    return found


def _is_in_no_key(method: str, option: str, value: object) -> bool:
    name = f"method.{method}.{option}"
    return name in METHOD_LEFT_OUT or is_neutral(name, value)


def content_options(spec: RunSpec) -> dict[str, Any]:
    """Return digests of files that a run's options name, and of the user's code, by dotted name, for metrics.json."""
    config, found = spec.config, {}
    nodes = {f"method.{name}": node for name, node in config.method.items() if node and "_target_" in node}
    for where, node in {**nodes, "optimizer": config.optimizer}.items():
        if code := code_digests(node):
            found[f"{where}.code"] = " ".join(code)
        for key, value in node.items():
            content = _by_content(method_stack.registered_name(node), key, value, spec.records)
            if (where in nodes or code_digests(node)) and key not in METHOD_RESOLVED and content != value:
                found[f"{where}.{key}.content"] = content
    return found


def image_fields(name: str, tree: ImageTree) -> dict[str, Any]:
    """Return the fields, named ``<name>.*``, that determine which images and labels of a dataset a model sees."""
    return {
        f"{name}.images": tree.digest,
        f"{name}.classes": tree.spec.groups,
        f"{name}.border": tree.spec.border,
        f"{name}.precropped": tree.spec.precropped,
    }


def _source(spec: RunSpec) -> dict[str, Any]:
    """Return the fields that describe the training images, the held-out images and the classes of the loss."""
    config, source = spec.config, spec.source
    if source is None:
        return {}
    groups = errata.loss_groups(config, source.spec, len(spec.catalog.outputs))
    return {
        **image_fields("source", source),
        "held_out.images": spec.held_out and spec.held_out.digest,
        "loss.classes": groups,
        # With subset_seed=null a run at seed 0 has the images of subset_seed=0, but it is another run: over seeds its
        # images vary, and an interval over seeds includes that.
        "data.subset_seed": "seed" if spec.draws_subset and config.data.subset_seed is None else None,
    }


def _strategy(config: Config) -> str:
    """Return the name of the Trainer's strategy; ``replicated`` if every process holds all weights (one process, DDP).

    Sharded strategies (FSDP) round differently.
    """
    strategy = str(config.trainer.get("strategy", "auto"))
    return "replicated" if strategy == "auto" or strategy.startswith("ddp") else strategy


def _processes(spec: RunSpec) -> int:
    """Return the number of training processes if it affects results by more than rounding errors, else 1."""
    config = spec.config
    if not spec.trains or (count := num_processes(config)) == 1:
        return 1
    # What code of the user's does with its rank cannot be known.
    has_own = any(code_digests(node) for node in [config.optimizer, *method_stack.training_methods(config).values()])
    moves = config.batch_norm == BatchNorm.update and not config.trainer.get("sync_batchnorm", False)
    return count if has_own or _varies(spec.start, moves) else 1


@cache
def _varies(start: Start, batch_norm_moves: bool) -> bool:
    """Return True if results of training this model depend on the number of processes.

    Each process draws its own random numbers (dropout) and updates BatchNorm statistics on its own images.
    """
    import torch

    from rib.models.backbone import build_backbone
    from rib.models.randomness import depends_on_processes

    with torch.device("meta"):  # the layers without their weights: no memory, no time
        return depends_on_processes(build_backbone(start), batch_norm_moves)


def _by_content(registered: str | None, key: str, value: Any, records: Path | None) -> Any:
    """Return an option's value, with the paths of files and folders in it replaced by digests of their content.

    Args:
        registered: Name of a method of rib's, of which the options of `READS_FILES` may name files; None for the
            user's code, in which every text that is the path of something on the disk is replaced.
        key: The option.
        value: Its value.
        records: Folder with known digests of files; None to read every file.
    """
    if isinstance(value, dict):
        return {k: _by_content(registered, key, child, records) for k, child in value.items()}
    if isinstance(value, list):
        return [_by_content(registered, key, child, records) for child in value]
    path = option_path(registered, key, value)
    if path is None:
        return value
    if isinstance(path, list):
        return {"content": [file_digest_of(file, records) for file in path]}
    return {"content": folder_digest_of(path, records) if path.is_dir() else file_digest_of(path, records)}


def option_path(registered: str | None, key: str, value: object) -> Path | list[Path] | None:
    """Return the file or folder that an option's value names, or the files that match it as a glob pattern, or None."""
    words = READS_FILES.get(f"method.{registered}.{key}", (value,)) if registered else ("",)
    if not isinstance(value, str) or value in words:
        return None
    path = Path(value).expanduser()
    try:
        if path.exists():
            return path
        # Path.glob takes no absolute pattern.
        return [Path(f) for f in sorted(glob(str(path), recursive=True)) if Path(f).is_file()] or None  # noqa: PTH207
    except OSError:  # the text is too long for a file name
        return None


def code_digests(node: Mapping[str, Any]) -> list[str]:
    """Return one digest for each class or function of the user's own code that a config block names (``_target_``)."""
    found = (user_code(target) for target in dict.fromkeys(targets(node)))
    return [code.digest for code in found if code is not None]
