"""Counts with their nouns, in the singular or plural."""

from __future__ import annotations


def counted_noun(number: int, noun: str, plural: str = "") -> str:
    """Format a count with its noun: ``1 run``, ``12 runs``, ``1,204 images``.

    Args:
        number: The count.
        noun: The noun in the singular.
        plural: Its plural where that is not the noun with an ``s``.
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
