"""The head that a suite wants of a model: its number of outputs, and where their weights come from."""

from __future__ import annotations

from dataclasses import dataclass

from rib.data import catalog as catalogs


@dataclass(frozen=True)
class ClassTexts:
    """Sentences that a zero-shot head is made from.

    Attributes:
        names: Words for each of the K classes, in the order of outputs.
        templates: Sentences with ``{}`` for the words; empty: the 80 of OpenAI for ImageNet, as shipped in open_clip.
    """

    names: tuple[str, ...]
    templates: tuple[str, ...] = ()


@dataclass(frozen=True)
class Head:
    """The head that a suite wants of a model.

    Attributes:
        outputs: K, the number of outputs.
        texts: Sentences of an open_clip model's zero-shot head; None: those of ImageNet's classes.
        probe: True if the head is a new one, a linear layer that is fitted to the features (`rib.models.probe`); the
            head in the checkpoint, if it has one, is then left out.
    """

    outputs: int
    texts: ClassTexts | None = None
    probe: bool = False


def imagenet_head() -> Head:
    """Return the head of a model that classifies ImageNet-1K: 1000 outputs of its own."""
    return Head(len(catalogs.real().outputs))
