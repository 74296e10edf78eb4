"""What exactly is asked: every null settled, and the keys under which the answer is stored.

The *training key* covers what changes the weights, and nothing else: not the model's name but the digest of its
weights, not the number of devices but the batch of the whole job. The *score key* of a dataset covers what changes a
model's predictions on it, so that a new target is scored later without training. No torch is imported here: a
question already answered is answered at once.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

from rib import paper, stack
from rib.config import flat_changes, shipped_recipes
from rib.data import catalog as catalogs
from rib.data import mini
from rib.data.catalog import Catalog
from rib.data.images import ImageTree, MissingDatasetError, counts, scan
from rib.errors import RibError
from rib.launch import say
from rib.memo import digest_of
from rib.metrics import family_of
from rib.models.zoo import Start, find_start
from rib.schema import Config

T = TypeVar("T")

NUMERICS = 1
"""Raised when a change of the code changes numbers; part of both keys, so that old results are never mixed in."""

SETTLED = {
    "epochs": "epochs",
    "optimizer.lr": "lr",
    "optimizer.warmup_steps": "warmup_steps",
    "precision": "precision",
}
"""Options that may be null, and where the recipe holds what they come to."""

READ_BY_PRETRAINED = ("data.limit", "data.image_backend", "data.label_rule", "evaluation.", "model.transform.")
"""Options that matter where nothing is trained."""

PRETRAINED = "pretrained"

EXTERNAL = "external"
"""Method of a run whose weights were made elsewhere (`rib.rescoring`); its node holds their name and digest."""

PERMISSION = "i_have_permission"


class RefusedError(RibError):
    """The source is one that must not be trained on."""


@dataclass(frozen=True)
class Recipe:
    """Optimization with nothing left open.

    Attributes:
        epochs: Passes over the source.
        lr: Peak learning rate.
        warmup_steps: Optimizer steps of linear warm-up.
        precision: Lightning's name, ``32-true``, ``bf16-mixed`` or ``16-mixed``.
        max_steps: Optimizer steps after which it ends in mid-epoch; None: at the end of the last epoch.
    """

    epochs: int
    lr: float
    warmup_steps: int
    precision: str
    max_steps: int | None = None


@dataclass(frozen=True)
class Ingredient:
    """A run that another is made from.

    Attributes:
        label: For people, ``ewc``, ``finetune seed=+1``, ``finetune on imagenet_a``.
        question: What it answers; None for a folder that the user named.
        folder: That folder; None for a question.
        key: Its training key.
        source: What it was fine-tuned on, ``none`` for `pretrained`.
    """

    label: str
    question: Question | None
    folder: Path | None
    key: str
    source: str


@dataclass(frozen=True)
class Question:
    """One run, as asked.

    Attributes:
        config: As composed.
        catalog: The world of images.
        start: The pretrained model.
        source: Images to fine-tune on, after ``images_per_class`` and ``holdout``; None for `pretrained`.
        scored: Images to score by dataset, after ``limit``: the suite's targets (the source among them, for its own
            accuracy) and what it only reports.
        recipe: None for `pretrained`; for a run that is made from others, what those were trained with.
        held_out: The part of the source that ``data.holdout`` keeps from training; None where all of it trains.
        ingredients: Runs that a merged one is made from; empty for one that trains.
        probe: The linear probe that training starts from, or None.
    """

    config: Config
    catalog: Catalog
    start: Start
    source: ImageTree | None
    scored: Mapping[str, ImageTree]
    recipe: Recipe | None
    held_out: ImageTree | None = None
    ingredients: tuple[Ingredient, ...] = ()
    probe: Ingredient | None = None

    @property
    def method(self) -> str:
        """``finetune``, ``ewc``, ``lwf+wise_ft``."""
        return stack.name_of(self.config)

    @property
    def trains(self) -> bool:
        """Whether weights are made by training, rather than taken from the start or from finished runs."""
        return self.recipe is not None and not self.ingredients

    @property
    def merged(self) -> str | None:
        """The method that puts finished runs together, ``wise_ft``."""
        return stack.merged(self.config)

    @property
    def needs(self) -> tuple[Ingredient, ...]:
        """Every run that must be there before this one is made."""
        return (*self.ingredients, *((self.probe,) if self.probe else ()))

    def options_of(self, method: str) -> dict[str, Any]:
        """What of a method's node is in the key: not the runs that it names, whose own keys are, and not its rate."""
        return {k: v for k, v in self.config.method[method].items() if k not in ("ingredients", "lr", "probe")}

    @property
    def source_name(self) -> str:
        """``imagenet_r``, or ``none``; of weights made elsewhere, what they are said to be fine-tuned on."""
        return self.config.dataset.name if self.source is not None or EXTERNAL in self.config.method else "none"

    @cached_property
    def training_key(self) -> str:
        """Sixteen hex digits; what a run does not read is not in it."""
        c = self.config
        facts: dict[str, Any] = {
            "numerics": NUMERICS,
            "start": self.start.digest,
            "architecture": self.start.architecture,
            "limit": c.data.limit,
        }
        if self.ingredients and self.merged is not None and self.source is not None:
            # What the ingredients were trained on and with is in their keys. Source images also set BatchNorm's
            # statistics anew, and what is kept out of training chooses.
            facts |= {
                "method": {self.merged: self.options_of(self.merged)},
                "ingredients": [(part.key, part.source) for part in self.ingredients],
                "source": self.source.digest,
                "held_out": self.held_out and self.held_out.digest,
                "transform": asdict(self.start.transform),
                "image_backend": c.data.image_backend,
                "batch_norm": c.batch_norm,
            }
        elif self.source is not None and self.recipe is not None:
            facts |= {
                "source": self.source.digest,
                "space": paper.loss_groups(c, self.source.spec, len(self.catalog.wnids)),
                "transform": asdict(self.start.transform),
                "image_backend": c.data.image_backend,
                "augment": c.data.augment,
                "method": {name: _by_content(self.options_of(name)) for name in stack.trained(c)},
                "optimizer": {k: v for k, v in c.optimizer.items() if k not in ("lr", "warmup_steps")},
                "recipe": {k: v for k, v in asdict(self.recipe).items() if v is not None},
                "sync_batchnorm": c.trainer.get("sync_batchnorm", False),
                "batch_size": c.batch_size,
                "accumulate": c.accumulate,
                "clip": c.clip,
                "batch_norm": c.batch_norm,
                "seed": c.seed,
            }
            if self.probe is not None:
                facts["probe"] = self.probe.key
        elif EXTERNAL in c.method:
            facts |= {"external": c.method[EXTERNAL]["digest"], "source": self.source_name}
        return digest_of(facts)

    @property
    def choosing(self) -> str | None:
        """Under which name the predictions lie that hold those of the held-out part; None where nothing is held out.

        They are the source's own wherever the suite has it: the held-out images are among its images.
        """
        if self.held_out is None:
            return None
        name = self.held_out.spec.name
        return name if name in self.scored else f"{name}.held_out"

    @cached_property
    def images(self) -> dict[str, ImageTree]:
        """Everything that a model is scored on: each dataset, and what is held out of a source that is none of them."""
        more = {} if self.held_out is None or self.choosing in self.scored else {str(self.choosing): self.held_out}
        return {**self.scored, **more}

    @cached_property
    def score_keys(self) -> dict[str, str]:
        """One key for each of `images`."""
        common = {
            "numerics": NUMERICS,
            "transform": asdict(self.start.transform),
            "image_backend": self.config.data.image_backend,
            "precision": self.config.evaluation.precision,
            "logits": self.config.predictions.logits,
        }
        keys = {}
        for name, tree in self.images.items():
            facts = {**common, "images": tree.digest, "space": tree.spec.groups}
            if self.catalog[tree.spec.name].precropped and not tree.spec.precropped:
                facts["cropped_again"] = True
            keys[name] = digest_of(facts)
        return keys

    @cached_property
    def data_digest(self) -> str:
        """Of all datasets scored: results with different ones never share a table."""
        return digest_of({name: tree.digest for name, tree in self.scored.items()})

    @property
    def scores(self) -> dict[str, dict[str, str]]:
        """What each number in metrics.json stands on: the score key and the digest of the images."""
        return {n: {"key": self.score_keys[n], "images": tree.digest} for n, tree in self.images.items()}

    @property
    def options(self) -> dict[str, Any]:
        """Flat overrides that are not default, after settling: an lr given as what it is anyway is none."""
        changed = flat_changes(self.config)
        if self.recipe is None or self.source is None:
            return {k: v for k, v in changed.items() if k.startswith((*READ_BY_PRETRAINED, f"method.{EXTERNAL}.name"))}
        usual = replace(self.config, recipe=shipped_recipes(), epochs=None, precision=None)
        epochs = _settle(usual, self.catalog, len(self.source)).epochs
        optimizer = {k: v for k, v in self.config.optimizer.items() if k not in ("lr", "warmup_steps")}
        epochs_given = None if self.config.steps is not None else self.recipe.epochs
        usual = replace(usual, epochs=epochs_given, optimizer=optimizer)
        default = replace(_settle(usual, self.catalog, len(self.source)), epochs=epochs)
        for key, name in SETTLED.items():
            value = getattr(self.recipe, name)
            changed.pop(key, None)
            if value != getattr(default, name):
                changed[key] = value
        return changed

    @property
    def protocol(self) -> dict[str, Any]:
        """What metrics.json says about how the numbers came about."""
        c, recipe = self.config, self.recipe
        return {
            "numerics": NUMERICS,
            "experiment": c.experiment,
            "precision": recipe.precision if recipe else c.precision if EXTERNAL in c.method else None,
            "evaluation_precision": c.evaluation.precision,
            "epochs": recipe and recipe.epochs,
            "lr": recipe and recipe.lr,
            "warmup_steps": recipe and recipe.warmup_steps,
            "batch_size": recipe and c.batch_size,
            "batch_norm": recipe and str(c.batch_norm),
            "label_rule": str(c.data.label_rule),
            "image_backend": str(c.data.image_backend),
            "limit": c.data.limit,
            "holdout": c.data.holdout if recipe else None,
            "switches": self.switches,
        }

    @property
    def switches(self) -> dict[str, Any]:
        """What sets this run apart from the benchmark as it is meant: permissions, incomplete datasets."""
        found: dict[str, Any] = paper.switches(self.config) if self.source is not None else {}
        if self.config.paper.resize_imagenet_c:
            found["paper.resize_imagenet_c"] = True
        if self.source is not None and not self.source.spec.may_train:
            found["objectnet_training"] = PERMISSION
        if incomplete := self._incomplete():
            found["incomplete"] = incomplete
        return found

    def _incomplete(self) -> dict[str, Any]:
        """What was on disk of each dataset that is not all there: of the source, too, and before any limit."""
        trees = dict(self.scored) if self.source is None else {self.source_name: self.source, **self.scored}
        short = {name: dict(tree.incomplete) for name, tree in trees.items() if tree.incomplete is not None}
        wanted = (*self.config.suite.targets, *self.config.suite.reported)
        absent = {name: counts(self.catalog[name]) for name in wanted if name not in self.scored}
        return short | absent

    def of_pretrained(self) -> Question:
        """The question after this run's "before": the same images, nothing trained."""
        config = replace(self.config, method={PRETRAINED: {}}, force=False)
        held_out = None if self.choosing in self.scored else self.held_out
        return replace(self, config=config, source=None, recipe=None, held_out=held_out, ingredients=(), probe=None)


