"""The story of one run, top to bottom: ask, look it up, claim it, fine-tune, score, measure, draw.

What a kill leaves behind is enough to go on: last.ckpt while training, weights.safetensors and fit.json after it, one
file of predictions a dataset; metrics.json comes last. A process that is one of several (DDP) tells the same story as
the others; rank zero alone writes.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rib import paper, stack, tables
from rib.config import instantiate, to_yaml
from rib.errors import RibError
from rib.files import write_atomically
from rib.launch import rank, say
from rib.loggers import shown
from rib.machine import agreed, environment, launch_processes
from rib.memo import Memo
from rib.progress import progress
from rib.published import show_published
from rib.question import NUMERICS, Ingredient, Question, ask, cache_dir
from rib.results import Scored, keep_paths, measure
from rib.schema import BatchNorm, Config
from rib.store import Run, RunStore

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from lightning.pytorch.loggers import Logger

    from rib.data.datamodule import RIBDataModule
    from rib.merging import Merging
    from rib.models.classifier import Classifier


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
        metrics = view_of(run, question) or {}
        tables.show_run(metrics, run.folder)
        if question.source is None:
            show_published(metrics, config.model.published)
    return run


def answer(question: Question, store: RunStore) -> Run:
    """The finished run of a question, made if need be; its `pretrained` run is made before it."""
    place = store.run(
        question.catalog.kind, question.start.name, question.source_name, question.method, question.training_key
    )
    force = question.config.force
    again = Run(place.folder.with_name(f"{place.key}.again"))
    if rank() == 0:
        _recover(place.folder)
    if agreed(question.config, lambda: view_of(place, question) is not None) and not force:
        return place
    if question.source is not None:
        from rib.merging import check_methods

        check_methods(question)  # before hours go into what a misspelt option then throws away
    before = None if question.source is None else answer(question.of_pretrained(), store)
    parts = [_part(question, part, store) for part in question.needs]
    # Two checkpoints while one replaces the other, each weights and an optimizer's two moments, and the final weights.
    needed = 14 * question.start.weights.stat().st_size + 30 * sum(map(len, question.scored.values()))
    with store.claim(place, needed):
        if agreed(question.config, lambda: view_of(place, question) is not None) and not force:
            return place  # another process made it while this one waited
        make(question, again if force else place, before, parts, store)
        if force and rank() == 0:
            _swap(again.folder, place.folder)
    return place


def view_of(run: Run, question: Question) -> dict[str, Any] | None:
    """A run's metrics for the suite, if they stand on exactly the images and the way of scoring that are asked for."""
    asked = (question.config.suite.name, question.config.experiment, _scores(question))
    views = ((view["suite"], view["protocol"]["experiment"], view["scores"]) for view in run.views())
    return next((view for view, made in zip(run.views(), views, strict=True) if made == asked), None)


def _part(question: Question, part: Ingredient, store: RunStore) -> Run:
    """A run that another needs, made if need be; two processes that need the same one make it once."""
    if part.folder is not None:
        return Run(part.folder)
    assert part.question is not None, "an ingredient is a folder or a question"
    asked = part.question
    there = store.run(asked.catalog.kind, asked.start.name, asked.source_name, asked.method, asked.training_key)
    if rank() == 0 and there.metrics() is None:
        known = store.seconds(asked.start.name, asked.method)
        about = f", about {max(1, known):.0f} s" if known is not None else ""
        say(f"{question.method} needs {part.label} (source {asked.source_name}, seed {asked.config.seed}){about}")
    try:
        return answer(asked, store)
    except RibError as error:
        raise RibError(f"{question.method} needs {part.label}, which failed: {error}") from error


def make(question: Question, run: Run, before: Run | None, parts: Sequence[Run], store: RunStore) -> None:
    """Everything between a claim and metrics.json; picks up where a killed process left off.

    Args:
        question: What is asked.
        run: Where it goes.
        before: The finished `pretrained` run; None if this is it.
        parts: Finished runs that this one is made from or starts from.
        store: The store, for what is shared between runs.
    """
    fabric = launch_processes(question.config)
    if fabric.is_global_zero:
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / "config.yaml").write_text(to_yaml(question.config))
        run.write_json("env.json", environment())
    merging = None
    if question.ingredients:
        from rib.merging import Merging

        assert before is not None, "merged weights have a start"
        merging = Merging(question, before, parts, _data(question), fabric)
    with shown(question, run) as loggers:
        if not fabric.broadcast(run.read_json("fit.json") is not None):
            if merging is not None:
                _merge(merging, run)
            else:
                fit(question, run, store, loggers, *parts)
        fabric.barrier()
        _score_missing(question, run, fabric, merging)
        if fabric.is_global_zero:
            publish(question, run, before or run, parts, store)
    fabric.barrier()


