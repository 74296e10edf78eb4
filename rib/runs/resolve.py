"""Resolve a config to a run spec: locate data and pretrained weights and fill in options left null."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from rib.config.schema import Config
from rib.data import catalog as catalogs
from rib.data.catalog import Catalog
from rib.data.crop_room import parse_limit
from rib.data.scan import scan
from rib.data.suites.scan_domain import say_absent_classes
from rib.data.tree import ImageTree
from rib.data.worlds import cache_dir, find_data
from rib.errors import MissingDatasetError, RibError
from rib.metrics import family_of
from rib.models.start import find_start
from rib.runs import errata, heads, ingredients, method_stack
from rib.runs.metrics_file import read_metrics
from rib.runs.recipe import resolve_recipe
from rib.runs.sources import probe_images, subset, subset_seed, whole_source
from rib.runs.spec import EXTERNAL, PRETRAINED, Ingredient, RunSpec
from rib.runtime.console import say
from rib.runtime.files import digest_of
from rib.runtime.processes import count_devices

T = TypeVar("T")


@dataclass
class Resolver:
    """Cache of lookups while many configs are resolved: pretrained models, lists of images, errors of failed lookups.

    Attributes:
        download: Fetch weights that are not on this machine. If False, they are identified by the hub's metadata.
    """

    download: bool = True
    _known: dict[str, Any] = field(default_factory=dict)

    def once(self, key_fields: object, find: Callable[[], T]) -> T:
        """Return the result of a lookup, or raise its error; repeat no lookup that was made before.

        Args:
            key_fields: Everything that the result depends on, as JSON.
            find: The lookup.
        """
        key = digest_of(key_fields)
        if key not in self._known:
            try:
                self._known[key] = find()
            except RibError as error:
                self._known[key] = error
        if isinstance(self._known[key], RibError):
            raise self._known[key]
        return cast("T", self._known[key])


def resolve(config: Config, resolver: Resolver | None = None) -> RunSpec:
    """Resolve a config to a `RunSpec`: find images and weights, check options, and fill in those that are null.

    Args:
        config: A composed config.
        resolver: Shared lookups, where many configs are resolved.

    Raises:
        RibError: If a dataset, a file of weights or an option is missing or invalid.
    """
    _check_numbers(config)
    method_stack.check(config)
    config = heads.settle(errata.apply_switches(replace(config, trainer=count_devices(config))))
    _check_folders(config)
    resolver = resolver or Resolver()
    cache = cache_dir(config.paths.cache)
    where = [config.data.root, config.data.suite, config.head.kind]
    catalog, root = resolver.once(["data", *where], lambda: find_data(config))
    head = heads.head_of(config, catalog)
    start = resolver.once(
        ["start", asdict(config.model), asdict(head)], lambda: find_start(config.model, cache, resolver.download, head)
    )
    find = partial(_images_of, config, catalog, root, Path(config.paths.runs) / "datasets", resolver)
    scored = _scored(config, find)
    digests = cache / "digests"
    # Nothing is trained, so neither the licence of the source nor a recipe matters.
    trains = not (PRETRAINED in config.method or EXTERNAL in config.method)
    source = whole_source(config, catalog, scored, find) if trains or heads.splits_source(config) else None
    images = None
    if head.probe:
        source, images = probe_images(config, catalog, source, find, resolver.once)
        heads.check_classes(images, [*scored.values(), *filter(None, (source,))], config)
        if not heads.splits_source(config):
            heads.say_shared_photographs(images, scored.values())
        start = heads.with_probe(start, images, config)
    if not trains or source is None:
        return RunSpec(config, catalog, start, None, scored, None, records=digests, head_images=images)
    source, held_out = subset(source, config)
    recipe = resolve_recipe(config, catalog, len(source))
    spec = RunSpec(config, catalog, start, source, scored, recipe, held_out, records=digests, head_images=images)
    if method_stack.merging_method(config) is not None:
        runs = ingredients.ingredients(config, catalog)
        return replace(spec, ingredients=tuple(_ingredient(spec, label, run, resolver) for label, run in runs))
    if (probe := ingredients.probe(config)) is not None:
        return replace(spec, probe=_ingredient(spec, "linear_probe", probe, resolver))
    return spec


def scored_images(config: Config, records: Path) -> tuple[Catalog, dict[str, ImageTree]]:
    """Find the images that a config scores, without a model: those of its suite, at most ``data.limit`` of each.

    Args:
        config: Its ``data``, ``suite`` and ``paths`` are read.
        records: Folder for saved listings and file digests.

    Returns:
        The catalog, and the images by dataset.

    Raises:
        RibError: If a dataset is missing or invalid.
    """
    catalog, root = find_data(config)
    return catalog, _scored(config, partial(_images_of, config, catalog, root, records, Resolver()))


def _scored(config: Config, find: Callable[[str], ImageTree]) -> dict[str, ImageTree]:
    """Return the images of the datasets that a suite scores, by name, without missing ones where that is allowed."""
    scored = {}
    for name in dict.fromkeys([*config.suite.targets, *config.suite.reported]):
        try:
            scored[name] = find(name)
        except MissingDatasetError as error:
            if not config.data.allow_incomplete:
                raise
            say(f"dataset left out of scoring: {error}")
    return scored


def _images_of(config: Config, catalog: Catalog, root: Path, records: Path, resolver: Resolver, name: str) -> ImageTree:
    """Return the images of one dataset, at most ``data.limit`` of them."""
    dataset = errata.read_dataset(config, catalogs.with_label_rule(catalog[name], str(config.data.label_rule)))
    data = config.data
    key_fields = ["images", name, asdict(data), asdict(config.paper), config.head.kind]
    whole = resolver.once(
        key_fields, lambda: scan(dataset, root, records, data.rescan, data.allow_incomplete, data.identity)
    )
    say_absent_classes(whole)
    return whole if data.limit is None else whole.limit(data.limit)


def _ingredient(spec: RunSpec, label: str, ingredient: Config | Path, resolver: Resolver) -> Ingredient:
    """Resolve a run that another one is made from (its ingredient), given as a config or as a finished run's folder."""
    where = f"method.{spec.merged}.ingredients: {ingredient if isinstance(ingredient, Path) else label}"
    held_out = (spec.config.data.holdout, subset_seed(spec.config))

    def check_held_out(source: str, trained_without: tuple[float, int | None]) -> None:
        """Check that the ingredient was not trained on the held-out images, by which a merging method picks models."""
        derived_from = {name: dataset.derived_from for name, dataset in spec.catalog.specs.items()}
        if spec.held_out is None or family_of(source, derived_from) != family_of(spec.source_name, derived_from):
            return
        if source != spec.source_name:
            # ImageNet-Cartoon, -Drawing and -C are made from photographs of ImageNet val: a picture that is held out of
            # one is in the others, in another style.
            raise RibError(
                f"{where} was trained on photographs that {spec.source_name} is made from as well, so it may have seen "
                "the held-out images (data.holdout); use ingredients trained on other photographs"
            )
        if trained_without != held_out:
            raise RibError(
                f"{where} may have been trained on the held-out images: expected data.holdout={held_out[0]} (seed "
                f"{held_out[1]}), got {trained_without[0]} (seed {trained_without[1]})"
            )

    def check_start(source: str) -> None:
        """Check that the ingredient started from the same probe."""
        if heads.splits_source(spec.config) and source not in ("none", spec.config.dataset.name):
            raise RibError(
                f"{where}: a merge over sources needs one start, and without head.reference every source has a probe "
                "of its own; give the dataset of one probe for all as head.reference=DATASET"
            )

    if isinstance(ingredient, Config):
        check_start("none" if PRETRAINED in ingredient.method else ingredient.dataset.name)
        if PRETRAINED not in ingredient.method:
            check_held_out(ingredient.dataset.name, (ingredient.data.holdout, subset_seed(ingredient)))
        own_spec = spec.of_pretrained() if PRETRAINED in ingredient.method else resolve(ingredient, resolver)
        return Ingredient(label, own_spec, None, own_spec.training_key, own_spec.source_name)
    file = ingredient / "metrics.json"
    if not file.is_file():
        raise RibError(f"{where} is not a finished run; expected a folder with metrics.json")
    metrics = read_metrics(file)
    check_start(metrics["source"])
    pretrained_key = spec.of_pretrained().training_key
    if pretrained_key not in (metrics["before"], metrics["fingerprint"]):
        raise RibError(
            f"{where} was fine-tuned from other pretrained weights ({metrics['model']}) than model={spec.start.name}; "
            "all runs to merge must start from the same weights"
        )
    # With subset_seed=null the training seed chose the images; without any entry the default 0 did.
    seed = metrics["options"].get("data.subset_seed", 0)
    seed = metrics["seed"] if seed is None else seed
    check_held_out(metrics["source"], (metrics["protocol"]["holdout"] or 0.0, seed))
    return Ingredient(label, None, ingredient, metrics["fingerprint"], metrics["source"])


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
    parse_limit(config.data.cache)
    if config.clip is not None and not config.clip > 0:
        raise RibError(f"clip: expected a gradient norm above 0, or null for no clipping, got {config.clip}")


def _check_folders(config: Config) -> None:
    for name, folder in (("paths.runs", Path(config.paths.runs)), ("paths.cache", cache_dir(config.paths.cache))):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror
            raise RibError(f"{name}: cannot make the folder {folder} ({reason}); choose another") from error