@dataclass
class Found:
    """What asking many questions finds once: starts and lists of images, or why there are none.

    Attributes:
        download: Whether weights that are not on this machine are fetched; else the hub's record tells them.
    """

    download: bool = True
    _known: dict[str, Any] = field(default_factory=dict)

    def once(self, facts: object, find: Callable[[], T]) -> T:
        """What ``find`` returned, or raised, the first time."""
        key = digest_of(facts)
        if key not in self._known:
            try:
                self._known[key] = find()
            except RibError as error:
                self._known[key] = error
        if isinstance(self._known[key], RibError):
            raise self._known[key]
        return cast("T", self._known[key])


def ask(config: Config, found: Found | None = None) -> Question:
    """Find the data and the start weights, and settle what the config leaves open.

    Args:
        config: As composed.
        found: What earlier questions have found, where many are asked at once.

    Raises:
        RibError: If a dataset, a file of weights or a value is not what it should be; nothing has been made then.
    """
    _check_numbers(config)
    stack.check(config)
    config = paper.applied(config)
    _check_folders(config)
    found = found or Found()
    cache = cache_dir(config.paths.cache)
    start = found.once(["start", asdict(config.model)], lambda: find_start(config.model, cache, found.download))
    catalog, root = found.once(["data", config.data.root], lambda: find_data(config))
    records = Path(config.paths.runs) / "datasets"

    def tree(name: str) -> ImageTree:
        spec = paper.read(config, catalogs.with_label_rule(catalog[name], str(config.data.label_rule)))
        facts = ["images", name, asdict(config.data), asdict(config.paper)]
        listed = found.once(facts, lambda: scan(spec, root, records, config.data.rescan, config.data.allow_incomplete))
        return listed if config.data.limit is None else listed.limit(config.data.limit)

    wanted = dict.fromkeys([*config.suite.targets, *config.suite.reported])
    scored = {}
    for name in wanted:
        try:
            scored[name] = tree(name)
        except MissingDatasetError as error:
            if not config.data.allow_incomplete:
                raise
            say(f"left out: {error}")
    if PRETRAINED in config.method or EXTERNAL in config.method:
        return Question(config, catalog, start, None, scored, None)
    name = config.dataset.name
    spec = catalog[name]
    if not spec.may_train and config.data.objectnet_training != PERMISSION:
        raise RefusedError(
            f"dataset={name}: {spec.licence} Score it as a target, or, if its authors have allowed you to train on it, "
            f"say data.objectnet_training={PERMISSION}"
        )
    source, held_out = _subset(scored[name] if name in scored else tree(name), config)
    recipe = _settle(config, catalog, len(source))
    question = Question(config, catalog, start, source, scored, recipe, held_out)
    if stack.merged(config) is not None:
        parts = tuple(_ingredient(question, label, part, found) for label, part in stack.ingredients(config, catalog))
        return replace(question, ingredients=parts)
    if (probe := stack.probe(config)) is not None:
        return replace(question, probe=_ingredient(question, "linear_probe", probe, found))
    return question


