"""The list of modules in ``rib/train.py`` from command to result equals the actual imports."""

from __future__ import annotations

import ast
import re

from tests.test_layers import ROOT, imports, modules


def files() -> list[str]:
    text = ast.get_docstring(ast.parse((ROOT / "train.py").read_text()))
    assert text
    return re.findall(r"^\d+\. ``rib/([\w/]+)\.py``", text, flags=re.M)


def test_the_way_is_short():
    way = ["train", *files()]
    assert len(way) <= 14
    assert len({name.partition("/")[0] for name in way if "/" in name}) <= 8


def test_every_file_is_imported_by_one_before_it():
    before = {"rib.train"}
    for name in (f"rib.{file.replace('/', '.')}" for file in files()):
        assert name in modules(), name
        # A package's own imports count: rib.metrics hands on what its modules have.
        known = {i for other in before for i in (other, *imports(other))}
        known |= {i for package in known & modules().keys() if package.count(".") == 1 for i in imports(package)}
        assert name in known, f"{name} is imported by none of {sorted(before)}"
        before.add(name)
