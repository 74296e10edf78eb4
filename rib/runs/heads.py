"""The head that a run's model gets: which kind, and for a probe the images that it is fitted to.

A model whose outputs are the suite's classes keeps its own head, and nothing here changes its run. Otherwise `settle`
fills in the kind, the probe's reference leaves the datasets that are scored, and the start's digest covers all that
decides the probe's weights, so that every run from that start has another key.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from rib.config.schema import Config, HeadConfig, ModelConfig
from rib.data.catalog import Catalog, DatasetSpec
from rib.data.tree import ImageTree
from rib.errors import RefusedError, RibError
from rib.models.head import ClassTexts, Head, imagenet_head
from rib.models.start import Start
from rib.runs.fields import image_fields
from rib.runtime.console import say_once
from rib.runtime.files import digest_of

if TYPE_CHECKING:
    from rib.data.suites.suite import Suite

PROBE = "probe"
KINDS = ("zero_shot", "subset", PROBE)


def settle(config: Config) -> Config:
    """Return a config with the kind of head and the probe's reference filled in; the reference is not scored.

    Args:
        config: A composed config, or one that this function returned, which stays as it is.

    Raises:
        RibError: If the head does not suit the model or the suite, or one of its options is invalid.
    """
    head, suite = config.head, suite_of(config)
    if head.kind not in (None, *KINDS):
        raise RibError(f"head.kind: expected one of {', '.join(KINDS)}, or null, got {head.kind}")
    kind = head.kind if suite is None else head.kind or suite.head or _kind_for(config.model, suite)
    if kind == "zero_shot" and config.model.library != "open_clip":
        raise RibError(
            "head=zero_shot: expected an open_clip model, whose text tower makes the head, got "
            f"model={config.model.name}; use head=probe"
        )
    if kind != PROBE:
        if head.reference is not None:
            raise RibError(f"head.reference={head.reference}: it trains a probe; add head=probe, or leave it out")
        # The outputs of ImageNet's models are the classes of ImageNet's suites.
        return replace(config, head=replace(head, kind=None if suite is None else kind))
    _check_numbers(head)
    reference = head.reference or (None if suite is None else suite.reference)
    config = replace(config, head=replace(head, kind=kind, reference=reference))
    return config if reference is None else _without(config, reference)


def suite_of(config: Config) -> Suite | None:
    """Return the user's suite that a config names, or None for ImageNet's and mini's.

    Raises:
        RibError: If its file is invalid.
    """
    if config.data.suite is None:
        return None
    from rib.data.suites.suite_file import load_suite

    return load_suite(config.data.suite)


def head_of(config: Config, catalog: Catalog) -> Head:
    """Return the head of a config's model.

    Args:
        config: From `settle`.
        catalog: Of its datasets.
    """
    suite, texts = suite_of(config), None
    if suite is not None and config.head.kind == "zero_shot":
        texts = ClassTexts(tuple(one.words for one in suite.classes), suite.templates)
    return Head(len(catalog.outputs), texts, config.head.kind == PROBE)


def label_of(config: Config) -> str | None:
    """Return the head in a word, as ``protocol.head`` of metrics.json: ``zero_shot``, ``probe:photo``, or None.

    Args:
        config: From `settle`.
    """
    head = config.head
    if head.kind != PROBE:
        return head.kind
    return f"{PROBE}:{config.dataset.name}" if head.reference is None else f"reference:{head.reference}"


def splits_source(config: Config) -> bool:
    """Return True if the probe is fitted to a part of the source, and so needs one also where nothing is trained.

    Args:
        config: From `settle`.
    """
    return config.head.kind == PROBE and config.head.reference is None


def with_probe(start: Start, images: ImageTree, config: Config) -> Start:
    """Return a start whose digest also covers what the weights of its probe depend on.

    Args:
        start: Without a head, with the digest of the checkpoint.
        images: The probe's images.
        config: From `settle`.
    """
    head = config.head
    digest = digest_of(
        {
            "backbone": start.digest,
            **image_fields("probe", images),
            "outputs": start.outputs,
            "transform": asdict(start.transform),
            "image_backend": str(config.data.image_backend),
            "l2": sorted(set(head.l2)),
            "holdout": head.holdout,
            "seed": head.seed,
        }
    )
    return replace(start, digest=digest)


def check_classes(images: ImageTree, used: Iterable[ImageTree], config: Config) -> None:
    """Check that the probe has an image of every class that is trained on or scored.

    Args:
        images: The probe's images.
        used: The source and the datasets to score.
        config: From `settle`.

    Raises:
        RibError: If it has none of a class; the message names the class. `RefusedError` if it is part of the source.
    """
    groups = images.spec.groups
    known = {groups[label][0] for label in set(images.labels.tolist())}
    for tree in used:
        missing = [label for label, group in enumerate(tree.spec.groups) if known.isdisjoint(group)]
        if missing:
            more = "" if len(missing) == 1 else f" ({len(missing)} such classes)"
            limit = "" if config.data.limit is None else f", a larger data.limit than {config.data.limit},"
            error = RefusedError if splits_source(config) else RibError  # another source may have all classes
            raise error(
                f"head=probe: {images.spec.title} has no image of the class {_class_name(tree, missing[0])}{more}, and "
                f"the probe needs one of every class of {tree.spec.title}; give one{limit} or another dataset as "
                "head.reference"
            )


def say_shared_photographs(images: ImageTree, scored: Iterable[ImageTree]) -> None:
    """Print which scored datasets have the photographs of a probe's reference, in another style or not.

    Args:
        images: The reference's images.
        scored: The datasets to score.
    """

    def photographs(spec: DatasetSpec) -> str:
        return spec.derived_from or spec.name

    same = [tree.spec.title for tree in scored if photographs(tree.spec) == photographs(images.spec)]
    if same:
        say_once(
            f"{', '.join(same)}: from the same photographs as {images.spec.title}, which trains the probe; accuracy "
            "before fine-tuning is higher there than on other photographs"
        )


def _class_name(tree: ImageTree, label: int) -> str:
    """Return the name of a class, with its English words if it is a WordNet id."""
    spec = tree.spec
    name = spec.classes[spec.labels.index(label) if spec.labels else label]
    if spec.domain is not None:
        return name
    from rib.models.class_words import class_words

    words = class_words([name])[0]
    return name if words == name else f"{name} ({words})"


def _kind_for(model: ModelConfig, suite: Suite) -> str:
    """Return the kind of head that a model gets on a suite that leaves it open."""
    if model.library == "open_clip":
        return "zero_shot"
    if not all(one.imagenet for one in suite.classes):
        return PROBE
    if model.library == "timm" and model.weights is None:
        from rib.models.checkpoints import timm_outputs

        return "subset" if timm_outputs(model) == imagenet_head().outputs else PROBE
    return "subset"


def _check_numbers(head: HeadConfig) -> None:
    if not head.l2 or not all(0 < l2 < float("inf") for l2 in head.l2):
        raise RibError(f"head.l2: expected strengths above 0, such as [0.0001,0.01], got {head.l2}")
    for name, value in (("share", head.share), ("holdout", head.holdout)):
        if not 0 < value < 1:
            raise RibError(f"head.{name}: expected a fraction above 0 and below 1, got {value}")


def _without(config: Config, reference: str) -> Config:
    """Return a config whose suite neither trains on the reference nor scores it; say so where it did."""
    suite, roles = config.suite, ("sources", "targets", "reported")
    had = [role for role in roles if reference in getattr(suite, role)]
    if not had:
        return config
    say_once(f"{reference} trains the probe (head.reference), so it is left out of the suite's {' and '.join(had)}")
    left: Any = {role: [name for name in getattr(suite, role) if name != reference] for role in roles}
    return replace(config, suite=replace(suite, **left))
