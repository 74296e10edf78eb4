"""From a config to a question: the data and the start weights are found, every null is settled, nothing is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from rib.config.schema import Config
from rib.data import catalog as catalogs
from rib.data.folders import MissingDatasetError
from rib.data.scan import scan
from rib.data.tree import ImageTree
from rib.data.worlds import cache_dir, find_data
from rib.errors import RibError
from rib.metrics import family_of
from rib.models.start import find_start
from rib.runs import errata, ingredients, method_stack
from rib.runs.metrics_file import read_metrics
from rib.runs.recipe import settle
from rib.runs.spec import EXTERNAL, PERMISSION, PRETRAINED, Ingredient, RunSpec
from rib.runtime.console import say
from rib.runtime.files import digest_of
from rib.runtime.processes import count_devices

T = TypeVar("T")


class RefusedError(RibError):
    """The source is one that must not be trained on."""


@dataclass
class Resolver:
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


def resolve(config: Config, found: Resolver | None = None) -> RunSpec:
    """Find the data and the start weights, and settle what the config leaves open.

    Args:
        config: As composed.
        found: What earlier questions have found, where many are asked at once.

    Raises:
        RibError: If a dataset, a file of weights or a value is not what it should be; nothing has been made then.
    """
    _check_numbers(config)
    method_stack.check(config)
    config = errata.apply_switches(replace(config, trainer=count_devices(config)))
    _check_folders(config)
    found = found or Resolver()
    cache = cache_dir(config.paths.cache)
    start = found.once(["start", asdict(config.model)], lambda: find_start(config.model, cache, found.download))
    catalog, root = found.once(["data", config.data.root], lambda: find_data(config))
    records = Path(config.paths.runs) / "datasets"

    def tree(name: str) -> ImageTree:
        dataset = errata.read_dataset(config, catalogs.with_label_rule(catalog[name], str(config.data.label_rule)))
        data = config.data
        facts = ["images", name, asdict(data), asdict(config.paper)]
        listed = found.once(
            facts, lambda: scan(dataset, root, records, data.rescan, data.allow_incomplete, data.identity)
        )
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
    digests = cache / "digests"
    if PRETRAINED in config.method or EXTERNAL in config.method:
        return RunSpec(config, catalog, start, None, scored, None, records=digests)
    name = config.dataset.name
    dataset = catalog[name]
    if not dataset.may_train and config.data.objectnet_training != PERMISSION:
        raise RefusedError(
            f"dataset={name}: {dataset.licence} Score it as a target, or, if its authors have allowed you to train on "
            f"it, say data.objectnet_training={PERMISSION}"
        )
    source, held_out = _subset(scored[name] if name in scored else tree(name), config)
    recipe = settle(config, catalog, len(source))
    spec = RunSpec(config, catalog, start, source, scored, recipe, held_out, records=digests)
    if method_stack.merging_method(config) is not None:
        parts = tuple(_ingredient(spec, label, part, found) for label, part in ingredients.ingredients(config, catalog))
        return replace(spec, ingredients=parts)
    if (probe := ingredients.probe(config)) is not None:
        return replace(spec, probe=_ingredient(spec, "linear_probe", probe, found))
    return spec


def _ingredient(spec: RunSpec, label: str, part: Config | Path, found: Resolver) -> Ingredient:
    """What a run is made from: a question of its own, or a finished run's folder."""
    where = f"method.{spec.merged}.ingredients: {part if isinstance(part, Path) else label}"
    held_out = (spec.config.data.holdout, _subset_seed(spec.config))

    def check_held_out(source: str, trained_without: tuple[float, int | None]) -> None:
        """What chooses must be unseen by every ingredient of the same source, or of the same photographs."""
        derived_from = {name: dataset.derived_from for name, dataset in spec.catalog.specs.items()}
        if spec.held_out is None or family_of(source, derived_from) != family_of(spec.source_name, derived_from):
            return
        if source != spec.source_name:
            raise RibError(
                f"{where} was trained on photographs that {spec.source_name} is made of too, so that what "
                "data.holdout keeps is not unseen; expected ingredients of other photographs"
            )
        if trained_without != held_out:
            raise RibError(
                f"{where} was not kept from the images that data.holdout={held_out[0]} holds out here (seed "
                f"{held_out[1]}); its own were {trained_without[0]} (seed {trained_without[1]})"
            )

    if isinstance(part, Config):
        if PRETRAINED not in part.method:
            check_held_out(part.dataset.name, (part.data.holdout, _subset_seed(part)))
        asked = spec.of_pretrained() if PRETRAINED in part.method else resolve(part, found)
        return Ingredient(label, asked, None, asked.training_key, asked.source_name)
    file = part / "metrics.json"
    if not file.is_file():
        raise RibError(f"{where} is no finished run; expected a folder with metrics.json")
    metrics = read_metrics(file)
    own = spec.of_pretrained().training_key
    if own not in (metrics["before"], metrics["fingerprint"]):
        raise RibError(
            f"{where} was fine-tuned from other weights ({metrics['model']}) than model={spec.start.name}; "
            "only runs of one start can be put together"
        )
    seed = metrics["options"].get("data.subset_seed", 0)
    seed = metrics["seed"] if seed is None else seed
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


def _subset(source: ImageTree, config: Config) -> tuple[ImageTree, ImageTree | None]:
    """The images that train, and those kept from training."""
    held_out = None
    data, seed = config.data, _subset_seed(config)
    if not 0 <= data.holdout < 1:
        raise RibError(f"data.holdout: expected a fraction from 0 to below 1, got {data.holdout}")
    if data.holdout > 0:
        source, held_out = source.holdout(data.holdout, seed)
    if data.images_per_class is not None:
        source = source.images_per_class(data.images_per_class, seed)
    if data.shuffled_labels:
        source = source.shuffled_labels(seed)
    return source, held_out


def _subset_seed(config: Config) -> int:
    """Which images a subset or a hold-out takes: the same at every training seed unless that is to vary as well."""
    return config.seed if config.data.subset_seed is None else config.data.subset_seed