def _ingredient(question: Question, label: str, part: Config | Path, found: Found) -> Ingredient:
    """What a run is made from: a question of its own, or a finished run's folder."""
    where = f"method.{question.merged}.ingredients: {part if isinstance(part, Path) else label}"
    held_out = (question.config.data.holdout, question.config.data.subset_seed)

    def check_held_out(source: str, trained_without: tuple[float, int]) -> None:
        """What chooses must be unseen by every ingredient of the same source, or of the same photographs."""
        derived_from = {name: spec.derived_from for name, spec in question.catalog.specs.items()}
        if question.held_out is None or family_of(source, derived_from) != family_of(
            question.source_name, derived_from
        ):
            return
        if source != question.source_name:
            raise RibError(
                f"{where} was trained on photographs that {question.source_name} is made of too, so that what "
                "data.holdout keeps is not unseen; expected ingredients of other photographs"
            )
        if trained_without != held_out:
            raise RibError(
                f"{where} was not kept from the images that data.holdout={held_out[0]} holds out here (seed "
                f"{held_out[1]}); its own were {trained_without[0]} (seed {trained_without[1]})"
            )

    if isinstance(part, Config):
        if PRETRAINED not in part.method:
            check_held_out(part.dataset.name, (part.data.holdout, part.data.subset_seed))
        asked = question.of_pretrained() if PRETRAINED in part.method else ask(part, found)
        return Ingredient(label, asked, None, asked.training_key, asked.source_name)
    file = part / "metrics.json"
    if not file.is_file():
        raise RibError(f"{where} is no finished run; expected a folder with metrics.json")
    metrics = json.loads(file.read_text())
    own = question.of_pretrained().training_key
    if own not in (metrics["before"], metrics["fingerprint"]):
        raise RibError(
            f"{where} was fine-tuned from other weights ({metrics['model']}) than model={question.start.name}; "
            "only runs of one start can be put together"
        )
    seed = metrics["options"].get("data.subset_seed", 0)
    check_held_out(metrics["source"], (metrics["protocol"]["holdout"] or 0.0, seed))
    return Ingredient(label, None, part, metrics["fingerprint"], metrics["source"])


