"""Read and check a suite's YAML file; each mistake is one sentence with the nearest right spelling.

Does not import torch.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast, get_args

from rib.data.suites.class_fields import read_classes, words_of
from rib.data.suites.discover import discovered_classes
from rib.data.suites.domain_fields import read_domain_fields
from rib.data.suites.fields import Fields, read_yaml
from rib.data.suites.suite import HeadKind, Suite, SuiteClass, SuiteDomain
from rib.errors import nearest

NAME = re.compile(r"[a-z0-9][a-z0-9_]*")
"""What a suite or a domain may be called: it becomes a folder and a word in commands."""

RESERVED = (
    *("mini", "user", "none", "null", "default", "imagenet"),
    *("calibration", "cells", "claims", "datasets", "grids", "memo", "multirun", "report", "runs", "searches"),
    *("studies", "submitit"),
)
"""Names that a suite cannot have: kinds of data, names of conf/suite, and folders of a run store."""

NO_DOMAIN = ("none", "null")
"""Names that a domain cannot have: in commands and results they mean that there is none."""

KEYS = (
    *("name", "title", "root", "classes", "templates", "head", "reference", "licence", "may_train", "domains"),
    *("sources", "targets", "reported"),
)


def load_suite(path: str | Path) -> Suite:
    """Read a suite's file; one that has not changed is read once per process.

    Args:
        path: The YAML file.

    Raises:
        RibError: If there is no such file, or something in it is wrong.
    """
    file = Path(path).expanduser()
    try:
        status = file.stat()
    except OSError:
        read_yaml(file)  # says what is there instead
        raise
    return _load(file.absolute(), status.st_size, status.st_mtime_ns)


@cache
def _load(file: Path, size: int, mtime_ns: int) -> Suite:
    fields = read_yaml(file)
    fields.check_keys(KEYS)
    name = _suite_name(fields)
    root = Path(posixpath.normpath(file.parent / Path(fields.text("root", ".")).expanduser()))
    domains = _domains(fields, root)
    classes = read_classes(fields)
    if classes is None:
        classes = tuple(SuiteClass(one, words_of(one)) for one in discovered_classes(fields, domains, root))
    if len(classes) < 2:
        raise fields.fault("classes", f"expected at least two classes, got {len(classes)}")
    _check_class_names(fields, domains, classes)
    head = cast("HeadKind | None", fields.choice("head", get_args(HeadKind)))
    sources, targets, reported, reference = _roles(fields, domains)
    return Suite(
        name,
        fields.text("title", name),
        root,
        classes,
        domains,
        sources,
        targets,
        reported,
        reference,
        head,
        _templates(fields),
    )


def _suite_name(fields: Fields) -> str:
    name = fields.name("name", fields.values.get("name") or fields.file.stem)
    if not NAME.fullmatch(name):
        raise fields.fault(
            "name", f"expected small letters, digits and _ (pets, office_home), got {name!r}{_clean(name)}"
        )
    if name in RESERVED:
        raise fields.fault("name", f"{name} is a name of rib's own; choose another, such as my_{name}")
    return name


def _clean(name: str) -> str:
    """Return the end of a message that suggests an allowed name."""
    cleaned = clean_name(name)
    return f"; write {cleaned}" if cleaned else ""


def clean_name(text: str) -> str:
    """Return the name that a suite or domain may have for what somebody calls it: ``Real World`` is real_world."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "_", plain.lower()).strip("_")


def _domains(fields: Fields, root: Path) -> dict[str, SuiteDomain]:
    part = fields.part("domains")
    if not part.values:
        raise fields.fault("domains", "expected at least one domain, such as photo: {folder: photo}")
    found = {}
    for name in part.values:
        if not NAME.fullmatch(name):
            raise part.fault(name, f"expected a name of small letters, digits and _, got {name!r}{_clean(name)}")
        if name in NO_DOMAIN:
            raise part.fault(name, f"in commands {name} is no domain; choose another, such as my_{name}")
        own = part.part(name) if isinstance(part.values[name], dict) else _short(part, name)
        found[name] = read_domain_fields(own, name, fields.text("licence"), fields.flag("may_train", True))
    for name, one in found.items():
        if one.derived_from is not None and (one.derived_from not in found or one.derived_from == name):
            hint = nearest(one.derived_from, found) or f"; known: {', '.join(found)}"
            raise part.fault(f"{name}.derived_from", f"expected another domain, got {one.derived_from}{hint}")
    _check_different(part, found, root)
    return found


