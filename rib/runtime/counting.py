"""Counts with their nouns, in the singular or plural."""

from __future__ import annotations


def plural(number: int, noun: str, several: str = "") -> str:
    """Format a count with its noun: ``1 run``, ``12 runs``, ``1,204 images``.

    Args:
        number: The count.
        noun: The noun in the singular.
        several: Its plural where that is not the noun with an ``s``.
    """
    return f"{number:,} {noun if number == 1 else several or f'{noun}s'}"
