"""The story of one run, top to bottom: ask, look it up, claim it, fine-tune, score, measure, draw.

What a kill leaves behind is enough to go on: last.ckpt while training, weights.safetensors and fit.json after it, one
file of predictions a dataset; metrics.json comes last. A process that is one of several (DDP) tells the same story as
the others; rank zero alone writes.
"""

from __future__ import annotations

import logging
import os
import platform
import shutil
import time
import warnings
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rib import tables
from rib.config import instantiate, to_yaml
from rib.launch import rank, say
from rib.memo import Memo
from rib.progress import progress
from rib.question import Question, ask, cache_dir
from rib.results import Scored, keep_paths, measure
from rib.schema import BatchNorm, Config
from rib.store import Run, RunStore

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from rib.data.datamodule import RIBDataModule
    from rib.models.classifier import Classifier


NOT_FOR_USERS = (
    ".*does not have many workers.*",  # cached crops need none
    ".*in eval mode at the start of training.*",  # frozen BatchNorm is meant to be
    ".*your dataloader is not resumable.*",  # it is, through the sampler (rib.data.sampler)
    ".*decoding and encoding capabilities of TorchVision are deprecated.*",  # PIL takes over where they are gone
    ".*isinstance.treespec, LeafSpec.. is deprecated.*",  # Lightning 2.6 on torch 2.15
)
"""Warnings of libraries about what is so on purpose, or theirs to mend."""


def finetune(config: Config) -> Run:
    """Answer one question: from the store if it is there, else by fine-tuning and scoring.

    Args:
        config: From `rib.config.compose` or a main.

    Returns:
        The finished run; its ``metrics()`` is what metrics.json holds.

    Raises:
        RibError: For whatever the user can mend.
    """
    question = ask(config)
    store = RunStore(config.paths.runs)
    run = answer(question, store)
    if rank() == 0:
        tables.show_run(run.metrics(config.suite.name) or {}, run.folder)
    return run


def answer(question: Question, store: RunStore) -> Run:
    """The finished run of a question, made if need be; its `pretrained` run is made before it."""
    place = store.run(
        question.catalog.kind, question.start.name, question.source_name, question.method, question.training_key
    )
    force = question.config.force
    again = Run(place.folder.with_name(f"{place.key}.again"))
    if is_answered(place, question) and not force:
        return place
    before = None if question.source is None else answer(question.of_pretrained(), store)
    needed = 6 * question.start.weights.stat().st_size + 30 * sum(map(len, question.scored.values()))
    with store.claim(place, needed):
        if is_answered(place, question) and not force:
            return place  # another process made it while this one waited
        make(question, again if force else place, before, store)
        if force and rank() == 0:
            _swap(again.folder, place.folder)
    return place


def is_answered(run: Run, question: Question) -> bool:
    """Whether a run's metrics for the suite stand on exactly the images and the way of scoring that are asked for."""
    metrics = run.metrics(question.config.suite.name)
    return (
        metrics is not None
        and metrics["suite"] == question.config.suite.name
        and metrics["scores"] == _scores(question)
    )


def make(question: Question, run: Run, before: Run | None, store: RunStore) -> None:
    """Everything between a claim and metrics.json; picks up where a killed process left off.

    Args:
        question: What is asked.
        run: Where it goes.
        before: The finished `pretrained` run; None if this is it.
        store: The store, for what is shared between runs.
    """
    fabric = _launch(question.config)
    if fabric.is_global_zero:
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / "config.yaml").write_text(to_yaml(question.config))
        run.write_json("env.json", _environment())
    if run.read_json("fit.json") is None:
        fit(question, run, store)
    fabric.barrier()
    _score_missing(question, run, fabric)
    if fabric.is_global_zero:
        publish(question, run, before or run, store)
    fabric.barrier()


