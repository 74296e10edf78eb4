"""Which datasets count towards RI."""

from __future__ import annotations

from rib.data import catalog as catalogs
from rib.data.suites.suite_file import load_suite
from rib.runs.measure import counted
from tests.support.suites import make_photo_suite


def test_a_domain_of_a_suite_counts_where_it_is_a_target_and_imagenet_val_never_does(tmp_path):
    file = make_photo_suite(tmp_path, ("photo", "sketch", "paint"), 2, 1, reported=["paint"])
    catalog = load_suite(file).catalog()
    assert catalog.in_distribution == "paint"
    assert counted("photo", ["photo", "sketch", "paint"], catalog) == ("sketch", "paint")
    targets = ["imagenet_val", "imagenet_a", "imagenet_r"]
    assert counted("imagenet_r", targets, catalogs.real()) == ("imagenet_a",)
