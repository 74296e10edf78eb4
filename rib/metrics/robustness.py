"""Robustness improvement (RI) and its mean over sources (mRI): plain arithmetic, without torch.

Fine-tune on one dataset (the source) and score on the others (the targets). With ``A`` the top-1 accuracy in
percentage points, before and after,

    RI_i = mean over targets j != i of (A_after^j - A_before^j)        mRI = mean over sources i of RI_i

arXiv 2410.21582, section 3. Accuracies come in as fractions, as metrics.json holds them; RI comes out in points.
Tables are drawn on machines without torch, so this module imports none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from statistics import fmean

IN_DISTRIBUTION = "imagenet_val"
"""Scored and reported beside RI, never part of it."""


def targets_of(source: str, suite: Iterable[str]) -> tuple[str, ...]:
    """The datasets of a suite that count towards RI, in the suite's order.

    Args:
        source: The dataset fine-tuned on; one outside the suite (``imagenet_train``, ``none``) excludes nothing.
        suite: Names of all datasets that are scored.
    """
    return tuple(name for name in suite if name not in (source, IN_DISTRIBUTION))


def family_of(dataset: str, derived_from: Mapping[str, str | None]) -> str:
    """The dataset whose images these are: what it is derived from, else itself.

    Args:
        dataset: Name of a dataset.
        derived_from: ``DatasetSpec.derived_from`` by dataset name; names left out are derived from nothing.
    """
    return derived_from.get(dataset) or dataset


def without_derived(source: str, targets: Iterable[str], derived_from: Mapping[str, str | None]) -> tuple[str, ...]:
    """The targets that show none of the source's own images under another drawing.

    Cartoon, Drawing and ImageNet-C are transforms of the same images: a model fine-tuned on Cartoon has trained
    on the content of Drawing, whichever of the two was made first.

    Args:
        source: The dataset fine-tuned on.
        targets: The targets of RI.
        derived_from: ``DatasetSpec.derived_from`` by dataset name.
    """
    family = family_of(source, derived_from)
    return tuple(name for name in targets if family_of(name, derived_from) != family)


def target_shares(units: Sequence[str]) -> dict[str, float]:
    """How much each set of images counts in RI; the shares sum to 1.

    A target counts as much as any other, whatever its size. One that consists of cells splits its share evenly over
    corruptions, and each corruption's over the severities that are there.

    Args:
        units: A target (``imagenet_r``) or one of its cells (``imagenet_c/fog/3``), each once.

    Raises:
        ValueError: If there is none, one is named twice, or a dataset is named both whole and by its cells.
    """
    if not units:
        raise ValueError("expected at least one target, got none: RI is a mean over targets")
    children: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    paths = [tuple(unit.split("/")) for unit in units]
    for path in paths:
        for depth, part in enumerate(path):
            children[path[:depth]].add(part)
    if len(set(paths)) < len(paths) or any(path in children for path in paths):
        raise ValueError(f"expected each target once, whole or by its cells, got {list(units)}")
    return {
        unit: 1 / prod(len(children[path[:depth]]) for depth in range(len(path)))
        for unit, path in zip(units, paths, strict=True)
    }


def mean_over_cells(cells: Mapping[str, float]) -> float:
    """Accuracy on ImageNet-C: the mean over a corruption's severities, then over corruptions.

    Plain accuracy, not the mean corruption error of Hendrycks & Dietterich 2019.

    Args:
        cells: Accuracy by ``corruption/severity``.

    Returns:
        In the unit that came in.

    Raises:
        ValueError: If there is no cell.
    """
    severities: defaultdict[str, list[float]] = defaultdict(list)
    for cell, accuracy in cells.items():
        severities[cell.rpartition("/")[0]].append(accuracy)
    if not severities:
        raise ValueError("expected the accuracy of at least one corruption/severity, got none")
    return fmean(fmean(accuracies) for accuracies in severities.values())


def robustness_improvement(before: Mapping[str, float], after: Mapping[str, float], targets: Sequence[str]) -> float:
    """RI of one fine-tuned model, in percentage points.

    Args:
        before: Accuracy of the pretrained model by dataset, a fraction.
        after: Accuracy of the fine-tuned model by dataset, a fraction.
        targets: The datasets that count (`targets_of`, `without_derived`).

    Raises:
        ValueError: If there is no target, or one was not scored.
    """
    if not targets:
        raise ValueError("expected at least one target, got none: RI is a mean over targets")
    if missing := [name for name in targets if name not in before or name not in after]:
        raise ValueError(f"expected the accuracy of every target before and after, got none for {missing}")
    return 100 * fmean(after[name] - before[name] for name in targets)


def mean_robustness_improvement(improvements: Mapping[str, float]) -> float:
    """The mean of RI over sources, in percentage points.

    Args:
        improvements: RI by source, in percentage points.

    Raises:
        ValueError: If there is no source.
    """
    if not improvements:
        raise ValueError("expected the RI of at least one source, got none: mRI is a mean over sources")
    return fmean(improvements.values())
