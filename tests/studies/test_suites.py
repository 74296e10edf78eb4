"""Studies on a user's own suite: names and axes from the suite, and a sentence where a study needs ImageNet."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from rib.config.unchecked import compose_node
from rib.data.catalog import real
from rib.errors import RibError
from rib.studies.cka import Shift
from rib.studies.errata import Errata
from rib.studies.plots import accuracies, val_of
from rib.studies.rows import n_of
from rib.studies.size import Size
from rib.sweeps import plan
from tests.support.suite_store import suite


def cells(catalog: Any, **axes: Any) -> list[Any]:
    """Return one cell of a grid on a suite."""
    config = SimpleNamespace(suite=SimpleNamespace(targets=["b", "c"]))
    spec = SimpleNamespace(catalog=catalog, source="a", method="finetune", config=config)
    return [SimpleNamespace(spec=spec, axes=axes, label="a cell")]


def table(kind: str, **more: Any) -> pd.DataFrame:
    row = {"kind": kind, "num_sources": 1, "num_seeds": 1, "sources": "a", "source_after": 50.0, "val_after": 40.0}
    return pd.DataFrame([{**row, **more}])


def test_words_and_axes_take_their_names_from_the_suite():
    suite("told", "Told in two styles", {"a": "Aquarelles", "b": "Blueprints"}, in_distribution="b")
    assert n_of(table("told"), named=True) == "1 source (Aquarelles), 1 seed, Told in two styles"
    assert val_of(table("told")) == "Blueprints"
    assert accuracies(table("told"))["val"] == "Blueprints,\ntop-1 %"
    suite("bare", "Bare", {"a": "A"})
    assert val_of(table("bare")) == ""
    assert set(accuracies(table("bare", val_after=float("nan")))) == {"source"}


def test_the_size_of_a_suite_without_a_dataset_in_distribution_says_nothing_of_it():
    suite("bare", "Bare", {"a": "A"})
    row = {"curve": "vit", "a_class": 1.0, "mri": -2.0, "low": -3.0, "high": -1.5, "seeds_low": float("nan")}
    text = Size().paragraph(table("bare", **row))
    assert "vit: -2.00 [-3.00, -1.50] with 1 image per class; estimated" in text
    assert "(val" not in text


def test_the_images_of_a_shift_are_the_suites_own():
    for catalog, expected in (
        (suite("told", "Told", {"a": "A", "b": "B", "c": "C"}, in_distribution="c"), "c"),
        (suite("bare", "Bare", {"a": "A", "b": "B", "c": "C"}), "b"),
        (real(), "imagenet_val"),
    ):
        study = Shift()
        study.check(cells(catalog))
        assert study.dataset == expected
    with pytest.raises(RibError, match=r"draw\.dataset: there is no 'd'; expected any of a, b, c"):
        Shift("d").check(cells(suite("bare", "Bare", {"a": "A", "b": "B", "c": "C"})))


def test_the_errors_of_the_papers_code_need_its_data():
    with pytest.raises(RibError, match=r"study=paper_errata: expected data .*suite bare"):
        Errata().check(cells(suite("bare", "Bare", {"a": "A"}), **{"paper.ewc": "identity"}))


def test_many_sources_are_grey_lines_and_their_mean():
    names = {f"d{i}": f"Domain {i}" for i in range(13)}
    suite("many", "Many", names, in_distribution="d0")
    rows = [
        {"curve": "vit, ewc", "source": s, "seed": 0, "layer": f"blocks.{i}", "cka": 0.9 - 0.1 * i, "images": 240}
        | {"kind": "many", "num_sources": 13, "num_seeds": 1, "sources": " ".join(names), "ri": 1.0, "model": "vit"}
        for s in names
        for i in range(3)
    ]
    few = [{**row, "num_sources": 2, "sources": "d0 d1"} for row in rows if row["source"] in ("d0", "d1")]
    drawn = [Shift().figures(pd.DataFrame(some))["layers"] for some in (rows, few)]
    many, two = ([text.get_text() for text in figure.legends[0].get_texts()] for figure in drawn)
    assert many == ["a source", "mean of 13 sources"]
    assert two == ["Domain 0", "Domain 1"]
    assert "a grey line per source" in drawn[0].caption  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, ["a", "b"]), (["imagenet_r", "imagenet_a"], ["a", "b"]), (["b"], ["b"]), (["x"], ["x"])],
)
def test_a_studys_sources_are_the_suites(monkeypatch, given, expected, capsys):
    bare = suite("bare", "Bare", {"a": "A", "b": "B"})
    monkeypatch.setattr(plan, "find_data", lambda config: (bare, None))
    base: Any = SimpleNamespace(
        data=SimpleNamespace(suite="bare.yaml"),
        suite=SimpleNamespace(name="bare", sources=["a", "b"]),
        head=SimpleNamespace(reference=None),
    )
    assert plan._sources(given, base) == expected
    said = capsys.readouterr().err
    assert ("its own sources take their place" in said) == (given == ["imagenet_r", "imagenet_a"])


def test_axes_of_a_suite_are_those_of_real_data(monkeypatch):
    monkeypatch.setattr(plan, "kind_of", lambda root, suite: "bare")
    base: Any = SimpleNamespace(data=SimpleNamespace(root="/data", suite="bare.yaml"))
    sizes = compose_node("benchmark", "study=size_study").axes
    found = plan._axes({"steps": dict(sizes["steps"])}, base)
    assert found == {"steps": list(sizes["steps"]["user"])}
