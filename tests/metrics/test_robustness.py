"""RI and mRI against formulas written out, and what counts as a target."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rib.metrics.robustness import (
    family_of,
    mean_over_cells,
    mean_robustness_improvement,
    robustness_improvement,
    target_shares,
    targets_of,
    without_derived,
)

DERIVED_FROM = {"imagenet_cartoon": "imagenet_val", "imagenet_drawing": "imagenet_val", "imagenet_c": "imagenet_val"}
SUITE = ("imagenet_val", "imagenet_v2", "imagenet_r", "imagenet_cartoon", "imagenet_drawing", "imagenet_c")
BEFORE = {"imagenet_v2": 0.66, "imagenet_a": 0.15, "imagenet_sketch": 0.28, "objectnet": 0.26}
BEFORE |= {"imagenet_cartoon": 0.66, "imagenet_drawing": 0.39, "imagenet_c": 0.56, "imagenet_r": 0.38}
AFTER = {"imagenet_v2": 0.59, "imagenet_a": 0.21, "imagenet_sketch": 0.47, "objectnet": 0.32}
AFTER |= {"imagenet_cartoon": 0.61, "imagenet_drawing": 0.51, "imagenet_c": 0.52, "imagenet_r": 0.99}


def test_improvement_reproduces_the_papers_illustration() -> None:
    targets = targets_of("imagenet_r", BEFORE, None)
    total = 0.0
    for name in BEFORE:
        if name != "imagenet_r":
            total += 100 * AFTER[name] - 100 * BEFORE[name]
    assert robustness_improvement(BEFORE, AFTER, targets) == pytest.approx(total / 7)
    assert round(total / 7, 2) == 3.86


def test_identical_accuracies_improve_by_exactly_nothing() -> None:
    assert robustness_improvement(AFTER, AFTER, list(AFTER)) == 0.0


def test_mean_over_sources() -> None:
    assert mean_robustness_improvement({"imagenet_r": 3.0, "imagenet_a": -1.0, "objectnet": 1.0}) == 1.0


def test_cells_are_averaged_over_severities_then_over_corruptions() -> None:
    cells = {"fog/1": 0.9, "fog/2": 0.7, "fog/5": 0.2, "snow/3": 0.4}
    assert mean_over_cells(cells) == pytest.approx(((0.9 + 0.7 + 0.2) / 3 + 0.4) / 2)


def test_shares_are_the_same_means() -> None:
    shares = target_shares(["imagenet_r", "imagenet_c/fog/1", "imagenet_c/fog/2", "imagenet_c/snow/3"])
    assert list(shares.values()) == [1 / 2, 1 / 8, 1 / 8, 1 / 4]


def test_targets_leave_out_the_source_and_imagenet_val() -> None:
    assert targets_of("imagenet_r", SUITE, "imagenet_val") == (
        "imagenet_v2",
        "imagenet_cartoon",
        "imagenet_drawing",
        "imagenet_c",
    )
    assert targets_of("none", SUITE, "imagenet_val") == SUITE[1:]


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        ("imagenet_r", ("imagenet_v2", "imagenet_cartoon", "imagenet_drawing", "imagenet_c")),
        ("imagenet_cartoon", ("imagenet_v2", "imagenet_r")),
        ("imagenet_c", ("imagenet_v2", "imagenet_r")),
        ("imagenet_val", ("imagenet_v2", "imagenet_r")),
    ],
)
def test_targets_without_the_sources_own_images(source: str, kept: tuple[str, ...]) -> None:
    assert without_derived(source, targets_of(source, SUITE, "imagenet_val"), DERIVED_FROM) == kept


def test_family_is_what_a_dataset_is_derived_from() -> None:
    declared = {**DERIVED_FROM, "imagenet_r": None}
    families = [family_of(name, declared) for name in ("imagenet_cartoon", "imagenet_val", "imagenet_r", "other")]
    assert families == ["imagenet_val", "imagenet_val", "imagenet_r", "other"]


def test_means_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one target"):
        robustness_improvement(BEFORE, AFTER, [])
    with pytest.raises(ValueError, match=r"none for \['imagenet_v3'\]"):
        robustness_improvement(BEFORE, AFTER, ["imagenet_v3"])
    with pytest.raises(ValueError, match="at least one source"):
        mean_robustness_improvement({})
    with pytest.raises(ValueError, match="at least one corruption"):
        mean_over_cells({})
    with pytest.raises(ValueError, match="at least one target"):
        target_shares([])


@pytest.mark.parametrize("units", [["a", "a"], ["a", "a/fog/1"], ["a/fog/1", "a"]])
def test_a_target_counted_twice_is_refused(units: list[str]) -> None:
    with pytest.raises(ValueError, match="each target once"):
        target_shares(units)


def test_tables_need_no_torch() -> None:
    code = "import sys, rib.metrics; rib.metrics.seed_interval([1.0, 2.0]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
