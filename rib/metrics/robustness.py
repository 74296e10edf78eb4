"""Robustness improvement (RI) and its mean over sources (mRI), without torch.

Fine-tune on one dataset (the source) and score on the others (the targets). With ``A`` the top-1 accuracy in
percent, before and after fine-tuning,

    RI_i = mean over targets j != i of (A_after^j - A_before^j)        mRI = mean over sources i of RI_i

arXiv 2410.21582, section 3. Functions take accuracies as fractions, as in metrics.json, and return RI in percentage
points. Reports must also run on machines without torch, so this module does not import it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from statistics import fmean


def targets_of(source: str, suite: Iterable[str], in_distribution: str | None) -> tuple[str, ...]:
    """Return the datasets of a suite that count towards RI for a source, in the suite's order.

    Args:
        source: The dataset fine-tuned on; one outside the suite (``imagenet_train``, ``none``) excludes nothing.
        suite: Names of all scored datasets.
        in_distribution: The dataset whose accuracy is reported beside RI and is never part of it; None if there is none
            (`rib.data.catalog.Catalog.in_distribution`).
    """
    return tuple(name for name in suite if name not in (source, in_distribution))


def family_of(dataset: str, derived_from: Mapping[str, str | None]) -> str:
    """Return the dataset whose photographs a dataset is made from; its own name for an original dataset.

    Args:
        dataset: Name of a dataset.
        derived_from: ``DatasetSpec.derived_from`` by dataset name; a missing name is an original dataset.
    """
    return derived_from.get(dataset) or dataset


def without_derived(source: str, targets: Iterable[str], derived_from: Mapping[str, str | None]) -> tuple[str, ...]:
    """Return the targets that share no photographs with the source.

    Cartoon, Drawing and ImageNet-C are transforms of the same photographs: a model fine-tuned on Cartoon has trained
    on the content of Drawing, and the reverse.

    Args:
        source: The dataset fine-tuned on.
        targets: The targets of RI.
        derived_from: ``DatasetSpec.derived_from`` by dataset name.
    """
    family = family_of(source, derived_from)
    return tuple(name for name in targets if family_of(name, derived_from) != family)


def target_shares(units: Sequence[str]) -> dict[str, float]:
    """Return the weight in RI of each target or ImageNet-C corruption; the weights sum to 1.

    All targets have the same weight, whatever their size. ImageNet-C divides its weight evenly over corruptions, and
    each corruption evenly over its scored severities.

    Args:
        units: Targets (``imagenet_r``) or corruption cells of one (``imagenet_c/fog/3``), each once.

    Returns:
        Fractions by unit.

    Raises:
        ValueError: If there is no unit, one is named twice, or a dataset is named both whole and by its cells.
    """
    if not units:
        raise ValueError("expected at least one target, got none: RI is a mean over targets")
    children: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    paths = [tuple(unit.split("/")) for unit in units]
    for path in paths:
        for depth, name in enumerate(path):
            children[path[:depth]].add(name)
    if len(set(paths)) < len(paths) or any(path in children for path in paths):
        raise ValueError(f"expected each target once, whole or as corruption/severity cells, got {list(units)}")
    return {
        unit: 1 / prod(len(children[path[:depth]]) for depth in range(len(path)))
        for unit, path in zip(units, paths, strict=True)
    }


def mean_over_cells(cells: Mapping[str, float]) -> float:
    """Average accuracy on ImageNet-C over the severities of each corruption, then over corruptions.

    This is plain accuracy, not the mean corruption error (mCE) of Hendrycks & Dietterich 2019, arXiv 1903.12261.

    Args:
        cells: Accuracy by ``corruption/severity``, fractions or percent.

    Returns:
        The mean, in the same unit.

    Raises:
        ValueError: If ``cells`` is empty.
    """
    severities: defaultdict[str, list[float]] = defaultdict(list)
    for cell, accuracy in cells.items():
        severities[cell.rpartition("/")[0]].append(accuracy)
    if not severities:
        raise ValueError("expected the accuracy of at least one corruption/severity, got none")
    return fmean(fmean(accuracies) for accuracies in severities.values())


def robustness_improvement(before: Mapping[str, float], after: Mapping[str, float], targets: Sequence[str]) -> float:
    """Return the RI of one fine-tuned model: the mean change of accuracy over targets. arXiv 2410.21582, section 3.

    Args:
        before: Accuracy of the pretrained model by dataset, a fraction.
        after: Accuracy of the fine-tuned model by dataset, a fraction.
        targets: The datasets that count (`targets_of`, `without_derived`).

    Returns:
        RI in percentage points; below 0 if fine-tuning cost robustness.

    Raises:
        ValueError: If there is no target, or one was not scored.
    """
    if not targets:
        raise ValueError("expected at least one target, got none: RI is a mean over targets")
    if missing := [name for name in targets if name not in before or name not in after]:
        raise ValueError(f"expected the accuracy of every target before and after, got none for {missing}")
    return 100 * fmean(after[name] - before[name] for name in targets)


def mean_robustness_improvement(improvements: Mapping[str, float]) -> float:
    """Return mRI: the mean of RI over sources, in percentage points.

    Args:
        improvements: RI by source, in percentage points.

    Raises:
        ValueError: If there is no source.
    """
    if not improvements:
        raise ValueError("expected the RI of at least one source, got none: mRI is a mean over sources")
    return fmean(improvements.values())
