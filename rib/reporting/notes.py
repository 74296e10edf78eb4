"""Notes of methods in words: what they reported of a fit, by their keys in metrics.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rib.config.shipped import shipped_nodes
from rib.runtime.counting import plural

Notes = Mapping[str, float]


def describe_notes(notes: Notes) -> list[str]:
    """Return the notes of a run as sentences; a note of a user's own method has the form ``name: value``.

    Args:
        notes: ``notes`` of metrics.json.
    """
    left = dict(notes)
    lines = []
    for prefix, describe in SENTENCES.items():
        own = {name.removeprefix(prefix): left.pop(name) for name in notes if name.startswith(prefix)}
        if own:
            lines += describe(own)
    return lines + [f"{name}: {value:.4g}" for name, value in left.items()]


def describe_alpha(method: str, options: Mapping[str, Any], notes: Notes) -> list[str]:
    """Return a sentence with the alpha of each interpolation in a run that did not choose it by accuracy.

    Args:
        method: ``method`` of metrics.json, ``lwf+wise_ft``.
        options: ``options`` of metrics.json, those that are not default.
        notes: ``notes`` of metrics.json.
    """
    if "wise_ft.chosen_alpha" in notes:
        return []
    return [
        f"{title} used alpha {options.get(f'method.{name}.alpha', shipped_nodes('method')[name]['alpha']):g} "
        "(0: the pretrained weights, 1: the fine-tuned ones)"
        for name, title in (("wise_ft", "WiSE-FT"), ("fisher_merge", "Fisher-weighted merging"))
        if name in method.split("+")
    ]


def _percent(share: float) -> str:
    """Format a fraction with two significant digits, ``0.2 %``, or as a whole number of percent."""
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def _ewc(notes: Notes) -> list[str]:
    lines = []
    if "capped_share" in notes:
        share = notes["capped_share"]
        some = f"{_percent(share)} of EWC's penalty weights were" if share else "None of EWC's penalty weights was"
        lines.append(f"{some} capped for stability")
    mean, error = notes.get("fisher_mean"), notes.get("fisher_error")
    sampling = f"relative sampling error {_percent(error)}" if error is not None else ""
    if "lambda" in notes and mean is not None:
        strength = notes["lambda"] * mean
        lines.append(
            f"EWC's penalty strength lambda was {notes['lambda']:.4g}: method.ewc.strength={strength:.4g} divided by "
            f"the mean Fisher {mean:.2g}{f' ({sampling})' if sampling else ''}"
        )
    elif mean is not None or sampling:
        found = [f"mean Fisher {mean:.2g}"] if mean is not None else []
        lines.append(f"EWC's Fisher information: {', '.join([*found, *([sampling] if sampling else [])])}")
    return lines


def _ftp(notes: Notes) -> list[str]:
    return [
        "FTP let each row of a weight move from its pretrained value by at most "
        f"{notes['smallest_radius']:.3g} to {notes['largest_radius']:.3g} in all (sum of magnitudes; it depends on the "
        "tensor)"
    ]


def _soup(notes: Notes) -> list[str]:
    kept = [name.removeprefix("kept.") for name in notes if name.startswith("kept.")]
    count = int(notes["ingredients"])
    named = f": {', '.join(kept)}" if kept else ""
    return [f"The soup averages {plural(count, 'run')}{named}"]


def _surgical(notes: Notes) -> list[str]:
    rates = {name.removeprefix("rate."): rate for name, rate in notes.items() if name.startswith("rate.")}
    if rates:
        return [
            "Surgical fine-tuning's learning rates, relative to the largest: "
            + ", ".join(f"{layer} {rate:.2g}" for layer, rate in rates.items())
        ]
    return [
        "Surgical fine-tuning's learning rates of tensors, relative to the largest: median "
        f"{notes['median_rate']:.2g}, smallest {notes['smallest_rate']:.2g}"
    ]


def _wise_ft(notes: Notes) -> list[str]:
    return [f"WiSE-FT chose alpha {notes['chosen_alpha']:g} by accuracy on the images held out of the source"]


def _batch_norm(notes: Notes) -> list[str]:
    lines = []
    if "layers" in notes:
        counted = f"The model has {notes['layers']:.0f} BatchNorm layers"
        lines.append(f"{counted}, whose statistics can cost accuracy, too; batch_norm=frozen keeps them")
    if "images" in notes:
        lines.append(f"BatchNorm's statistics were estimated again on {notes['images']:,.0f} images of the source")
    return lines


SENTENCES: dict[str, Callable[[Notes], list[str]]] = {
    "ewc.": _ewc,
    "ftp.": _ftp,
    "soup.": _soup,
    "surgical.": _surgical,
    "wise_ft.": _wise_ft,
    "batch_norm.": _batch_norm,
}
"""Function that puts the notes of one method into sentences, by the beginning of their keys."""
