"""The story of one run, top to bottom: ask, look it up, claim it, fine-tune, score, measure, draw.

What a kill leaves behind is enough to go on: last.ckpt while training, weights.safetensors and fit.json after it, one
file of predictions a dataset; metrics.json comes last. A process that is one of several (DDP) tells the same story as
the others; rank zero alone writes.
"""

from __future__ import annotations

import json
import shutil
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile

from rib import paper, stack, tables
from rib.asking import ask, cache_dir
from rib.commands import command_of
from rib.config import instantiate, to_yaml
from rib.errors import DivergedError, RibError
from rib.files import file_digest, write_atomically
from rib.inputs import Watch
from rib.launch import rank, say
from rib.loggers import shown
from rib.machine import agreed, check_batch, environment, is_known, launch_processes, trainer_plugins
from rib.memo import Memo
from rib.metrics import family_of
from rib.published import show_published
from rib.question import Ingredient, Question
from rib.results import Scored, held_out_accuracy, keep_paths, measure
from rib.schema import BatchNorm, Config
from rib.spec import fisher_key
from rib.store import Run, RunStore, out_of_date, unscored, view_of, weights_digest
from rib.user_code import copy_code, installed_versions

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from lightning.pytorch.loggers import Logger
    from torch import Tensor

    from rib.data.datamodule import RIBDataModule
    from rib.merging import Merging
    from rib.methods.base import Method
    from rib.models.classifier import Classifier
    from rib.module import FineTuner

MADE_FROM = "made_from.json"
"""In a run's folder: digests of the weights of the runs that it needs, as they were when it was begun."""


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


def stored(config: Config) -> Run | None:
    """The finished run that answers a question, if it is in the store and is not to be made again."""
    question = ask(config)
    place = RunStore(config.paths.runs).place(question)
    return None if config.force or view_of(place, question) is None else place


def answer(question: Question, store: RunStore) -> Run:
    """The finished run of a question, made if need be; its `pretrained` run is made before it."""
    place = store.place(question)
    force = question.config.force

    def known() -> bool:
        return not force and view_of(place, question) is not None

    if not known():
        look_at_images(question)  # before there are other processes, which would wait for it
    if is_known(question.config, known):
        return place
    if question.source is not None:
        from rib.merging import check_methods

        check_methods(question)  # before hours go into what a misspelt option then throws away
        if question.trains:
            check_batch(question.config)
    if question.source is None:
        before = None
    else:
        before = (_sound if question.ingredients else answer)(question.of_pretrained(), store)
    parts = [_part(question, part, store) for part in question.needs]
    # Two checkpoints while one replaces the other, each weights and an optimizer's two moments, and the final weights.
    needed = 14 * question.start.num_bytes + 30 * sum(map(len, question.images.values()))
    with store.claim(place, needed) as claim:
        if claim is not None:
            store.recover(place)
        force = force or agreed(question.config, lambda: _is_old(question, place))
        # Another process may have made it while this one waited.
        if agreed(question.config, lambda: view_of(place, question) is not None) and not force:
            return place
        work = agreed(question.config, lambda: store.begin(place, claim, force) if claim is not None else place)
        make(question, work, before, parts, store)
        if claim is not None:
            store.publish(work, place, claim, force)
            say(f"made {place.folder}")
    return place


def _is_old(question: Question, run: Run) -> bool:
    """Whether a finished run was made from others that hold other weights by now, which is said."""
    views = run.views() if run.metrics() is not None else []
    changed = next(filter(None, (out_of_date(view, question, run) for view in views)), None)
    if changed is not None:
        say(f"{run.folder} is out of date: {changed} has other weights than those that it was made from; made again")
    return changed is not None


def _begin(question: Question, run: Run, parts: Sequence[Run]) -> None:
    """Write down what is made and from what; what was begun from other weights of these runs is thrown away."""
    made_from = {"weights": [weights_digest(part) for part in parts]}
    if parts and run.read_json(MADE_FROM) not in (None, made_from):
        shutil.rmtree(run.folder)
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "config.yaml").write_text(to_yaml(question.config))
    record_code(question, run)
    if parts:
        run.write_json(MADE_FROM, made_from)


def record_code(question: Question, run: Run) -> None:
    """Keep what a run was made with: versions in env.json, and the user's own files in code/."""
    nodes = [question.config.method, question.config.optimizer]
    about = environment()
    run.write_json("env.json", about | {"versions": about["versions"] | installed_versions(nodes)})
    copy_code(nodes, run.folder / "code")


