"""A fully resolved run, and the hash keys of its weights and scores.

`rib.runs.fields` flattens a run into one dictionary, of which `rib.runs.keys` makes the *training key*, which names a
run's weights, and the *score key* of each dataset, which names a model's predictions on it, so that a new target is
scored later without training. `rib.runs.resolve` makes one from a config. No torch is imported here, so that a saved
result is returned without waiting for it.
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
from rib.runs import errata, fields, method_stack
from rib.runs.keys import NUMERICS, Kind, is_neutral, key_of
from rib.runs.recipe import SETTLED, Recipe, settle
from rib.runtime.files import digest_of
from rib.schemas.metrics import Protocol, ScoreInfo, TrainedOn

READ_BY_PRETRAINED = ("data.limit", "data.image_backend", "data.label_rule", "evaluation.", "model.transform.")
"""Options that matter where nothing is trained."""

PRETRAINED = "pretrained"

EXTERNAL = "external"
"""Method of a run whose weights were made elsewhere (`rib.sweeps.rescore`); its node holds their name and digest."""

PERMISSION = "i_have_permission"


@dataclass(frozen=True)
class Ingredient:
    """A run that another is made from.

    Attributes:
        label: For people, ``ewc``, ``finetune seed=+1``, ``finetune on imagenet_a``.
        spec: What it answers; None for a folder that the user named.
        folder: That folder; None for a question.
        key: Its training key.
        source: What it was fine-tuned on, ``none`` for `pretrained`.
    """

    label: str
    spec: RunSpec | None
    folder: Path | None
    key: str
    source: str


@dataclass(frozen=True)
class RunSpec:
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
        records: Folder with what is known of the content of files; None keeps nothing.
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

    @property
    def method(self) -> str:
        """``finetune``, ``ewc``, ``lwf+wise_ft``."""
        return method_stack.stack_name(self.config)

    @property
    def trains(self) -> bool:
        """Whether weights are made by training, rather than taken from the start or from finished runs."""
        return self.recipe is not None and not self.ingredients

    @property
    def merged(self) -> str | None:
        """The method that puts finished runs together, ``wise_ft``."""
        return method_stack.merging_method(self.config)

    @property
    def needs(self) -> tuple[Ingredient, ...]:
        """Every run that must be there before this one is made."""
        return (*self.ingredients, *((self.probe,) if self.probe else ()))

    @property
    def source_name(self) -> str:
        """``imagenet_r``, or ``none``; of weights made elsewhere, what they are said to be fine-tuned on."""
        return self.config.dataset.name if self.source is not None or self.external is not None else "none"

    @property
    def external(self) -> dict[str, Any] | None:
        """Name and digest of weights that were made elsewhere."""
        return self.config.method.get(EXTERNAL)

    @property
    def kind(self) -> Kind:
        """How its weights come about, which decides what is in their key."""
        if self.ingredients:
            return "merged"
        if self.source is not None:
            return "trained"
        return "pretrained" if self.external is None else "external"

    @cached_property
    def fields(self) -> dict[str, Any]:
        """Everything that was resolved, by flat name."""
        return fields.spec_of(self)

    @cached_property
    def training_key(self) -> str:
        """Sixteen hex digits that name the weights."""
        return key_of(self.fields, self.kind)

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
        return {name: fields.score_key(self.fields, tree) for name, tree in self.images.items()}

    @cached_property
    def data_digest(self) -> str:
        """Of all datasets scored: results with different ones never share a table."""
        return digest_of({name: tree.digest for name, tree in self.scored.items()})

    @property
    def scores(self) -> dict[str, ScoreInfo]:
        """What each number in metrics.json stands on: the score key and the digest of the images."""
        return {n: {"key": self.score_keys[n], "images": tree.digest} for n, tree in self.images.items()}

    @property
    def options(self) -> dict[str, Any]:
        """Flat overrides that are not default, after settling: an lr given as what it is anyway is none."""
        changed = rib.config.flat_changes(self.config)
        if not self.draws_subset:
            changed.pop("data.subset_seed", None)
        changed |= {
            name: node for name, node in errata.options_kept_from_switches(self.config).items() if name not in changed
        }
        changed |= fields.content_options(self)
        if not is_neutral("trainer.strategy", strategy := self.fields["trainer.strategy"]):
            changed["trainer.strategy"] = strategy
        if self.recipe is None or self.source is None:
            return {k: v for k, v in changed.items() if k.startswith((*READ_BY_PRETRAINED, f"method.{EXTERNAL}.name"))}
        usual = replace(self.config, recipe=rib.config.shipped_recipes(), epochs=None, precision=None)
        epochs = settle(usual, self.catalog, len(self.source)).epochs
        optimizer = {k: v for k, v in self.config.optimizer.items() if k not in ("lr", "warmup_steps")}
        epochs_given = None if self.config.steps is not None else self.recipe.epochs
        usual = replace(usual, epochs=epochs_given, optimizer=optimizer)
        default = replace(settle(usual, self.catalog, len(self.source)), epochs=epochs)
        for key, name in SETTLED.items():
            value = getattr(self.recipe, name)
            changed.pop(key, None)
            if value != getattr(default, name):
                changed[key] = value
        return changed

    @property
    def protocol(self) -> Protocol:
        """What metrics.json says about how the numbers came about."""
        c, recipe = self.config, self.recipe
        return {
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

    @property
    def suite(self) -> str:
        """The suite's name; with a star where its datasets are not those of rib's own suite of that name."""
        return suite_label(self.config.suite)

    @property
    def identity(self) -> str:
        """By what images are told apart: ``content``, ``listing`` (names and sizes) of some dataset, or ``pixels``."""
        trees = [*self.images.values(), *filter(None, (self.source,))]
        return " and ".join(sorted({tree.identity for tree in trees})) or "content"

    @property
    def images_found(self) -> dict[str, int]:
        """How many images there were of datasets whose releases differ in their number (ObjectNet), by name."""
        trees = dict(self.scored) if self.source is None else {self.source_name: self.source, **self.scored}
        return {name: tree.found for name, tree in trees.items() if tree.found is not None}

    @property
    def trained_on(self) -> TrainedOn | None:
        """How many images trained the weights, and the digest of just these: of a subset, not of the whole dataset.

        None where nothing was trained; what a run is made from says it for itself.
        """
        if self.source is None or self.ingredients:
            return None
        return {"num_images": len(self.source), "digest": self.source.digest}

    @property
    def draws_subset(self) -> bool:
        """Whether ``data.subset_seed`` decides anything."""
        data = self.config.data
        return data.images_per_class is not None or data.holdout > 0 or data.shuffled_labels

    @property
    def switches(self) -> dict[str, Any]:
        """What sets this run apart from the benchmark as it is meant: permissions, incomplete datasets."""
        found: dict[str, Any] = errata.switches(self.config) if self.source is not None else {}
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

    def of_pretrained(self) -> RunSpec:
        """The question after this run's "before": the same images, nothing trained."""
        config = replace(self.config, method={PRETRAINED: {}}, force=False)
        held_out = None if self.choosing in self.scored else self.held_out
        return replace(self, config=config, source=None, recipe=None, held_out=held_out, ingredients=(), probe=None)


def suite_label(suite: SuiteConfig) -> str:
    """A suite's name; ``seven*`` where its targets or reported datasets are not those of rib's suite of that name."""
    shipped = shipped_nodes("suite").get(suite.name)
    names = ("targets", "reported")
    same = shipped is None or all(sorted(shipped[name]) == sorted(getattr(suite, name)) for name in names)
    return suite.name if same else f"{suite.name}*"
