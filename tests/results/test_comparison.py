"""The comparison of two runs against short formulas of its own, and what cannot be compared."""

from __future__ import annotations

from collections import defaultdict
from pathlib import PurePath

import numpy as np
import pytest

import rib
from rib.results.finished_run import FinishedRun
from tests.results.test_finished_run import Cells

Z = 1.959964


def outcome(first, second, dataset):
    """The difference in correctness of each image, -1, 0 or 1, with the photograph that the image shows."""
    images = first.images(dataset)
    difference = first.predictions(dataset).correct.astype(int) - second.predictions(dataset).correct.astype(int)
    return difference, [PurePath(path).stem for path in images.index]


def test_each_dataset_is_a_paired_difference(toy):
    table = rib.compare(toy.ewc, toy.plain).table()
    for name, row in table.iterrows():
        difference, _ = outcome(toy.ewc, toy.plain, name)
        assert row["images"] == len(difference) == 40
        assert np.isclose(row["difference"], 100 * difference.mean())
        assert np.isclose(row["first"] - row["second"], row["difference"])
        assert (row["won"], row["lost"]) == ((difference == 1).sum(), (difference == -1).sum())
        half = 100 * Z * difference.std(ddof=1) / np.sqrt(len(difference))
        # A percentile interval in steps of 2.5 points, against a normal one.
        assert np.isclose((row["high"] - row["low"]) / 2, half, atol=1.5, rtol=0.1), name
    assert table["won"].sum() + table["lost"].sum() > 20, "the two runs differ, or this tests nothing"


def test_the_difference_in_ri_is_that_of_the_two_and_its_interval_keeps_photographs_together(toy):
    comparison = rib.compare(toy.ewc, toy.plain)
    assert np.isclose(comparison.ri.value, toy.ewc.ri.value - toy.plain.ri.value)
    assert set(comparison.targets) == set(toy.plain.metrics["robustness_improvement"]["targets"])
    # Cartoon and Drawing show photographs of val: their images are summed by photograph before the variance is taken.
    parts = defaultdict(lambda: defaultdict(float))
    for name in comparison.targets:
        difference, photographs = outcome(toy.ewc, toy.plain, name)
        family = "val" if name in ("imagenet_cartoon", "imagenet_drawing") else name
        for value, photograph in zip(difference, photographs, strict=True):
            key = photograph if family == "val" else len(parts[family])
            parts[family][key] += (value - difference.mean()) / len(difference) / len(comparison.targets)
    variance = sum(len(p) / (len(p) - 1) * sum(v**2 for v in p.values()) for p in parts.values())
    assert np.isclose((comparison.ri.high - comparison.ri.low) / 2, 100 * Z * np.sqrt(variance), rtol=0.05)
    assert np.isclose(comparison.ri.error, 100 * np.sqrt(variance), rtol=0.02)


def test_compared_with_its_own_start_a_run_shows_its_changes(toy):
    comparison = rib.compare(toy.plain, toy.plain.before)
    changes = toy.plain.table()
    assert comparison.table()[["difference", "low", "high"]].to_numpy() == pytest.approx(
        changes[["change", "low", "high"]].to_numpy()
    )
    for end in ("value", "low", "high"):
        assert getattr(comparison.ri, end) == pytest.approx(getattr(toy.plain.ri, end))


def test_runs_of_two_models_differ_in_ri_by_what_each_changed(toy):
    comparison = rib.compare(toy.other_model, toy.plain)
    assert np.isclose(comparison.ri.value, toy.other_model.ri.value - toy.plain.ri.value)
    gap = comparison.table()["difference"].mean()
    assert abs(gap - comparison.ri.value) > 1, "the models differ in accuracy before, which RI does not count"
    assert rib.compare(toy.other_model.before, toy.plain.before).ri is None
    reverse = rib.compare(toy.plain, toy.other_model)
    assert np.isclose(reverse.ri.value, -comparison.ri.value)
    assert reverse.table()["won"].equals(comparison.table()["lost"])


def test_classes_and_images_add_up_to_the_dataset(toy):
    comparison = rib.compare(toy.ewc, toy.plain)
    for name in ("imagenet_r", "objectnet", "imagenet_v2"):
        row, classes, images = comparison.table().loc[name], comparison.classes(name), comparison.images(name)
        assert classes[["images", "won", "lost"]].sum().tolist() == [row["images"], row["won"], row["lost"]]
        weighted = (classes["difference"] * classes["images"]).sum() / classes["images"].sum()
        assert np.isclose(weighted, row["difference"])
        counts = images["outcome"].value_counts()
        assert (counts.get("won", 0), counts.get("lost", 0), len(images)) == (row["won"], row["lost"], row["images"])
        won = images[images["outcome"] == "won"]
        assert won["correct_first"].all() and not won["correct_second"].any()
        for label, own in classes.iterrows():
            of_class = images[images["label"] == label]["outcome"].value_counts()
            assert of_class.get("won", 0) == own["won"] and of_class.sum() == own["images"]
    with pytest.raises(rib.RibError, match=r"imagenet_rr: not scored in both runs; did you mean imagenet_r\?"):
        comparison.classes("imagenet_rr")


