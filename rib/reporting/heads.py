"""Heads of models whose outputs are not a suite's classes: which runs may share a table, and what stands below it.

``protocol.head`` of metrics.json is ``zero_shot``, ``subset``, ``reference:DATASET`` (a linear probe on a dataset that
is neither source nor target) or ``probe:SOURCE`` (a linear probe on a part of each source); it is absent where a model
has outputs of its own for the classes. With ``probe:SOURCE`` every source has its own start, so "before" differs.
"""

from __future__ import annotations

from collections.abc import Iterable

from rib.data.worlds import title_of
from rib.schemas.metrics import Metrics

PER_SOURCE = "probe per source"
"""Stands for the start of runs that have one for each source."""


def head_of(metrics: Metrics) -> str | None:
    """Return a run's kind of head as metrics.json records it; None for a model with outputs of its own."""
    return metrics["protocol"].get("head")


def is_per_source(metrics: Metrics) -> bool:
    """Return True if a run starts from a probe on a part of its source, so that other sources have other starts."""
    return (head_of(metrics) or "").startswith("probe:")


def start_of(metrics: Metrics) -> str:
    """Return what tells the starts of one model apart in a table: the key of the pretrained run.

    Starts that differ by source, as each has a probe of its own, are one.
    """
    return PER_SOURCE if is_per_source(metrics) else metrics["before"]


def other_images(members: Iterable[Metrics], metrics: Metrics) -> list[str]:
    """List the datasets, but the sources, with different images, of runs that start from a probe on their source.

    All members are compared: two that agree with a run on other datasets may differ in one that is its source.

    Args:
        members: Of a group of comparable runs.
        metrics: Of a run that may join them.
    """
    if not is_per_source(metrics):
        return []
    images = _images_of_others(metrics)
    found = {
        name
        for member in members
        if is_per_source(member)
        for name, digest in _images_of_others(member).items()
        if name in images and digest != images[name]
    }
    return [f"different images of {', '.join(sorted(found))}"] if found else []


def _images_of_others(metrics: Metrics) -> dict[str, str]:
    """Return the digest of each scored dataset's images but the source's."""
    return {name: score["images"] for name, score in metrics["scores"].items() if name != metrics["source"]}


def other_outputs(members: Iterable[Metrics], metrics: Metrics) -> list[str]:
    """Return a reason if a run's classes are other outputs of an ImageNet classifier than those of a group's members.

    The file of a suite may have changed between the runs; members with heads of their own have no such outputs.

    Args:
        members: Of a group of comparable runs.
        metrics: Of a run that may join them.
    """
    own = _outputs(metrics)
    # The members agree, so that the first with outputs stands for all.
    first = next((outputs for m in members if (outputs := _outputs(m)) is not None), own) if own is not None else None
    return [] if first == own else ["other outputs for the classes (imagenet: in the suite's file)"]


def _outputs(metrics: Metrics) -> object:
    return metrics["data"].get("suite", {}).get("outputs")


def title_of_head(head: str, kind: str) -> str:
    """Return a head in a few words, ``probe on Photographs``.

    Args:
        head: ``protocol.head``.
        kind: Kind of data.
    """
    name, _, dataset = head.partition(":")
    words = {"zero_shot": "zero-shot head", "subset": "subset of the outputs"}
    return f"probe on {title_of(dataset, kind)}" if dataset else words.get(name, name)


def note_on_heads(runs: Iterable[Metrics]) -> str:
    """Return a sentence on the heads of the runs of a table, and the images they are from; empty if all have their own.

    Args:
        runs: Metrics of runs that can share a table.
    """
    by_sentence: dict[str, list[str]] = {}
    for metrics in runs:
        models = by_sentence.setdefault(_describe(head_of(metrics), metrics["data"]["kind"]), [])
        if metrics["model"] not in models:
            models.append(metrics["model"])
    if len(by_sentence) == 1:
        sentence = next(iter(by_sentence))
        return sentence and f"Head: {sentence}."
    return " ".join(f"Head of {', '.join(models)}: {text or 'its own'}." for text, models in by_sentence.items())


def _describe(head: str | None, kind: str) -> str:
    """Say which head it is, and from which images; empty for none."""
    if head is None:
        return ""
    name, _, dataset = head.partition(":")
    if name == "zero_shot":
        return "zero-shot, sentences of the class names; no images"
    if name == "subset":
        return "a class is the largest of the classifier's outputs that stand for it; no images"
    if name == "reference":
        return (
            f"linear probe trained on {title_of(dataset, kind)}, which is neither source nor target; accuracy before "
            "fine-tuning is the same for all sources"
        )
    if name == "probe":
        return (
            "linear probe trained on a part of each source's images, on which nothing is fine-tuned; each source has "
            "its own accuracy before fine-tuning"
        )
    return head
