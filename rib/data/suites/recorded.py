"""Record of a suite in metrics.json, by which its results are read without the suite's file."""

from __future__ import annotations

from rib.data import catalog as catalogs
from rib.data.catalog import Catalog, DatasetSpec
from rib.schemas.metrics import SuiteInfo


def record_of(catalog: Catalog) -> SuiteInfo:
    """Return what metrics.json records of a suite: its title, classes, and the titles of its domains.

    Args:
        catalog: The suite's catalog.
    """
    first = next(iter(catalog.specs.values()))
    found: SuiteInfo = {
        "title": catalog.title,
        "classes": list(first.classes),
        "domains": {
            name: {"title": spec.title, "derived_from": spec.derived_from} for name, spec in catalog.specs.items()
        },
        "in_distribution": catalog.in_distribution,
    }
    if len(catalog.outputs) != len(first.classes):
        found["outputs"] = [list(group) for group in first.groups]
    return found


def recorded_catalog(kind: str, recorded: SuiteInfo) -> Catalog:
    """Return the catalog of a suite as metrics.json records it; its datasets have no images to read.

    Args:
        kind: The suite's name.
        recorded: What `record_of` returned.
    """
    classes = tuple(recorded["classes"])
    ids = recorded.get("outputs")
    groups = tuple((i,) for i in range(len(classes))) if ids is None else tuple(tuple(group) for group in ids)
    specs = {
        name: DatasetSpec(name, entry["title"], (), "domain", groups, classes, None, derived_from=entry["derived_from"])
        for name, entry in recorded["domains"].items()
    }
    outputs = classes if ids is None else catalogs.real().outputs
    return Catalog(kind, outputs, specs, recorded["title"], recorded["in_distribution"])