@pytest.mark.slow
def test_corruptions_count_equally_in_classes_too(toy, tmp_path):
    suite = {"targets": ["imagenet_c"], "reported": []}
    options = {**toy.options, "data": {"root": None, "limit": 320}, "steps": 1, "runs": tmp_path}
    runs = [rib.finetune(**options, suite=suite, seed=seed) for seed in (0, 1)]
    comparison = rib.compare(*runs)
    row, classes = comparison.table().loc["imagenet_c"], comparison.classes("imagenet_c")
    accuracy = [100 * run.metrics["accuracy"]["imagenet_c"]["after"] for run in runs]
    assert (row["first"], row["second"]) == pytest.approx(accuracy)
    assert classes[["images", "won", "lost"]].sum().tolist() == [row["images"], row["won"], row["lost"]]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"data": {"kind": "user"}}, "one was scored on toy data .mini., the other on user data"),
        ({"accuracy": {}}, r"they share no dataset \(suites seven and seven\); score one of them"),
        (
            {"protocol": {"label_rule": "first"}},
            "ObjectNet's classes by other rules .data.label_rule max and first",
        ),
    ],
)
def test_runs_of_other_data_are_refused(toy, change, sentence):
    other = rib.load(toy.plain.folder)
    for key, value in change.items():
        other.metrics[key] = {**other.metrics[key], **value} if value else value
    with pytest.raises(rib.RibError, match=f"{toy.ewc.key} and {toy.plain.key} cannot be compared: .*{sentence}"):
        rib.compare(toy.ewc, other)


def test_runs_on_other_images_are_refused_with_the_option_that_differs(toy):
    with pytest.raises(rib.RibError, match=r"different images of imagenet_v2, .* \(data.limit 40 and 30\)"):
        rib.compare(toy.plain, toy.other_images)


def test_runs_are_given_as_folders_or_keys_too(toy):
    assert repr(rib.compare(toy.ewc.key[:8], str(toy.plain.folder), runs=toy.root)) == repr(
        rib.compare(toy.ewc, toy.plain)
    )
    other = rib.load(toy.plain.folder)
    other.metrics["protocol"] = {**other.metrics["protocol"], "image_backend": "pil"}
    assert rib.compare(toy.ewc, other).notes == ["different libraries for decoding images: torchvision and pil"]


def test_it_shows_as_a_table_that_names_both(toy):
    comparison = rib.compare(toy.ewc, toy.plain)
    texts = [text for _, text in Cells(comparison._repr_html_()).texts]
    assert texts[0].startswith("mini_tiny, ewc on") and texts[1] == "minus" and "finetune on" in texts[2]
    assert any(text.startswith("RI difference ") and "6 targets" in text for text in texts)
    assert repr(comparison).startswith("<RunComparison: mini_tiny, ewc on") and "RI difference" in repr(comparison)
    same = rib.compare(toy.plain, toy.plain)
    assert same.labels == tuple(f"{toy.plain.title} ({toy.plain.key[:8]})" for _ in range(2))
    assert same.ri.value == same.ri.low == same.ri.high == 0


def test_runs_of_other_models_sources_or_seeds_are_compared_with_a_note(toy):
    assert rib.compare(toy.ewc, toy.plain).notes == rib.compare(toy.ewc, toy.ewc.before).notes == []
    models = "models differ: mini_small and mini_tiny; each change is against its own start"
    compared = rib.compare(toy.other_model, toy.plain)
    assert models in compared.notes and models in repr(compared) and models in compared._repr_html_()
    other = FinishedRun(toy.plain.run, {**toy.plain.metrics, "source": "imagenet_r", "seed": 1})
    assert rib.compare(toy.ewc, other).notes == [
        "sources differ: mini A and mini R; neither is a target of the difference in RI",
        "seeds differ: 0 and 1",
    ]


def test_a_class_without_a_changed_image_still_has_an_interval(toy):
    """Five images that stay as they are say little about further ones."""
    classes = rib.compare(toy.ewc, toy.plain).classes("imagenet_r")
    still = classes[(classes["won"] == 0) & (classes["lost"] == 0)]
    assert len(still) and (still["difference"] == 0).all()
    n = still["images"] + 2
    assert np.allclose(still["high"], 100 * 1.959964 / n, atol=1e-3) and np.allclose(still["low"], -still["high"])
