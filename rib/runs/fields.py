"""A fully resolved run: one flat dictionary in which nothing is left open and nothing depends on where things lie.

Every option of the config is in it under its own name, unless `rib.runs.keys.SETTLED` says as what else it is: images,
weights and folders by the digest of their content, rib's own methods by their registered names, the user's code by what
it does, null by what it came to. `rib.runs.keys` makes the keys of it. No torch, unless there is more than one process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rib.config.schema import BatchNorm, Config, flat
from rib.config.shipped import shipped_nodes
from rib.config.user_code import targets, user_code
from rib.data.tree import ImageTree
from rib.runs import errata, method_stack
from rib.runs.keys import METHOD_SETTLED, NUMERICS, SETTLED, find_entry, is_neutral, key_of
from rib.runtime.content import file_digest_of, folder_digest_of
from rib.runtime.processes import num_processes

if TYPE_CHECKING:
    from rib.models.start import Start
    from rib.runs.spec import RunSpec

READS_FILES: Mapping[str, tuple[str, ...]] = {"method.lwf.inputs": ("source", "augmented")}
"""Options of rib's own methods that may be a folder or a file, with the words that are none."""


def spec_of(spec: RunSpec) -> dict[str, Any]:
    """Everything that a run was resolved to, by flat name."""
    config, start, recipe = spec.config, spec.start, spec.recipe
    options = {name: value for name, value in flat(config).items() if find_entry(SETTLED, name) is None}
    if _code(config.optimizer):
        told = {f"optimizer.{k}": _by_content(None, k, v, spec.records) for k, v in config.optimizer.items()}
        options |= flat(told)
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
        "optimizer.code": _code(config.optimizer),
        "trainer.strategy": _strategy(config),
        "methods": methods_of(spec),
        "ingredients": [(part.key, part.source) for part in spec.ingredients],
        "probe": spec.probe and spec.probe.key,
        # What chooses among ingredients does so by accuracies, which the precision of scoring may change.
        "chosen_at": config.evaluation.precision if spec.ingredients and spec.held_out is not None else None,
        "external": spec.external and [spec.external["digest"], spec.source_name],
        "processes": _processes(spec),
    }


def score_key(spec: Mapping[str, Any], tree: ImageTree) -> str:
    """The key of a model's predictions on one dataset, beside the key of its weights."""
    return key_of({**spec, **_images("images", tree)}, "score")


def fisher_key(spec: RunSpec, probe: str | None) -> str:
    """What an EWC Fisher depends on besides the options of EWC itself.

    Args:
        spec: The run that wants it.
        probe: Digest of the weights of the linear probe that it starts from; None where it starts from the model.
    """
    # The user's may change the start at any moment, by any option of the run.
    theirs = any(
        method_stack.registered_name(node) is None for node in method_stack.training_methods(spec.config).values()
    )
    surgery = spec.training_key if theirs else methods_of(spec, surgery=True)
    return key_of({**spec.fields, "surgery": surgery, "probe": probe}, "fisher")


def methods_of(spec: RunSpec, surgery: bool = False) -> list[list[Any]]:
    """The methods of a stack that decide its weights, in one order whatever the order of the command.

    Args:
        spec: Whose stack; of a run that is made from others, the one that makes it.
        surgery: Only what may change the start model, or which of its weights train, before a Fisher is estimated.

    Returns:
        For each its registered name or class, its options, and the digests of the user's code.
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
            settled = METHOD_SETTLED.keys() - ({"lr"} - method_stack.read_by_rib(node))
            options = {key: value for key, value in {**defaults, **node}.items() if key not in settled}
            told = {key: _by_content(registered, key, value, spec.records) for key, value in options.items()}
            written = {k: v for k, v in told.items() if not (registered and is_neutral(f"method.{registered}.{k}", v))}
            found.append([registered or node["_target_"], written, _code(node)])
    return found


def content_options(spec: RunSpec) -> dict[str, Any]:
    """What options leave unsaid of a run: digests of the files that they name, and of the user's code, by flat name."""
    config, found = spec.config, {}
    nodes = {f"method.{name}": node for name, node in config.method.items() if node and "_target_" in node}
    for where, node in {**nodes, "optimizer": config.optimizer}.items():
        if code := _code(node):
            found[f"{where}.code"] = " ".join(code)
        for key, value in node.items():
            told = _by_content(method_stack.registered_name(node), key, value, spec.records)
            if (where in nodes or _code(node)) and key not in METHOD_SETTLED and told != value:
                found[f"{where}.{key}.content"] = told
    return found


