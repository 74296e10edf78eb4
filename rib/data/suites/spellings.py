"""Find names of classes that are probably the same: ``Alarm_Clock``, ``alarm-clocks`` and ``alarm clock``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping


def same_classes(names_of: Mapping[str, Iterable[str]]) -> dict[str, dict[str, str]]:
    """Return, for each domain, the names that other domains probably spell in another way, with the usual spelling.

    Names count as the same if they differ by case, plural, blanks, underscores or hyphens alone, and no domain has
    both.

    Args:
        names_of: Class names of each domain.

    Returns:
        ``{domain: {its name: the name that most domains use}}``, of domains that have such names.
    """
    known = {domain: set(names) for domain, names in names_of.items()}
    spellings: dict[str, dict[str, int]] = {}
    for names in known.values():
        for name in sorted(names):
            of = spellings.setdefault(_core(name), {})
            of[name] = of.get(name, 0) + 1
    found: dict[str, dict[str, str]] = {}
    for counts in spellings.values():
        if len(counts) < 2 or any(len(names & counts.keys()) > 1 for names in known.values()):
            continue
        usual = max(counts, key=lambda name: counts[name])  # the first of the most frequent ones
        for domain, names in known.items():
            for name in sorted(names & counts.keys() - {usual}):
                found.setdefault(domain, {})[name] = usual
    return found


def _core(name: str) -> str:
    letters = re.sub(r"[^a-z0-9]", "", name.lower())
    return letters[:-1] if len(letters) > 3 and letters.endswith("s") and not letters.endswith("ss") else letters
