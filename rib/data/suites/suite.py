"""A user's suite: its domains, classes and roles, and the catalog that it stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from rib.data import catalog as catalogs
from rib.data.catalog import Catalog, DatasetSpec
from rib.data.suites.domain import Domain
from rib.errors import RibError

HeadKind = Literal["zero_shot", "subset", "probe"]


@dataclass(frozen=True)
class SuiteClass:
    """One class of a suite.

    Attributes:
        name: Name in folders, manifests and tables.
        words: Words in the sentences of a zero-shot head.
        imagenet: Ids of ImageNet-1K's outputs that count as this class, for ``head=subset``.
    """

    name: str
    words: str
    imagenet: tuple[int, ...] = ()


@dataclass(frozen=True)
class SuiteDomain:
    """One domain of a suite: a dataset to fine-tune on, to score, or both.

    Attributes:
        name: Name in commands and metrics.json.
        title: Name in tables and figures.
        domain: Where its images are.
        licence: Terms of use, in one sentence.
        may_train: True if the licence permits training on it.
        derived_from: Name of the domain from whose images these were made, or None.
    """

    name: str
    title: str
    domain: Domain
    licence: str = ""
    may_train: bool = True
    derived_from: str | None = None


@dataclass(frozen=True)
class Suite:
    """A user's suite, as its YAML file describes it, with defaults filled in.

    Attributes:
        name: Name in commands, and the run store's first folder.
        title: Name in titles of tables and figures.
        root: Folder that the domains' places are relative to.
        classes: In label order.
        domains: By name, in the order of tables.
        sources: Domains that a grid fine-tunes on.
        targets: Domains whose mean change in accuracy is RI.
        reported: Domains that are scored but not part of RI.
        reference: Domain that trains the probe alone, or None.
        head: Kind of head of models with other outputs, or None to choose it by the model.
        templates: Sentences of a zero-shot head, with ``{}`` for the class; empty: those of ImageNet.
    """

    name: str
    title: str
    root: Path
    classes: tuple[SuiteClass, ...]
    domains: Mapping[str, SuiteDomain]
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    reported: tuple[str, ...] = ()
    reference: str | None = None
    head: HeadKind | None = None
    templates: tuple[str, ...] = field(default=())

    def catalog(self, head: str | None = None, cache: Path | None = None) -> Catalog:
        """Return the catalog of the suite's datasets for models with a kind of head.

        Args:
            head: With ``subset`` the outputs are ImageNet-1K's, and a class is the maximum over its own; with any other
                the outputs are the suite's classes.
            cache: Folder for images that have to be unpacked (tar shards, Python entry points), as
                ``suites/NAME/DOMAIN-DIGEST``; None if none are to be read.

        Raises:
            RibError: With ``subset``, if a class has no outputs.
        """
        names = tuple(one.name for one in self.classes)
        groups: tuple[tuple[int, ...], ...] = tuple((i,) for i in range(len(names)))
        outputs = names
        if head == "subset":
            if missing := [one.name for one in self.classes if not one.imagenet]:
                raise RibError(
                    f"head=subset: expected outputs of ImageNet for each class of {self.name}, got none for "
                    f"{missing[0]} ({len(missing)} such classes); add imagenet: [...] to the suite's file, or use "
                    "head=probe"
                )
            groups, outputs = tuple(one.imagenet for one in self.classes), catalogs.real().outputs
        unpack_to = None if cache is None else cache / "suites" / self.name
        specs = {
            domain.name: DatasetSpec(
                domain.name,
                domain.title,
                (),
                "domain",
                groups,
                names,
                None,
                derived_from=domain.derived_from,
                licence=domain.licence,
                may_train=domain.may_train,
                domain=replace(domain.domain, unpack_to=unpack_to),
            )
            for domain in self.domains.values()
        }
        shown = self.reported[0] if self.reported else None
        return Catalog(self.name, outputs, specs, self.title, shown)
