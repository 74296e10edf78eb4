"""Read one domain of a suite's file."""

from __future__ import annotations

import posixpath
import re
from typing import get_args

from rib.data.suites.domain import Domain, Form
from rib.data.suites.fields import Fields
from rib.data.suites.suite import SuiteDomain
from rib.errors import RibError

FORMS: tuple[Form, ...] = get_args(Form)

OWN = {"glob": ("class_from",), "manifest": ("domain",)}
"""Further keys of domains of one form."""

KEYS = ("title", "licence", "may_train", "derived_from", "class_names", *FORMS)
"""Keys of domains of any form."""


def read_domain_fields(fields: Fields, name: str, licence: str, may_train: bool) -> SuiteDomain:
    """Return a domain as a suite's file describes it.

    Args:
        fields: Its part of the file.
        name: Its name.
        licence: Licence of all domains that have none of their own.
        may_train: Whether domains that do not say so may be trained on.

    Raises:
        RibError: If a key is unknown or its value is wrong, or the domain has not exactly one place.
    """
    forms = [form for form in FORMS if fields.values.get(form) is not None]
    fields.check_keys((*KEYS, *(key for form in forms or FORMS for key in OWN.get(form, ()))))
    if len(forms) != 1:
        got = " and ".join(forms) or "none"
        raise _fault(
            fields, f"expected one of {', '.join(FORMS)}, got {got}; a folder of class folders is folder: {name}"
        )
    form = forms[0]
    domain = Domain(
        form,
        _place(fields, form),
        _rule(fields),
        None if fields.values.get("domain") is None else fields.name("domain", fields.values["domain"]),
        _class_names(fields),
    )
    return SuiteDomain(
        name,
        fields.text("title", name),
        domain,
        fields.text("licence", licence),
        fields.flag("may_train", may_train),
        fields.text("derived_from") or None,
    )


def _fault(fields: Fields, what: str) -> RibError:
    return RibError(f"{fields.file}: {fields.place}: {what}")


def _place(fields: Fields, form: Form) -> str:
    place = fields.name(form, fields.values[form])
    if form == "python":
        if not re.fullmatch(r"\w+(\.\w+)*:\w+", place):
            raise fields.fault(form, f"expected module:function, such as my_data:photos, got {place!r}")
        return place
    if posixpath.isabs(place) or place.startswith("~"):
        raise fields.fault(form, f"expected a path relative to the suite's root, got {place}; set root, or use a link")
    return posixpath.normpath(place)


def _rule(fields: Fields) -> str:
    rule = fields.text("class_from", "parent")
    if rule in ("parent", "stem"):
        return rule
    try:
        groups = re.compile(rule).groupindex
    except re.error as error:
        raise fields.fault(
            "class_from", f"expected parent, stem or a regular expression, got {rule!r} ({error})"
        ) from error
    if "class" not in groups:
        raise fields.fault(
            "class_from", f"expected parent, stem or a regular expression with a group (?P<class>...), got {rule!r}"
        )
    return rule


def _class_names(fields: Fields) -> dict[str, str | None]:
    part = fields.part("class_names")
    return {theirs: None if ours is None else part.name(theirs, ours) for theirs, ours in part.values.items()}
