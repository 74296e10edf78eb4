"""Fine-tune one model with Lightning and save its weights."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile

from rib.config.schema import BatchNorm
from rib.errors import DivergedError, RibError
from rib.methods.build import build_object
from rib.runs import errata, method_stack
from rib.runs.fields import fisher_key
from rib.runs.images import data_of
from rib.runs.run import Run, weights_digest
from rib.runs.spec import RunSpec
from rib.runs.store import RunStore
from rib.runs.weights_metadata import weights_metadata
from rib.runtime.artifacts import ArtifactCache
from rib.runtime.console import rank
from rib.runtime.memory import training_memory
from rib.runtime.processes import device_name, load_lightning, trainer_plugins
from rib.runtime.weights_file import weights_file_digest

if TYPE_CHECKING:
    import lightning.pytorch as L
    from lightning.pytorch.loggers import Logger
    from torch import Tensor

    from rib.methods.base import Method
    from rib.models.classifier import Classifier
    from rib.training.module import FineTuner


def fit(spec: RunSpec, run: Run, store: RunStore, loggers: Sequence[Logger] = (), probe: Run | None = None) -> None:
    """Fine-tune a model and write weights.safetensors and fit.json; for `pretrained`, write the weights unchanged.

    A start without a head gets its probe first (`rib.training.probe`).

    Training resumes from last.ckpt if there is one.

    Args:
        spec: The run's configuration, with all options filled in.
        run: The run's folder, for its files.
        store: The store, for artifacts shared between runs.
        loggers: Loggers besides the CSV log in the run's folder.
        probe: The finished linear probe that training starts from, or None.

    Raises:
        DivergedError: If the loss or the final weights are NaN or infinite.
        RibError: If the Trainer or the optimizer refuses its options, or the checkpoint is damaged.
    """
    from torch.nn.modules.batchnorm import _BatchNorm

    from rib.models.build import build
    from rib.models.weights import save_weights

    start = time.perf_counter()
    model = build(spec.start)
    notes: dict[str, float] = {}
    if spec.start.headless:
        from rib.training.probe import fit_head

        assert spec.recipe is None, "runs that train start from the finished probe"
        notes = fit_head(spec, run, model)
    if spec.recipe is not None:
        notes, gathered = _train(spec, run, store, model, loggers, probe)
        if gathered:  # under FSDP the model holds only this process's shards: put the whole weights into a new one
            model = build(spec.start)
            model.load_stored(gathered)
        if count := sum(isinstance(layer, _BatchNorm) for layer in model.modules()):
            notes["batch_norm.layers"] = count
    if rank() == 0:
        state = model.stored_weights()
        # A finite loss does not rule this out: the last step's weights are used by no batch.
        if name := next((name for name, t in state.items() if not t.isfinite().all()), None):
            raise DivergedError(f"training produced NaN or infinite weights ({name}); try a smaller optimizer.lr")
        save_weights(state, run.weights_file, weights_metadata(spec))
        # Before fit.json, with which the fit is finished: killed in between, it begins again and leaves no large file.
        run.features_file.unlink(missing_ok=True)
        run.write_json(
            "fit.json",
            {
                "seconds": time.perf_counter() - start,
                "num_parameters": sum(p.numel() for p in model.parameters()),
                "notes": notes,
                "weights": weights_file_digest(run.weights_file),
                "device": device_name(str(spec.config.trainer.get("accelerator", "auto"))),
            },
        )
        run.checkpoint.unlink(missing_ok=True)


def _train(
    spec: RunSpec, run: Run, store: RunStore, model: Classifier, loggers: Sequence[Logger], probe: Run | None
) -> tuple[dict[str, float], dict[str, Tensor] | None]:
    """Train with Lightning; return what the methods report, and under FSDP the gathered weights (else None)."""
    load_lightning()
    from rib.training.acceleration import accelerate, compile_errors

    config = spec.config
    # By class attribute, then by name: the order on the command line has no influence, as it is in no key.
    probe_weights = probe and str(probe.weights_file)
    names = sorted(method_stack.training_methods(config))
    methods = sorted(
        (method_stack.build_method(config, name, probe=probe_weights) for name in names),
        key=lambda method: method.order,
    )
    module = _fine_tuner(spec, model, methods, store, probe)
    trainer = _trainer(spec, run, methods, loggers)
    resumed = str(run.checkpoint) if run.checkpoint.is_file() else None
    if resumed and not _is_whole(run.checkpoint):
        raise RibError(f"{resumed} is damaged; delete it and run the same command again to train from the start")
    accelerate(
        model,
        compiled=config.compile,
        checkpointed=config.gradient_checkpointing,
        frozen_batch_norm=config.batch_norm == BatchNorm.frozen,
    )
    module.train()  # since 2.2 Lightning leaves the mode as it finds it, and `build` may have loaded in eval mode
    with training_memory(), compile_errors() if config.compile else nullcontext():
        trainer.fit(module, datamodule=data_of(spec), ckpt_path=resumed, weights_only=False if resumed else None)
    return {name: value for method in module.methods for name, value in method.report().items()}, module.gathered


def _trainer(spec: RunSpec, run: Run, methods: Sequence[Method], loggers: Sequence[Logger]) -> L.Trainer:
    """Build Lightning's Trainer with the methods and rib's own callbacks.

    Raises:
        RibError: If Lightning refuses an option of ``trainer`` or the precision.
    """
    import lightning.pytorch as L
    from lightning.pytorch.loggers import CSVLogger

    from rib.training.callbacks import StopAfter, TrainingProgress
    from rib.training.log import TrainingLog
    from rib.training.profiler import PhaseProfiler
    from rib.training.resume import KeepEpochs, Resume

    config, recipe, source = spec.config, spec.recipe, spec.source
    assert recipe is not None and source is not None, "a run that trains has a source and a recipe"
    # A log folder per attempt: CSVLogger would overwrite the rows of the interrupted one.
    attempt = len(list((run.folder / "log").glob("*"))) if run.checkpoint.is_file() else 0
    keep_epochs = [KeepEpochs(run.folder / "epochs")] if config.checkpoint.keep_epochs else []
    title = f"{spec.start.name}: {spec.method} on {source.spec.title}"
    log = TrainingLog()
    arguments: dict[str, Any] = {
        **config.trainer,
        "max_epochs": recipe.epochs,
        "precision": recipe.precision,
        "accumulate_grad_batches": config.accumulate,
        "gradient_clip_val": config.clip,
        "callbacks": [
            *methods,
            *keep_epochs,
            *([] if recipe.max_steps is None else [StopAfter(recipe.max_steps)]),
            log,
            Resume(run.checkpoint, config.checkpoint.every_minutes),
            TrainingProgress(title, log),
        ],
        "plugins": trainer_plugins(),
        "logger": [CSVLogger(run.folder, name="log", version=attempt), *loggers],
        "default_root_dir": run.folder,
        "log_every_n_steps": 0,  # `TrainingLog` logs every step, without waiting for the device at each
        # rib's own samplers share batches among processes; Lightning's would shuffle again and repeat images.
        "use_distributed_sampler": False,
        "enable_checkpointing": False,  # `Resume` does it
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    if config.profile:
        if config.trainer.get("profiler") is not None:
            raise RibError("profile=true measures with a profiler of its own; leave trainer.profiler out")
        arguments["profiler"] = PhaseProfiler()
    try:
        return L.Trainer(**arguments)
    except Exception as error:
        raise RibError(f"trainer or precision: {' '.join(str(error).split())}") from error


def _is_whole(checkpoint: Path) -> bool:
    """Return True if all parts of a checkpoint have their recorded checksums, which torch.load does not verify."""
    try:
        with ZipFile(checkpoint) as archive:
            return archive.testzip() is None
    except (OSError, BadZipFile, zlib.error):
        return False


def _fine_tuner(
    spec: RunSpec, model: Classifier, methods: Sequence[Method], store: RunStore, probe: Run | None
) -> FineTuner:
    """Return the LightningModule that fine-tunes a model with a run's classes, methods, optimizer and schedule."""
    from rib.data.labels import LabelSpace
    from rib.training.acceleration import fused
    from rib.training.module import FineTuner

    config, recipe, source = spec.config, spec.recipe, spec.source
    assert recipe is not None and source is not None, "a run that trains has a source and a recipe"
    key_fields = {"fisher": fisher_key(spec, weights_digest(probe) if probe else None)}
    if (
        spec.head_images is not None
    ):  # fitted on another machine, a probe has the same key and may differ in last digits
        key_fields["start"] = weights_file_digest(spec.start.weights)
    optimizer = {k: v for k, v in config.optimizer.items() if k != "warmup_steps"} | {"lr": recipe.lr}
    return FineTuner(
        model,
        LabelSpace(errata.loss_groups(config, source.spec, len(spec.catalog.outputs))),
        build_object({**optimizer, **fused(optimizer, recipe.precision), "_partial_": True}),
        lr=recipe.lr,
        warmup_steps=recipe.warmup_steps,
        seed=config.seed,
        freeze_batch_norm=config.batch_norm == BatchNorm.frozen,
        memo=ArtifactCache(store.root / "memo", key_fields, store.locks),
    )