def _short(part: Fields, name: str) -> Fields:
    """Return the fields of a domain that is given as a folder's name alone, ``photo: photos``, or left empty."""
    value = part.values[name]
    return Fields(part.file, part.at(name), {"folder": name if value is None else value})


def _check_different(part: Fields, domains: Mapping[str, SuiteDomain], root: Path) -> None:
    """Refuse two domains with the same images, or with the same title in tables."""
    places: dict[tuple[Any, ...], str] = {}
    titles: dict[str, str] = {}
    for name, one in domains.items():
        what = one.domain.place if one.domain.form in ("glob", "python") else (root / one.domain.place).resolve()
        place = (one.domain.form, what, one.domain.class_from, one.domain.select)
        if place in places:
            raise part.fault(name, f"expected images of its own, got those of {places[place]} ({one.domain.place})")
        if one.title in titles:
            raise part.fault(f"{name}.title", f"expected a title of its own, got that of {titles[one.title]}")
        places[place] = titles[one.title] = name


def _check_class_names(fields: Fields, domains: Mapping[str, SuiteDomain], classes: tuple[SuiteClass, ...]) -> None:
    known = [one.name for one in classes]
    for domain in domains.values():
        for theirs, ours in domain.domain.class_names.items():
            if ours is not None and ours not in known:
                raise fields.fault(
                    f"domains.{domain.name}.class_names.{theirs}",
                    f"{ours} is none of the suite's classes{nearest(ours, known)}",
                )


def _templates(fields: Fields) -> tuple[str, ...]:
    templates = fields.texts("templates") or ()
    for template in templates:
        if template.count("{}") != 1 or "{" in template.replace("{}", ""):
            raise fields.fault(
                "templates", f"expected {{}} once for the class, as in 'a photo of a {{}}.', got {template!r}"
            )
    return templates


def _roles(
    fields: Fields, domains: Mapping[str, SuiteDomain]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], str | None]:
    """Return sources, targets, reported domains and the reference, with defaults filled in."""
    reported = _role(fields, "reported", domains) or ()
    reference = fields.text("reference") or None
    if reference is not None:
        _check_known(fields, "reference", [reference], domains)
    others = [name for name in domains if name not in reported and name != reference]
    sources, targets = _role(fields, "sources", domains), _role(fields, "targets", domains)
    for key, names in (("sources", sources), ("targets", targets), ("reported", reported)):
        if reference is not None and reference in (names or ()):
            raise fields.fault(
                key,
                f"{reference} is the reference, which trains the probe alone; remove it here, or choose another one",
            )
    if both := next((name for name in reported if name in (targets or ())), None):
        raise fields.fault("reported", f"{both} is a target too; a domain is part of RI or only reported")
    if sources is None:
        sources = tuple(name for name in others if domains[name].may_train)
    for key, names in (("sources", sources), ("reference", () if reference is None else (reference,))):
        if refused := next((name for name in names if not domains[name].may_train), None):
            raise fields.fault(
                key,
                f"{refused} may not be trained on (may_train: false); remove it here, or write may_train: true if its "
                "licence permits training",
            )
    if not sources:
        raise fields.fault(
            "sources", "expected a domain that may be trained on, got none; write may_train: true for one"
        )
    targets = tuple(others) if targets is None else targets
    if not targets:
        raise fields.fault("targets", "expected at least one domain, got none; leave a domain out of reported")
    return sources, targets, reported, reference


def _role(fields: Fields, key: str, domains: Mapping[str, SuiteDomain]) -> tuple[str, ...] | None:
    names = fields.texts(key)
    _check_known(fields, key, names or (), domains)
    return names


def _check_known(fields: Fields, key: str, names: Iterable[str], domains: Mapping[str, SuiteDomain]) -> None:
    for name in names:
        if name not in domains:
            hint = nearest(name, domains) or f"; known: {', '.join(domains)}"
            raise fields.fault(key, f"there is no domain {name}{hint}")