def _images(name: str, tree: ImageTree) -> dict[str, Any]:
    """What decides what a dataset's images and labels are to a model."""
    return {
        f"{name}.images": tree.digest,
        f"{name}.classes": tree.spec.groups,
        f"{name}.border": tree.spec.border,
        f"{name}.precropped": tree.spec.precropped,
    }


def _source(spec: RunSpec) -> dict[str, Any]:
    """The images that train, those that are kept from it, and the classes of the loss."""
    config, source = spec.config, spec.source
    if source is None:
        return {}
    groups = errata.loss_groups(config, source.spec, len(spec.catalog.wnids))
    return {
        **_images("source", source),
        "held_out.images": spec.held_out and spec.held_out.digest,
        "loss.classes": groups,
        # At seed 0 the images are those of subset_seed=0, but the run is one of those whose images vary.
        "data.subset_seed": "seed" if spec.draws_subset and config.data.subset_seed is None else None,
    }


def _strategy(config: Config) -> str:
    """How weights are held: FSDP has a rounding of its own; whoever holds all of them computes the same."""
    strategy = str(config.trainer.get("strategy", "auto"))
    return "replicated" if strategy == "auto" or strategy.startswith("ddp") else strategy


def _processes(spec: RunSpec) -> int:
    """How many processes train, where that changes more than rounding; else 1."""
    config = spec.config
    if not spec.trains or (count := num_processes(config)) == 1:
        return 1
    theirs = any(_code(node) for node in [config.optimizer, *method_stack.training_methods(config).values()])
    moves = config.batch_norm == BatchNorm.update and not config.trainer.get("sync_batchnorm", False)
    return count if theirs or _varies(spec.start, moves) else 1


@cache
def _varies(start: Start, batch_norm_moves: bool) -> bool:
    """Whether a network draws numbers, or moves statistics, in each process for itself."""
    import torch

    from rib.models.backbone import build_backbone
    from rib.models.randomness import depends_on_processes

    with torch.device("meta"):
        return depends_on_processes(build_backbone(start), batch_norm_moves)


def _by_content(registered: str | None, key: str, value: Any, records: Path | None) -> Any:
    """A method's option with files and folders told by their content.

    Of rib's own methods those of `READS_FILES` may be one; of the user's any text that names something on the disk.
    """
    if isinstance(value, dict):
        return {k: _by_content(registered, key, child, records) for k, child in value.items()}
    if isinstance(value, list):
        return [_by_content(registered, key, child, records) for child in value]
    place = _place(registered, key, value)
    if place is None:
        return value
    if isinstance(place, list):
        return {"content": [file_digest_of(file, records) for file in place]}
    return {"content": folder_digest_of(place, records) if place.is_dir() else file_digest_of(place, records)}


def _place(registered: str | None, key: str, value: object) -> Path | list[Path] | None:
    """The file or folder that an option names, or the files that it matches; None where it names none."""
    words = READS_FILES.get(f"method.{registered}.{key}", (value,)) if registered else ("",)
    if not isinstance(value, str) or value in words:
        return None
    place = Path(value).expanduser()
    try:
        if place.exists():
            return place
        return [Path(f) for f in sorted(glob(str(place), recursive=True)) if Path(f).is_file()] or None  # noqa: PTH207
    except OSError:  # a text too long for a name
        return None


def files_of(spec: RunSpec) -> list[Path]:
    """Every file and folder that options of a run name."""
    found: list[Path] = []

    def walk(registered: str | None, key: str, value: object) -> None:
        if isinstance(value, dict | list):
            for child in value.values() if isinstance(value, dict) else value:
                walk(registered, key, child)
        elif (place := _place(registered, key, value)) is not None:
            found.extend(place if isinstance(place, list) else [place])

    for node in [*method_stack.training_methods(spec.config).values(), spec.config.optimizer]:
        if "_target_" in node and (method_stack.registered_name(node) is not None or _code(node)):
            for key, value in node.items():
                if key not in METHOD_SETTLED:
                    walk(method_stack.registered_name(node), key, value)
    return found


def _code(node: Mapping[str, Any]) -> list[str]:
    """Digests of the user's code behind a node."""
    found = (user_code(target) for target in dict.fromkeys(targets(node)))
    return [code.digest for code in found if code is not None]
