"""Read the classes of a suite's file, and ImageNet's outputs that count as them."""

from __future__ import annotations

import re

from rib.data import catalog as catalogs
from rib.data.suites.fields import Fields
from rib.data.suites.suite import SuiteClass
from rib.errors import nearest

KEYS = ("name", "imagenet")


def read_classes(fields: Fields) -> tuple[SuiteClass, ...] | None:
    """Return the classes of a suite's file in label order, or None if it leaves them out.

    Raises:
        RibError: If a class is there twice or cannot be a folder's name, or an output of ImageNet does not exist or
            belongs to two classes.
    """
    value = fields.values.get("classes")
    if value is None:
        return None
    if isinstance(value, list):
        names = fields.texts("classes") or ()
        found = tuple(SuiteClass(name, words_of(name)) for name in names)
    else:
        part = fields.part("classes")
        found = tuple(_class(part, name) for name in part.values)
    for one in found:
        if not re.fullmatch(r"[^./\0][^/\0]*", one.name) or one.name != one.name.strip():
            raise fields.fault("classes", f"expected names that a folder can have, got {one.name!r}")
    owner: dict[int, str] = {}
    for one in found:
        for output in one.imagenet:
            if output in owner:
                raise fields.fault(
                    f"classes.{one.name}.imagenet",
                    f"{catalogs.real().outputs[output]} (output {output}) belongs to {owner[output]} already; an "
                    "output counts as one class",
                )
            owner[output] = one.name
    return found


def words_of(name: str) -> str:
    """Return a class's name as words of a sentence: ``traffic_light`` is traffic light."""
    return " ".join(re.split(r"[_\s]+", name)).strip()


def _class(part: Fields, name: str) -> SuiteClass:
    value = part.values[name]
    if isinstance(value, str):
        return SuiteClass(name, value)  # dog: a dog
    own = part.part(name)
    own.check_keys(KEYS)
    outputs = own.values.get("imagenet")
    listed = [] if outputs is None else outputs if isinstance(outputs, list) else [outputs]
    ids = tuple(dict.fromkeys(_output(own, one) for one in listed))
    return SuiteClass(name, own.text("name", words_of(name)), ids)


def _output(own: Fields, value: object) -> int:
    """Return the id of an output of ImageNet-1K, given as an id or a WordNet id."""
    wnids = catalogs.real().outputs
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value < len(wnids):
            raise own.fault("imagenet", f"expected an output from 0 to {len(wnids) - 1}, got {value}")
        return value
    if isinstance(value, str) and value in wnids:
        return wnids.index(value)
    hint = nearest(str(value), wnids) if re.fullmatch(r"n\d+", str(value)) else ""
    raise own.fault(
        "imagenet",
        f"expected WordNet ids (n02085620) or output ids (152) of ImageNet's 1000 classes, got {value!r}{hint}",
    )
