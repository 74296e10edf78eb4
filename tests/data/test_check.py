"""The survey of a data root: counts and a sentence for each dataset, including faulty ones."""

from __future__ import annotations

from rib.data.catalog import Catalog
from rib.data.check import survey
from rib.data.mini import catalog, ensure
from tests.data.trees import few, fill


def test_it_counts_what_is_there(tmp_path):
    specs = [few("imagenet_sketch"), few("imagenet_r"), few("imagenet_a")]
    fill(tmp_path / "imagenet-sketch", specs[0].classes)
    fill(tmp_path / "imagenet-r", specs[1].classes[:2])
    sketch, r, a = survey(Catalog("user", (), {spec.name: spec for spec in specs}), tmp_path)
    assert (sketch.num_images, sketch.num_classes, sketch.fault) == (6, 3, None)
    assert (r.num_images, r.num_classes) == (4, 2)
    assert r.fault is not None
    assert "expected 3 classes with images" in r.fault
    assert (a.num_images, a.num_classes) == (0, 0)
    assert a.fault is not None
    assert "unpack its archive there" in a.fault


def test_mini_is_as_its_catalog_says(cache):
    found = survey(catalog(), ensure(cache))
    specs = list(catalog().specs.values())
    assert [f.fault for f in found] == [None] * len(specs)
    assert [f.num_images for f in found] == [spec.num_images for spec in specs]
    assert [f.num_classes for f in found] == [len(spec.groups) for spec in specs]