def fit(question: Question, run: Run, store: RunStore) -> None:
    """Fine-tune (or, for `pretrained`, do not) and leave weights.safetensors and fit.json."""
    from rib.models.zoo import build
    from rib.weights import save_weights

    begun = time.perf_counter()
    model = build(question.start, len(question.catalog.wnids))
    notes: dict[str, float] = {}
    if question.recipe is not None:
        notes = _train(question, run, store, model)
    if rank() == 0:
        save_weights(model.backbone.state_dict(), run.weights_file)
        run.write_json(
            "fit.json",
            {
                "seconds": time.perf_counter() - begun,
                "num_parameters": sum(p.numel() for p in model.parameters()),
                "notes": notes,
            },
        )
        run.checkpoint.unlink(missing_ok=True)


def _train(question: Question, run: Run, store: RunStore, model: Classifier) -> dict[str, float]:
    """Lightning's part; returns what the methods report."""
    import lightning.pytorch as L
    from lightning.pytorch.loggers import CSVLogger

    from rib.callbacks import TrainingProgress
    from rib.checkpoint import Resume
    from rib.data.labels import LabelSpace
    from rib.module import FineTuner

    config, recipe, source = question.config, question.recipe, question.source
    assert recipe is not None and source is not None, "a run that trains has a source and a recipe"
    optimizer = {k: v for k, v in config.optimizer.items() if k != "warmup_steps"} | {"lr": recipe.lr}
    facts = {
        "start": question.start.digest,
        "source": source.digest,
        "transform": str(question.start.transform),
        "backend": config.data.image_backend,
    }
    module = FineTuner(
        model,
        LabelSpace(source.spec.groups),
        instantiate({**optimizer, "_partial_": True}),
        lr=recipe.lr,
        warmup_steps=recipe.warmup_steps,
        seed=config.seed,
        freeze_batch_norm=config.batch_norm == BatchNorm.frozen,
        memo=Memo(store.root / "memo", facts),
    )
    methods = [instantiate(node) for node in config.method.values() if node]
    attempt = len(list((run.folder / "log").glob("*"))) if run.checkpoint.is_file() else 0
    title = f"{question.start.name}: {question.method} on {source.spec.title}"
    trainer = L.Trainer(
        **config.trainer,
        max_epochs=recipe.epochs,
        precision=recipe.precision,  # type: ignore[arg-type]
        accumulate_grad_batches=config.accumulate,
        gradient_clip_val=config.clip,
        callbacks=[*methods, Resume(run.checkpoint, config.checkpoint.every_minutes), TrainingProgress(title)],
        logger=CSVLogger(run.folder, name="log", version=attempt),
        default_root_dir=run.folder,
        log_every_n_steps=1,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    resumed = str(run.checkpoint) if run.checkpoint.is_file() else None
    if resumed:
        say(f"going on from {resumed}")
    module.train()
    trainer.fit(module, datamodule=_data(question), ckpt_path=resumed, weights_only=False if resumed else None)
    return {name: value for method in module.methods for name, value in method.report().items()}


def _score_missing(question: Question, run: Run, fabric: Fabric) -> None:
    """Score every dataset that this run has no predictions for."""
    missing = [n for n, key in question.score_keys.items() if not run.predictions_file(n, key).is_file()]
    if not missing:
        return
    from rib.data.labels import LabelSpace
    from rib.models.zoo import build
    from rib.scoring import score

    def advance(done: int, note: str) -> None:
        tell(done * fabric.world_size, note)

    begun = time.perf_counter()
    start = replace(question.start, weights=run.weights_file)
    model = build(start, len(question.catalog.wnids)).to(fabric.device)
    data = _data(question)
    total = sum(len(question.scored[name]) for name in missing)
    with progress(f"{question.start.name}: scoring {question.method}", total) as tell:
        for name in missing:
            predictions = score(
                model,
                data.evaluation_loader(name, rank=fabric.global_rank, world=fabric.world_size),
                LabelSpace(question.scored[name].spec.groups),
                len(question.scored[name]),
                device=fabric.device,
                precision=question.config.evaluation.precision,
                keep_logits=question.config.predictions.logits,
                advance=advance,
            )
            if predictions is not None and fabric.is_global_zero:
                predictions.save(run.predictions_file(name, question.score_keys[name]))
    if fabric.is_global_zero:
        seconds = (run.read_json("scoring.json") or {"seconds": 0.0})["seconds"]
        run.write_json("scoring.json", {"seconds": seconds + time.perf_counter() - begun})
    fabric.barrier()


def publish(question: Question, run: Run, before: Run, store: RunStore) -> None:
    """Measure, draw, and write metrics.json: from here on the run is finished."""
    from rib import figures

    for tree in question.scored.values():
        keep_paths(store.root, tree.digest, tree.paths)
    scored = [
        Scored.of(
            name,
            before.scored(name, question.score_keys[name]),
            run.scored(name, question.score_keys[name]),
            tree.paths,
            question.catalog,
        )
        for name, tree in question.scored.items()
    ]
    fitted = run.read_json("fit.json") or {}
    scoring = run.read_json("scoring.json") or {"seconds": 0.0}
    metrics = {
        "schema": 1,
        "model": question.start.name,
        "source": question.source_name,
        "method": question.method,
        "options": question.options,
        "seed": question.config.seed if question.source is not None else None,
        "suite": question.config.suite.name,
        "fingerprint": question.training_key,
        "data": {"kind": question.catalog.kind, "digest": question.data_digest},
        "protocol": question.protocol,
        **measure(scored, question.source_name, question.config.suite.targets, question.catalog),
        "seconds": {"fit": fitted["seconds"], "evaluate": scoring["seconds"]},
        "num_parameters": fitted["num_parameters"],
        "notes": fitted["notes"],
        "before": before.key,
        "scores": _scores(question),
    }
    figures.draw_run(metrics, run.folder)
    first = run.read_json("metrics.json")
    name = "metrics.json" if first is None or first["suite"] == metrics["suite"] else f"metrics.{metrics['suite']}.json"
    run.write_json(name, metrics)


def _scores(question: Question) -> dict[str, dict[str, str]]:
    """What each number in metrics.json stands on: the score key and the digest of the images."""
    return {n: {"key": question.score_keys[n], "images": tree.digest} for n, tree in question.scored.items()}


def _data(question: Question) -> RIBDataModule:
    from rib.data.datamodule import RIBDataModule

    config = question.config
    return RIBDataModule(
        question.source,
        question.scored,
        question.start.transform,
        batch_size=config.batch_size,
        evaluation_batch_size=config.evaluation.batch_size,
        workers=config.data.workers,
        seed=config.seed,
        augment=str(config.data.augment),
        image_backend=str(config.data.image_backend),
        cache=cache_dir(config.paths.cache) / "crops",
    )


def _launch(config: Config) -> Fabric:
    """The devices and, for several, their processes: those of the Trainer, which joins them later."""
    import lightning.pytorch  # noqa: F401 - its loggers must exist before they are quieted
    from lightning.fabric import Fabric

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in NOT_FOR_USERS:
        warnings.filterwarnings("ignore", message=message)
    given = {k: config.trainer[k] for k in ("accelerator", "devices", "num_nodes", "strategy") if k in config.trainer}
    fabric = Fabric(**given)
    fabric.launch()
    return fabric


def _swap(new: Path, place: Path) -> None:
    """Put a run made again in the place of the finished one."""
    old = place.with_name(f"{place.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        os.replace(place, old)
    os.replace(new, place)
    shutil.rmtree(old, ignore_errors=True)


def _environment() -> dict[str, Any]:
    """What env.json lists: versions and the kind of machine, no name and no path."""
    import torch

    packages = ("rib", "torch", "torchvision", "lightning", "torchmetrics", "timm", "open_clip_torch", "hydra-core")
    cuda = torch.cuda.is_available()
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
    }
