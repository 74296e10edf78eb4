"""Counts with their nouns."""

from __future__ import annotations

from rib.runtime.counting import plural


def test_one_has_no_s():
    assert [plural(n, "run") for n in (0, 1, 2, 1204)] == ["0 runs", "1 run", "2 runs", "1,204 runs"]
    assert plural(2, "box", "boxes") == "2 boxes"