def _merge(merging: Merging, run: Run) -> None:
    """Put finished runs together and leave weights.safetensors (but for an ensemble of outputs) and fit.json."""
    from rib.weights import save_weights

    begun = time.perf_counter()
    weights = None if merging.together else merging.weights()
    if rank() == 0:
        if weights is not None:
            save_weights(weights, run.weights_file)
        each = [(part.read_json("fit.json") or {})["num_parameters"] for part in merging.parts]
        images = merging.statistics_images()
        notes = merging.method.report() | ({"batch_norm.images": images} if images else {})
        run.write_json(
            "fit.json",
            {
                "seconds": time.perf_counter() - begun,
                "num_parameters": sum(each) if weights is None else each[0],
                "notes": notes,
            },
        )


def fit(
    question: Question, run: Run, store: RunStore, loggers: Sequence[Logger] = (), probe: Run | None = None
) -> None:
    """Fine-tune (or, for `pretrained`, do not) and leave weights.safetensors and fit.json."""
    from torch.nn.modules.batchnorm import _BatchNorm

    from rib.models.zoo import build
    from rib.weights import save_weights

    begun = time.perf_counter()
    model = build(question.start, len(question.catalog.wnids))
    notes: dict[str, float] = {}
    if question.recipe is not None:
        notes = _train(question, run, store, model, loggers, probe)
        if moving := sum(isinstance(layer, _BatchNorm) for layer in model.modules()):
            notes["batch_norm.layers"] = moving
    if rank() == 0:
        state = model.stored_weights()
        if lost := next((name for name, t in state.items() if not t.isfinite().all()), None):
            raise RibError(
                f"fine-tuning ended with weights that are no finite numbers ({lost}); try a smaller optimizer.lr"
            )
        save_weights(state, run.weights_file)
        run.write_json(
            "fit.json",
            {
                "seconds": time.perf_counter() - begun,
                "num_parameters": sum(p.numel() for p in model.parameters()),
                "notes": notes,
            },
        )
        run.checkpoint.unlink(missing_ok=True)