def _part(question: Question, part: Ingredient, store: RunStore) -> Run:
    """A run that another needs, made if need be; two processes that need the same one make it once."""
    if part.folder is not None:
        run = Run(part.folder)
        if not run.is_intact:
            again = f"make that run again with {command_of(run, force=True)}"
            raise RibError(f"{run.weights_file} is damaged: it is not what was written; {again}")
        return run
    assert part.question is not None, "an ingredient is a folder or a question"
    asked = part.question
    if rank() == 0 and store.place(asked).metrics() is None:
        known = store.seconds(asked.start.name, asked.method)
        about = f", about {max(1, known):.0f} s" if known is not None else ""
        say(f"{question.method} needs {part.label} (source {asked.source_name}, seed {asked.config.seed}){about}")
    try:
        return _sound(asked, store)
    except RibError as error:
        raise type(error)(f"{question.method} needs {part.label}, which failed: {error}") from error


def _sound(question: Question, store: RunStore) -> Run:
    """A run whose weights are about to be used; made again where its file is not what was written."""
    run = answer(question, store)
    if agreed(question.config, lambda: run.is_intact):
        return run
    say(f"{run.weights_file} is damaged: it is not what was written; this run is made again")
    return answer(replace(question, config=replace(question.config, force=True)), store)


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
    watch = Watch(question, run) if fabric.is_global_zero else None
    if fabric.is_global_zero and run.metrics() is None:  # else its weights are there, and what they were made with
        _begin(question, run, parts)
    merging = None
    if question.ingredients:
        from rib.merging import Merging

        assert before is not None, "merged weights have a start"
        merging = Merging(question, before, parts, data_of(question), fabric)
    with shown(question, run) as loggers, _watched(watch):
        fitted = fabric.broadcast(run.read_json("fit.json") is not None)
        if fitted and not fabric.broadcast(run.is_intact):
            raise RibError(
                f"{run.weights_file} is damaged: it is not what was written; say force=true to make it again"
            )
        if not fitted:
            if merging is not None:
                _merge(merging, run)
            else:
                fit(question, run, store, loggers, *parts)
        fabric.barrier()
        _score_missing(question, run, fabric, merging)
        if watch is not None:
            watch.check()
            publish(question, run, before or run, parts, store)
    fabric.barrier()


@contextmanager
def _watched(watch: Watch | None) -> Iterator[None]:
    """Leave nothing of an attempt that failed after the files that it read were changed: it would be gone on with."""
    try:
        yield
    except BaseException:
        if watch is not None and watch.run.metrics() is None:
            with suppress(RibError, OSError):
                watch.check()
        raise


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
                "weights": None if weights is None else file_digest(run.weights_file),
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
        notes, gathered = _train(question, run, store, model, loggers, probe)
        if gathered:
            model = build(question.start, len(question.catalog.wnids))
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
    question: Question, run: Run, store: RunStore, model: Classifier, loggers: Sequence[Logger], probe: Run | None
) -> tuple[dict[str, float], dict[str, Tensor] | None]:
    """Lightning's part; returns what the methods report, and the weights where the model itself holds only shards."""
    import lightning.pytorch as L
    from lightning.pytorch.loggers import CSVLogger

    from rib.callbacks import StopAfter, TrainingProgress
    from rib.checkpoint import KeepEpochs, Resume
    from rib.merging import method_of

    config, recipe, source = question.config, question.recipe, question.source
    assert recipe is not None and source is not None, "a run that trains has a source and a recipe"
    # By class attribute, then by name: the order of the command decides nothing.
    named = [method_of(question, name, probe) for name in sorted(stack.trained(config))]
    methods = sorted(named, key=lambda method: method.order)
    module = _fine_tuner(question, model, methods, store, probe)
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
    trainer.fit(module, datamodule=data_of(question), ckpt_path=resumed, weights_only=False if resumed else None)
    return {name: value for method in module.methods for name, value in method.report().items()}, module.gathered


def _is_whole(checkpoint: Path) -> bool:
    """Whether each part of a checkpoint has the checksum that it was written with; torch does not look."""
    try:
        with ZipFile(checkpoint) as parts:
            return parts.testzip() is None
    except (OSError, BadZipFile, zlib.error):
        return False


def _fine_tuner(
    question: Question, model: Classifier, methods: Sequence[Method], store: RunStore, probe: Run | None
) -> FineTuner:
    """What Lightning trains."""
    from rib.data.labels import LabelSpace
    from rib.module import FineTuner

    config, recipe, source = question.config, question.recipe, question.source
    assert recipe is not None and source is not None, "a run that trains has a source and a recipe"
    facts = {"fisher": fisher_key(question, weights_digest(probe) if probe else None)}
    optimizer = {k: v for k, v in config.optimizer.items() if k != "warmup_steps"} | {"lr": recipe.lr}
    return FineTuner(
        model,
        LabelSpace(paper.loss_groups(config, source.spec, len(question.catalog.wnids))),
        instantiate({**optimizer, "_partial_": True}),
        lr=recipe.lr,
        warmup_steps=recipe.warmup_steps,
        seed=config.seed,
        freeze_batch_norm=config.batch_norm == BatchNorm.frozen,
        memo=Memo(store.root / "memo", facts, store.claims),
    )