def _check_numbers(config: Config) -> None:
    numbers: tuple[tuple[str, float | None, float], ...] = (
        ("batch_size", config.batch_size, 1),
        ("accumulate", config.accumulate, 1),
        ("evaluation.batch_size", config.evaluation.batch_size, 1),
        ("data.workers", config.data.workers, 0),
        ("checkpoint.every_minutes", config.checkpoint.every_minutes, 0),
    )
    for name, value, least in numbers:
        if value is not None and not value >= least:
            raise RibError(f"{name}: expected {least:g} or more, got {value}")
    if config.clip is not None and not config.clip > 0:
        raise RibError(f"clip: expected a gradient norm above 0, or null for no clipping, got {config.clip}")


def _check_folders(config: Config) -> None:
    for name, folder in (("paths.runs", Path(config.paths.runs)), ("paths.cache", cache_dir(config.paths.cache))):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror
            raise RibError(f"{name}: cannot make the folder {folder} ({reason}); choose another") from error


def find_data(config: Any) -> tuple[Catalog, Path]:
    """The catalog and root folder that a config means: the user's, or mini, drawn on first use.

    Raises:
        RibError: If the root is no folder.
    """
    if config.data.root is None:
        return mini.catalog(), mini.ensure(cache_dir(config.paths.cache))
    root = Path(config.data.root).expanduser()
    if not root.is_dir():
        raise RibError(f"data.root: there is no folder {root}; expected one that holds imagenet-r, imagenet/val, ...")
    return catalogs.real(), root


