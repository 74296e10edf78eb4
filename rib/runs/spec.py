"""A fully resolved run: its options, images and weights files, and the hash keys of its weights and predictions.

`rib.runs.resolve` makes a `RunSpec` from a config. `rib.runs.fields` flattens it into one dictionary. `rib.runs.keys`
hashes this to the *training key*, which names the weights, and to a *score key* for each dataset, which names the
predictions of these weights; a new target is therefore scored later without training. torch is not imported here, so
that a saved result is returned without waiting for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import rib.config
from rib.config.schema import Config, SuiteConfig
from rib.config.shipped import shipped_nodes
from rib.data.catalog import Catalog
from rib.data.scan import counts
from rib.data.tree import ImageTree
from rib.models.start import Start
from rib.runs import errata, fields, heads, method_stack
from rib.runs.keys import NUMERICS, Kind, is_neutral, key_of
from rib.runs.recipe import RECIPE_OPTIONS, Recipe, resolve_recipe
from rib.runtime.files import digest_of
from rib.schemas.metrics import Protocol, ScoreInfo, TrainedOn

READ_BY_PRETRAINED = (
    *("data.limit", "data.image_backend", "data.label_rule", "evaluation.", "model.transform.", "head."),
)
"""Prefixes of options that matter to a run that trains nothing."""

PRETRAINED = "pretrained"
"""Method of a run that only scores the pretrained weights."""

EXTERNAL = "external"
"""Method of a run that scores weights from outside the store (`rib.sweeps.rescore`); its node has name and digest."""

PERMISSION = "i_have_permission"
"""Value of ``data.objectnet_training`` that allows training on ObjectNet, whose licence forbids it."""


@dataclass(frozen=True)
class Ingredient:
    """A run that another run is made from (to merge or to start from), given as a spec or as a finished run's folder.

    Attributes:
        label: Name in tables and messages: ``ewc``, ``finetune seed=+1``, ``finetune on imagenet_a``.
        spec: The resolved run; None for a run that the user gave as a folder.
        folder: This folder; None for a run that is given by its spec.
        key: Training key of the run.
        source: Dataset that it was fine-tuned on, ``none`` for `pretrained`.
    """

    label: str
    spec: RunSpec | None
    folder: Path | None
    key: str
    source: str


@dataclass(frozen=True)
class RunSpec:
    """One run, with every option, file and dataset resolved.

    Attributes:
        config: The composed config.
        catalog: Catalog of the datasets.
        start: The pretrained model.
        source: Training images, after ``images_per_class`` and ``holdout``; None where nothing is trained or merged.
        scored: Images to score by dataset, after ``limit``: the suite's targets, including the source for its own
            accuracy, and datasets that are reported without being targets.
        recipe: Optimization settings; for a merged run those of its ingredients, None for `pretrained`.
        held_out: The part of the source that ``data.holdout`` keeps from training; None where all of it trains.
        ingredients: Ingredients of a merged run; empty for other runs.
        probe: The linear probe that training starts from, or None.
        records: Folder with known digests of files; None reads every file again.
        head_images: Images that the start's probe is fitted to; None for a start with a head of its own.
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
    records: Path | None = None
    head_images: ImageTree | None = None

    @property
    def method(self) -> str:
        """Joined names of the methods that the run combines: ``finetune``, ``ewc``, ``lwf+wise_ft``."""
        return method_stack.stack_name(self.config)

    @property
    def trains(self) -> bool:
        """True if the weights come from training, rather than from the pretrained model or from finished runs."""
        return self.recipe is not None and not self.ingredients

    @property
    def merged(self) -> str | None:
        """Name of the method that merges finished runs, such as ``wise_ft``, or None."""
        return method_stack.merging_method(self.config)

    @property
    def needs(self) -> tuple[Ingredient, ...]:
        """All runs whose weights this one is made from: ingredients, linear probe, and a start with a probe."""
        return (*self.ingredients, *filter(None, (self.probe, self.fitted_start)))

    @cached_property
    def fitted_start(self) -> Ingredient | None:
        """The `pretrained` run, where it is a probe that this run starts from; None where its weights are a file's."""
        if self.head_images is None or self.source is None:
            return None
        pretrained = self.of_pretrained()
        return Ingredient("the probe that it starts from", pretrained, None, pretrained.training_key, "none")

    @property
    def source_name(self) -> str:
        """Name of the dataset to fine-tune on, or ``none``; for weights from outside rib as the user stated it."""
        return self.config.dataset.name if self.source is not None or self.external is not None else "none"

    @property
    def external(self) -> dict[str, Any] | None:
        """Name and digest of weights that were trained outside rib and are only scored here; None for other runs."""
        return self.config.method.get(EXTERNAL)

    @property
    def kind(self) -> Kind:
        """Origin of the weights (trained, merged, pretrained or external), which decides what their hash key covers."""
        if self.ingredients:
            return "merged"
        if self.source is not None:
            return "trained"
        return "pretrained" if self.external is None else "external"

    @cached_property
    def fields(self) -> dict[str, Any]:
        """All settings and digests of inputs by dotted name, from which the hash keys of the run are made."""
        return fields.resolved_fields(self)

    @cached_property
    def training_key(self) -> str:
        """Hash key of the weights, 16 hex digits; the fingerprint in metrics.json."""
        return key_of(self.fields, self.kind)

    @property
    def held_out_name(self) -> str | None:
        """Name of the dataset whose predictions include the held-out images; None where nothing is held out.

        It is the source itself if the suite scores it, since the held-out images are among its images.
        """
        if self.held_out is None:
            return None
        name = self.held_out.spec.name
        return name if name in self.scored else f"{name}.held_out"

    @cached_property
    def images(self) -> dict[str, ImageTree]:
        """Images to score, by dataset name; held-out images get an entry of their own if no scored dataset has them."""
        name = self.held_out_name
        more = {} if self.held_out is None or name in self.scored else {str(name): self.held_out}
        return {**self.scored, **more}

    @cached_property
    def score_keys(self) -> dict[str, str]:
        """Hash key of the predictions for each dataset in `images` (its score key), by dataset name."""
        return {name: fields.score_key(self.fields, tree) for name, tree in self.images.items()}

    @cached_property
    def data_digest(self) -> str:
        """Digest of all scored datasets; results with different digests never share a table."""
        return digest_of({name: tree.digest for name, tree in self.scored.items()})

    @property
    def scores(self) -> dict[str, ScoreInfo]:
        """Hash key of the predictions (score key) and digest of the images, by dataset name, as in metrics.json."""
        return {n: {"key": self.score_keys[n], "images": tree.digest} for n, tree in self.images.items()}

    @property
    def options(self) -> dict[str, Any]:
        """Values, by dotted name, of the options that differ from their defaults once null options are filled in.

        A learning rate that equals the default is not among them, even if the user set it.
        """
        changed = rib.config.flat_changes(self.config)
        if not self.draws_subset:
            changed.pop("data.subset_seed", None)
        if self.head_images is None:
            changed = {name: value for name, value in changed.items() if not name.startswith("head.")}
        changed |= {
            name: node for name, node in errata.options_kept_from_switches(self.config).items() if name not in changed
        }
        changed |= fields.content_options(self)
        if not is_neutral("trainer.strategy", strategy := self.fields["trainer.strategy"]):
            changed["trainer.strategy"] = strategy
        if self.recipe is None or self.source is None:
            return {k: v for k, v in changed.items() if k.startswith((*READ_BY_PRETRAINED, f"method.{EXTERNAL}.name"))}
        base = replace(self.config, recipe=rib.config.shipped_recipes(), epochs=None, precision=None)
        epochs = resolve_recipe(base, self.catalog, len(self.source)).epochs
        optimizer = {k: v for k, v in self.config.optimizer.items() if k not in ("lr", "warmup_steps")}
        # The default warm-up depends on the number of steps, so it is that of this run's own epochs.
        epochs_given = None if self.config.steps is not None else self.recipe.epochs
        base = replace(base, epochs=epochs_given, optimizer=optimizer)
        default = replace(resolve_recipe(base, self.catalog, len(self.source)), epochs=epochs)
        for key, name in RECIPE_OPTIONS.items():
            value = getattr(self.recipe, name)
            changed.pop(key, None)
            if value != getattr(default, name):
                changed[key] = value
        return changed

    @property
    def protocol(self) -> Protocol:
        """Settings with which the run is trained and scored, as metrics.json records them under ``protocol``."""
        c, recipe = self.config, self.recipe
        found: Protocol = {
            "numerics": NUMERICS,
            "experiment": c.experiment,
            "precision": recipe.precision if recipe else c.precision if self.external is not None else None,
            "evaluation_precision": c.evaluation.precision,
            "epochs": recipe.epochs if recipe else None,
            "lr": recipe.lr if recipe else None,
            "warmup_steps": recipe.warmup_steps if recipe else None,
            "batch_size": c.batch_size if recipe else None,
            "batch_norm": str(c.batch_norm) if recipe else None,
            "label_rule": str(c.data.label_rule),
            "image_backend": str(c.data.image_backend),
            "limit": c.data.limit,
            "identity": self.identity,
            "processes": self.fields["processes"],
            "targets": sorted(c.suite.targets),
            "reported": sorted(c.suite.reported),
            "holdout": c.data.holdout if recipe else None,
            "switches": self.switches,
        }
        if (head := heads.label_of(c)) is not None:
            found["head"] = head
        return found

    @property
    def suite(self) -> str:
        """Name of the suite (datasets to score), with a star if rib's suite of that name has other datasets."""
        return suite_label(self.config.suite)

    @property
    def identity(self) -> str:
        """Data that identify the images: ``content``, ``listing`` (names and sizes), ``pixels`` (built-in), or a mix.

        A mix is joined by ``and``: ``content and pixels``.
        """
        trees = [*self.images.values(), *filter(None, (self.source, self.head_images))]
        return " and ".join(sorted({tree.identity for tree in trees})) or "content"

    @property
    def images_found(self) -> dict[str, int]:
        """Number of images on disk, by dataset name, for datasets whose releases differ in size (ObjectNet)."""
        return {name: tree.found for name, tree in self._read.items() if tree.found is not None}

    @property
    def _read(self) -> dict[str, ImageTree]:
        """Images that train or are scored, by dataset name."""
        trained = filter(None, (self.head_images, self.source))
        return {**{tree.spec.name: tree for tree in trained}, **self.scored}

    @property
    def trained_on(self) -> TrainedOn | None:
        """Number and digest of the training images, without those held out; None for a run that trains nothing itself.

        Runs that a merged one is made from record their own.
        """
        if self.source is None or self.ingredients:
            return None
        return {"num_images": len(self.source), "digest": self.source.digest}

    @property
    def images_trained(self) -> int:
        """Number of images that training sees, counting an image once per epoch; 0 for a run that trains nothing."""
        if self.recipe is None or self.source is None or self.ingredients:
            return 0
        return self.recipe.images_trained(len(self.source), self.config.batch_size * self.config.accumulate)

    @property
    def draws_subset(self) -> bool:
        """True if training images or labels are chosen at random, so that ``data.subset_seed`` has an influence."""
        data = self.config.data
        return data.images_per_class is not None or data.holdout > 0 or data.shuffled_labels

    @property
    def switches(self) -> dict[str, Any]:
        """Deviations from the standard benchmark: ``paper.*`` switches, permissions and incomplete datasets."""
        found: dict[str, Any] = errata.switches(self.config) if self.source is not None else {}
        if self.config.paper.resize_imagenet_c:
            found["paper.resize_imagenet_c"] = True
        trained = filter(None, (self.source, self.head_images))
        if not all(tree.spec.may_train for tree in trained):
            found["objectnet_training"] = PERMISSION
        if incomplete := self._incomplete():
            found["incomplete"] = incomplete
        return found

    def _incomplete(self) -> dict[str, Any]:
        """Return the numbers of images and classes found and expected, by name of each incomplete dataset."""
        short = {name: dict(tree.incomplete) for name, tree in self._read.items() if tree.incomplete is not None}
        wanted = (*self.config.suite.targets, *self.config.suite.reported)
        absent = {name: counts(self.catalog[name]) for name in wanted if name not in self.scored}
        return short | absent

    def of_pretrained(self) -> RunSpec:
        """Return the spec of the `pretrained` run that this one is compared with: the same images, nothing trained."""
        config = replace(self.config, method={PRETRAINED: {}}, force=False)
        # Where the source is not scored, the held-out images are scored on their own, and so they are before training.
        held_out = None if self.held_out_name in self.scored else self.held_out
        return replace(self, config=config, source=None, recipe=None, held_out=held_out, ingredients=(), probe=None)


def suite_label(suite: SuiteConfig) -> str:
    """Return a suite's name, or ``seven*`` where its targets or reported datasets differ from rib's suite ``seven``."""
    shipped = shipped_nodes("suite").get(suite.name)
    names = ("targets", "reported")
    same = shipped is None or all(sorted(shipped[name]) == sorted(getattr(suite, name)) for name in names)
    return suite.name if same else f"{suite.name}*"