def _score_missing(question: Question, run: Run, fabric: Fabric, merging: Merging | None) -> None:
    """Score every dataset that this run has no predictions for: its own model, and those of a curve beside it."""
    missing = fabric.broadcast(unscored(question, run))  # rank zero's look decides for all
    if missing:
        from rib.onepass import Entry, score_together

        entry = Entry.load(question, run, missing, data_of(question), fabric, merging)
        score_together([entry], fabric, f"{question.start.name}: scoring {question.method}")


def publish(question: Question, run: Run, before: Run, parts: Sequence[Run], store: RunStore) -> None:
    """Measure, draw, and write metrics.json: from here on the run is finished."""
    from rib import figures

    for tree in (*question.images.values(), *filter(None, (question.held_out,))):
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
        "suite": question.suite,
        "fingerprint": question.training_key,
        "data": {"kind": question.catalog.kind, "digest": question.data_digest, "found": question.images_found},
        "protocol": question.protocol,
        "trained_on": question.trained_on,
        **measured(),
        "seconds": {"fit": fitted["seconds"], "evaluate": scoring["seconds"]},
        "num_parameters": fitted["num_parameters"],
        "notes": fitted["notes"],
        "before": before.key,
        "scores": question.scores,
    }
    if question.source is not None and question.held_out is not None:
        name = str(question.choosing)
        start, end = (r.scored(name, question.score_keys[name]) for r in (before, run))
        metrics["held_out"] = held_out_accuracy(start, end, question.images[name].paths, question.held_out)
    if labels := run.variants(question.score_keys):
        metrics["curve"] = [{"label": label, **measured(label)} for label in labels]
        tables.write_curve(metrics, run.folder / "curve.csv")
    if question.ingredients:
        metrics["ingredients"] = _used(question, run)
        metrics["best_ingredient"] = _best_ingredient(question, metrics, parts)
    if question.probe is not None:
        metrics["probe"] = _used(question, run)[0]
    figures.draw_run(metrics, run.folder)
    write_atomically(run.view_file(metrics), (json.dumps(metrics, indent=1) + "\n").encode())


def _used(question: Question, run: Run) -> list[dict[str, str | None]]:
    """Which weights of which runs were used: another making of the same run may have others."""
    weights = (run.read_json(MADE_FROM) or {})["weights"]
    return [
        {"label": part.label, "source": part.source, "fingerprint": part.key, "weights": digest}
        for part, digest in zip(question.needs, weights, strict=True)
    ]


def _best_ingredient(question: Question, metrics: dict[str, Any], parts: Sequence[Run]) -> dict[str, Any]:
    """The ingredient with the best accuracy on each dataset, among those that were not fine-tuned on it.

    An average is worth its cost where it beats them: by how much is ``gain``, in percentage points. Where a RIB soup
    leaves out a whole family (``leave_out: family``), so does what it is compared with.
    """
    derived_from = {name: spec.derived_from for name, spec in question.catalog.specs.items()}
    by_family = question.config.method[str(question.merged)].get("leave_out") == "family"

    def kin(name: str) -> str:
        return family_of(name, derived_from) if by_family else name

    found = {}
    for name, entry in metrics["accuracy"].items():
        candidates = [
            (other["accuracy"][name]["after"], part.label)
            for part, run in zip(question.ingredients, parts, strict=True)
            if kin(part.source) != kin(name) and (other := run.metrics(metrics["suite"]) or run.metrics()) is not None
            if name in other["accuracy"]
        ]
        if candidates:
            accuracy, label = max(candidates)
            found[name] = {"label": label, "accuracy": accuracy, "gain": 100 * (entry["after"] - accuracy)}
    return found


def look_at_images(question: Question) -> None:
    """Say which images are damaged before anything is made of them; mini's are drawn here.

    Raises:
        RibError: If there are any and ``data.damaged`` is ``refuse``.
    """
    if question.catalog.kind == "mini":
        return
    from rib.data.damage import heed

    config, source = question.config, [] if question.source is None else [question.source]
    records = Path(config.paths.runs) / "datasets"
    heed([*question.images.values(), *source], records, str(config.data.damaged), config.data.rescan)


def data_of(question: Question) -> RIBDataModule:
    """What serves a question's images."""
    from rib.data.datamodule import RIBDataModule

    config = question.config
    return RIBDataModule(
        question.source,
        question.images,
        question.start.transform,
        batch_size=config.batch_size,
        evaluation_batch_size=config.evaluation.batch_size,
        workers=config.data.workers,
        seed=config.seed,
        augment=str(config.data.augment),
        image_backend=str(config.data.image_backend),
        cache=cache_dir(config.paths.cache) / "crops",
    )