def _train(
    question: Question, run: Run, store: RunStore, model: Classifier, loggers: Sequence[Logger], probe: Run | None
) -> dict[str, float]:
    """Lightning's part; returns what the methods report."""
    import lightning.pytorch as L
    from lightning.pytorch.loggers import CSVLogger

    from rib.callbacks import TrainingProgress
    from rib.checkpoint import KeepEpochs, Resume
    from rib.data.labels import LabelSpace
    from rib.merging import method_of
    from rib.module import FineTuner

    config, recipe, source = question.config, question.recipe, question.source
    assert recipe is not None and source is not None, "a run that trains has a source and a recipe"
    optimizer = {k: v for k, v in config.optimizer.items() if k != "warmup_steps"} | {"lr": recipe.lr}
    methods = sorted(
        (method_of(question, name, probe) for name in stack.trained(config)), key=lambda method: method.order
    )
    facts = {
        "start": question.start.digest,
        "source": source.digest,
        "transform": str(question.start.transform),
        "backend": config.data.image_backend,
        "architecture": question.start.architecture,
        "numerics": NUMERICS,
        # What changes the start model, or which of its weights train, changes its Fisher.
        "surgery": [(m.name, question.options_of(m.name)) for m in methods if m.order == 0 and m.name in config.method],
        "probe": question.probe and question.probe.key,
    }
    module = FineTuner(
        model,
        LabelSpace(paper.loss_groups(config, source.spec, len(question.catalog.wnids))),
        instantiate({**optimizer, "_partial_": True}),
        lr=recipe.lr,
        warmup_steps=recipe.warmup_steps,
        seed=config.seed,
        freeze_batch_norm=config.batch_norm == BatchNorm.frozen,
        memo=Memo(store.root / "memo", facts),
    )
    attempt = len(list((run.folder / "log").glob("*"))) if run.checkpoint.is_file() else 0
    kept = [KeepEpochs(run.folder / "epochs")] if config.checkpoint.keep_epochs else []
    title = f"{question.start.name}: {question.method} on {source.spec.title}"
    arguments: dict[str, Any] = {
        **config.trainer,
        "max_epochs": recipe.epochs,
        "precision": recipe.precision,
        "accumulate_grad_batches": config.accumulate,
        "gradient_clip_val": config.clip,
        "callbacks": [
            *methods,
            *kept,
            Resume(run.checkpoint, config.checkpoint.every_minutes),
            TrainingProgress(title),
        ],
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
    if resumed:
        say(f"going on from {resumed}")
    module.train()
    trainer.fit(module, datamodule=_data(question), ckpt_path=resumed, weights_only=False if resumed else None)
    return {name: value for method in module.methods for name, value in method.report().items()}


def _score_missing(question: Question, run: Run, fabric: Fabric, merging: Merging | None) -> None:
    """Score every dataset that this run has no predictions for: its own model, and those of a curve beside it."""
    missing = [n for n, key in question.score_keys.items() if not run.predictions_file(n, key).is_file()]
    missing = fabric.broadcast(missing)  # rank zero's look decides for all
    if not missing:
        return
    from rib.data.labels import LabelSpace
    from rib.models.zoo import build
    from rib.scoring import score_all

    def advance(done: int, note: str) -> None:
        tell(done * fabric.world_size, note)

    begun = time.perf_counter()
    together = merging.together if merging is not None else None
    if merging is not None and together:
        own = merging.models()
    else:
        start = replace(question.start, weights=run.weights_file)
        own = [build(start, len(question.catalog.wnids)).to(fabric.device)]
    curve = merging.variants() if merging is not None else {}
    data = _data(question)
    total = sum(len(question.scored[name]) for name in missing)
    with progress(f"{question.start.name}: scoring {question.method}", total) as tell:
        for name in missing:
            instead = merging.model_for(name) if merging is not None and not together else None
            predictions = score_all(
                [*([instead] if instead is not None else own), *curve.values()],
                data.evaluation_loader(name, rank=fabric.global_rank, world=fabric.world_size),
                LabelSpace(question.scored[name].spec.groups),
                len(question.scored[name]),
                device=fabric.device,
                precision=question.config.evaluation.precision,
                keep_logits=question.config.predictions.logits,
                together=together,
                advance=advance,
            )
            if predictions is not None and fabric.is_global_zero:
                key = question.score_keys[name]
                for label, of_variant in zip(curve, predictions[1:], strict=True):
                    of_variant.save(run.predictions_file(name, key, label))
                predictions[0].save(run.predictions_file(name, key))  # last: where it is, the curve's are too
    if fabric.is_global_zero:
        seconds = (run.read_json("scoring.json") or {"seconds": 0.0})["seconds"]
        run.write_json("scoring.json", {"seconds": seconds + time.perf_counter() - begun})
    fabric.barrier()


def publish(question: Question, run: Run, before: Run, parts: Sequence[Run], store: RunStore) -> None:
    """Measure, draw, and write metrics.json: from here on the run is finished."""
    from rib import figures

    for tree in question.scored.values():
        keep_paths(store.root, tree.digest, tree.paths)

    def measured(variant: str | None = None) -> dict[str, Any]:
        scored = [
            Scored.of(
                name,
                before.scored(name, question.score_keys[name]),
                run.scored(name, question.score_keys[name], variant),
                tree.paths,
                question.catalog,
            )
            for name, tree in question.scored.items()
        ]
        return measure(scored, question.source_name, question.config.suite.targets, question.catalog)

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
        **measured(),
        "seconds": {"fit": fitted["seconds"], "evaluate": scoring["seconds"]},
        "num_parameters": fitted["num_parameters"],
        "notes": fitted["notes"],
        "before": before.key,
        "scores": _scores(question),
    }
    if labels := run.variants(question.score_keys):
        metrics["curve"] = [{"label": label, **measured(label)} for label in labels]
        tables.write_curve(metrics, run.folder / "curve.csv")
    if question.ingredients:
        metrics["ingredients"] = [
            {"label": part.label, "source": part.source, "fingerprint": part.key} for part in question.ingredients
        ]
        metrics["best_ingredient"] = _best_ingredient(question, metrics, parts)
    figures.draw_run(metrics, run.folder)
    write_atomically(
        run.free_view(metrics["suite"], metrics["scores"]), (json.dumps(metrics, indent=1) + "\n").encode()
    )


def _best_ingredient(question: Question, metrics: dict[str, Any], parts: Sequence[Run]) -> dict[str, Any]:
    """The ingredient with the best accuracy on each dataset, among those that were not fine-tuned on it.

    An average is worth its cost where it beats them: by how much is ``gain``, in percentage points.
    """
    found = {}
    for name, entry in metrics["accuracy"].items():
        candidates = [
            (other["accuracy"][name]["after"], part.label)
            for part, run in zip(question.ingredients, parts, strict=True)
            if part.source != name and (other := run.metrics(metrics["suite"]) or run.metrics()) is not None
            if name in other["accuracy"]
        ]
        if candidates:
            accuracy, label = max(candidates)
            found[name] = {"label": label, "accuracy": accuracy, "gain": 100 * (entry["after"] - accuracy)}
    return found


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


def _recover(place: Path) -> None:
    """Finish a swap that was killed half-way."""
    for name in ("again", "old"):
        left = place.with_name(f"{place.name}.{name}")
        if not place.exists() and (left / "metrics.json").is_file():
            os.replace(left, place)


def _swap(new: Path, place: Path) -> None:
    """Put a run made again in the place of the finished one."""
    old = place.with_name(f"{place.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        os.replace(place, old)
    os.replace(new, place)
    shutil.rmtree(old, ignore_errors=True)