def cache_dir(given: str | None) -> Path:
    """Where files go that can be made again: ``paths.cache`` (``RIB_CACHE``), else the user's cache."""
    if given is not None:
        return Path(given).expanduser()
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "rib"


def _by_content(options: dict[str, Any]) -> dict[str, Any]:
    """A method's options with folders told by the names and sizes of their files, not by their place."""

    def content(folder: Path) -> str:
        return digest_of(
            sorted((str(f.relative_to(folder)), f.stat().st_size) for f in folder.rglob("*") if f.is_file())
        )

    folders = {k: Path(v).expanduser() for k, v in options.items() if isinstance(v, str) and "/" in v}
    return options | {k: content(folder) for k, folder in folders.items() if folder.is_dir()}


def _subset(source: ImageTree, config: Config) -> tuple[ImageTree, ImageTree | None]:
    """The images that train, and those kept from training."""
    held_out = None
    data = config.data
    if not 0 <= data.holdout < 1:
        raise RibError(f"data.holdout: expected a fraction from 0 to below 1, got {data.holdout}")
    if data.holdout > 0:
        source, held_out = source.holdout(data.holdout, data.subset_seed)
    if data.images_per_class is not None:
        source = source.images_per_class(data.images_per_class, data.subset_seed)
    if data.shuffled_labels:
        source = source.shuffled_labels(data.subset_seed)
    return source, held_out


def _settle(config: Config, catalog: Catalog, num_images: int) -> Recipe:
    default = config.recipe[catalog.kind]
    epochs = default.epochs if config.epochs is None else config.epochs
    # A method may have a rate of its own (a visual prompt's is 40), one for all or by kind of data, which gives way to
    # the user's.
    own = [node["lr"] for node in config.method.values() if node and node.get("lr") is not None]
    of_kind = (rate.get(catalog.kind) if isinstance(rate, Mapping) else rate for rate in own)
    rates = (config.optimizer.get("lr"), *of_kind)
    lr = next((rate for rate in rates if rate is not None), default.lr)
    for name, value in (("epochs", epochs), ("optimizer.lr", lr)):
        if not isinstance(value, int | float) or not (math.isfinite(value) and value >= 0):
            raise RibError(f"{name}: expected a number of 0 or more, got {value!r}")
    in_an_epoch = math.ceil(math.ceil(num_images / config.batch_size) / config.accumulate)
    if config.steps is not None:
        if config.epochs is not None or config.steps < 0:
            raise RibError(f"steps: expected a number of 0 or more in the place of epochs, got {config.steps}")
        epochs = math.ceil(config.steps / in_an_epoch)
    steps = epochs * in_an_epoch if config.steps is None else config.steps
    warmup = config.optimizer.get("warmup_steps")
    if warmup is None:
        warmup = default.warmup_steps
        if warmup is None or 2 * warmup > steps:
            warmup = round(steps / 10)
    if not isinstance(warmup, int) or warmup < 0:
        raise RibError(f"optimizer.warmup_steps: expected a number of steps, 0 or more, got {warmup!r}")
    on_gpu = has_gpu(config.trainer.get("accelerator", "auto"))
    precision = config.precision or (config.gpu_precision if on_gpu else "32-true")
    return Recipe(epochs, float(lr), int(warmup), precision, config.steps)


def has_gpu(accelerator: str) -> bool:
    """Whether training will run on a CUDA GPU; torch is asked only where there may be one."""
    if accelerator == "cpu" or (sys.platform == "linux" and not Path("/dev/nvidiactl").exists()):
        return False
    import torch

    return torch.cuda.is_available()
