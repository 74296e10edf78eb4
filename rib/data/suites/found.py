"""Domains and classes recognised in a folder of images, and the files left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rib.data.suites.suite_file import NO_DOMAIN, clean_name


@dataclass(frozen=True)
class FoundDomain:
    """A domain that was recognised.

    Attributes:
        title: What it is called on disk.
        place: Its keys in a suite's file: ``{"folder": "photo"}``.
        counts: Images of each class, by name.
    """

    title: str
    place: Mapping[str, str]
    counts: Mapping[str, int]


@dataclass
class Found:
    """Domains and classes recognised in a folder of images.

    Attributes:
        root: Folder that the places are relative to: the given one, or the only one in it.
        layout: How the images lie, in words.
        domains: By name in a suite's file.
        ignored: What was left out, each with the reason.
        doubts: What the user should check.
    """

    root: Path
    layout: str = ""
    domains: dict[str, FoundDomain] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        """Names of all classes, sorted."""
        return sorted({name for domain in self.domains.values() for name in domain.counts})

    def add(self, title: str, place: Mapping[str, str], counts: Mapping[str, int]) -> None:
        """Add a domain under a name that a suite's file allows."""
        base = clean_name(title) or "domain"
        base = name = f"my_{base}" if base in NO_DOMAIN else base
        number = 2
        while name in self.domains:
            name, number = f"{base}_{number}", number + 1
        self.domains[name] = FoundDomain(title, place, dict(sorted(counts.items())))
