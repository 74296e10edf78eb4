"""Fine-tune one model with Lightning and save its weights."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile

import rib.config
from rib.config.schema import BatchNorm
from rib.errors import DivergedError, RibError
from rib.runs import errata, method_stack
from rib.runs.fields import fisher_key
from rib.runs.images import data_of
from rib.runs.run import Run, weights_digest
from rib.runs.spec import RunSpec
from rib.runs.store import RunStore
from rib.runtime.artifacts import ArtifactCache
from rib.runtime.console import rank, say
from rib.runtime.files import file_digest
from rib.runtime.processes import trainer_plugins

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger
    from torch import Tensor

    from rib.methods.base import Method
    from rib.models.classifier import Classifier
    from rib.training.module import FineTuner


def fit(spec: RunSpec, run: Run, store: RunStore, loggers: Sequence[Logger] = (), probe: Run | None = None) -> None:
    """Fine-tune (or, for `pretrained`, do not) and leave weights.safetensors and fit.json."""
    from torch.nn.modules.batchnorm import _BatchNorm

    from rib.models.build import build
    from rib.models.weights import save_weights

    begun = time.perf_counter()
    model = build(spec.start, len(spec.catalog.wnids))
    notes: dict[str, float] = {}
    if spec.recipe is not None:
        notes, gathered = _train(spec, run, store, model, loggers, probe)
        if gathered:
            model = build(spec.start, len(spec.catalog.wnids))
            model.load_stored(gathered)
        if moving := sum(isinstance(layer, _BatchNorm) for layer in model.modules()):
            notes["batch_norm.layers"] = moving
    if rank() == 0:
        state = model.stored_weights()
        if lost := next((name for name, t in state.items() if not t.isfinite().all()), None):
            raise DivergedError(
                f"fine-tuning ended with weights that are no finite numbers ({lost}); try a smaller optimizer.lr"
            )
        save_weights(state, run.weights_file)
        run.write_json(
            "fit.json",
            {
                "seconds": time.perf_counter() - begun,
                "num_parameters": sum(p.numel() for p in model.parameters()),
                "notes": notes,
                "weights": file_digest(run.weights_file),
            },
        )
        run.checkpoint.unlink(missing_ok=True)


def _train(
    spec: RunSpec, run: Run, store: RunStore, model: Classifier, loggers: Sequence[Logger], probe: Run | None
) -> tuple[dict[str, float], dict[str, Tensor] | None]:
    """Lightning's part; returns what the methods report, and the weights where the model itself holds only shards."""
    import lightning.pytorch as L
    from lightning.pytorch.loggers import CSVLogger

    from rib.training.callbacks import StopAfter, TrainingProgress
    from rib.training.checkpoint import KeepEpochs, Resume

    config, recipe, source = spec.config, spec.recipe, spec.source
    assert recipe is not None and source is not None, "a run that trains has a source and a recipe"
    # By class attribute, then by name: the order of the command decides nothing.
    start = probe and str(probe.weights_file)
    named = [
        method_stack.build_method(config, name, probe=start) for name in sorted(method_stack.training_methods(config))
    ]
    methods = sorted(named, key=lambda method: method.order)
    module = _fine_tuner(spec, model, methods, store, probe)
    attempt = len(list((run.folder / "log").glob("*"))) if run.checkpoint.is_file() else 0
    kept = [KeepEpochs(run.folder / "epochs")] if config.checkpoint.keep_epochs else []
    title = f"{spec.start.name}: {spec.method} on {source.spec.title}"
    arguments: dict[str, Any] = {
        **config.trainer,
        "max_epochs": recipe.epochs,
        "precision": recipe.precision,
        "accumulate_grad_batches": config.accumulate,
        "gradient_clip_val": config.clip,
        "callbacks": [
            *methods,
            *kept,
            *([] if recipe.max_steps is None else [StopAfter(recipe.max_steps)]),
            Resume(run.checkpoint, config.checkpoint.every_minutes),
            TrainingProgress(title),
        ],
        "plugins": trainer_plugins(),
        "logger": [CSVLogger(run.folder, name="log", version=attempt), *loggers],
        "default_root_dir": run.folder,
        "log_every_n_steps": 1,
        "use_distributed_sampler": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    try:
        trainer = L.Trainer(**arguments)
    except Exception as error:
        raise RibError(f"trainer or precision: {' '.join(str(error).split())}") from error
    resumed = str(run.checkpoint) if run.checkpoint.is_file() else None
    if resumed and not _is_whole(run.checkpoint):
        raise RibError(f"{resumed} is damaged; delete it and give the command again, which begins this run anew")
    if resumed:
        say(f"going on from {resumed}")
    module.train()
    trainer.fit(module, datamodule=data_of(spec), ckpt_path=resumed, weights_only=False if resumed else None)
    return {name: value for method in module.methods for name, value in method.report().items()}, module.gathered


def _is_whole(checkpoint: Path) -> bool:
    """Whether each part of a checkpoint has the checksum that it was written with; torch does not look."""
    try:
        with ZipFile(checkpoint) as parts:
            return parts.testzip() is None
    except (OSError, BadZipFile, zlib.error):
        return False


def _fine_tuner(
    spec: RunSpec, model: Classifier, methods: Sequence[Method], store: RunStore, probe: Run | None
) -> FineTuner:
    """What Lightning trains."""
    from rib.data.labels import LabelSpace
    from rib.training.module import FineTuner

    config, recipe, source = spec.config, spec.recipe, spec.source
    assert recipe is not None and source is not None, "a run that trains has a source and a recipe"
    facts = {"fisher": fisher_key(spec, weights_digest(probe) if probe else None)}
    optimizer = {k: v for k, v in config.optimizer.items() if k != "warmup_steps"} | {"lr": recipe.lr}
    return FineTuner(
        model,
        LabelSpace(errata.loss_groups(config, source.spec, len(spec.catalog.wnids))),
        rib.config.instantiate({**optimizer, "_partial_": True}),
        lr=recipe.lr,
        warmup_steps=recipe.warmup_steps,
        seed=config.seed,
        freeze_batch_norm=config.batch_norm == BatchNorm.frozen,
        memo=ArtifactCache(store.root / "memo", facts, store.locks),
    )
