"""Statistics of studies: independent units, choice of the best value, correction for many comparisons."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from rib.metrics import holm
from rib.studies.against import Against
from rib.studies.cka import Shift
from rib.studies.scale import Map, Scale

SOURCES = (
    "imagenet_v2",
    "imagenet_a",
    "imagenet_r",
    "imagenet_sketch",
    "objectnet",
    "imagenet_cartoon",
    "imagenet_drawing",
)


def row(**facts: Any) -> dict[str, Any]:
    """A row as `rib.studies.rows.rows` makes it; an interval of a point each way unless said otherwise."""
    mri = facts.get("mri", -1.0)
    whole = {"mri": mri, "low": mri - 1, "high": mri + 1, "p": 0.5, "seeds_low": np.nan, "seeds_high": np.nan}
    whole |= {"num_sources": 1, "num_seeds": 1, "sources": "imagenet_r", "method": "finetune", "model": "mini_tiny"}
    return {**whole, "source_before": 20.0, "source_after": 30.0, "held_out_after": np.nan, **facts}


def rates(*points: dict[str, Any]) -> pd.DataFrame:
    table = pd.DataFrame([row(curve="mini_tiny", **point) for point in points])
    return table.assign(p_holm=holm(list(table["p"])))


LR = Against("optimizer.lr", "peak learning rate")
POINTS = (
    {"optimizer.lr": 0.001, "mri": 3.0, "source_after": 21.0, "held_out_after": 20.0},
    {"optimizer.lr": 0.01, "mri": 1.0, "source_after": 30.0, "held_out_after": 28.0},
    {"optimizer.lr": 0.1, "mri": -9.0, "source_after": 40.0, "held_out_after": 22.0},
)
WITHOUT = tuple({**point, "held_out_after": np.nan} for point in POINTS)


@pytest.mark.parametrize(
    ("points", "said"),
    [
        (POINTS, "best on images held out of the source: +1.00 [+0.00, +2.00] at 0.01 (source 20.0 > 30.0 %);"),
        ((*POINTS[:2], WITHOUT[2]), "best on the source: at 0.1;"),
        (WITHOUT, "best on the source: at 0.1;"),
        (
            tuple({**p, "source_after": np.nan} for p in WITHOUT),
            "no best value, since accuracy on the source was not scored;",
        ),
    ],
    ids=["held out", "some held out", "source", "not scored"],
)
def test_a_rate_is_never_called_best_by_what_is_of_targets(points, said):
    assert said in LR.paragraph(rates(*points))
    other = [{**point, "mri": mri} for point, mri in zip(points, (-5.0, 1.0, 8.0), strict=True)]
    assert said in LR.paragraph(rates(*other)), "and mRI changes nothing of it"


def test_gains_are_counted_after_holm_over_all_values_of_a_study():
    """Ten intervals above 0, of which none stands for all together; a loss that stands is no gain."""
    many = [{"optimizer.lr": 0.001 * (i + 1), "mri": 1.5, "p": 0.02} for i in range(10)]
    assert "0 of 10 values gain robustness" in LR.paragraph(rates(*many))
    text = LR.paragraph(rates(*many[:-2], {**many[8], "p": 1e-6}, {**many[9], "mri": -4.0, "p": 1e-6}))
    assert "1 of 10 values gain robustness" in text
    assert "after Holm over 10" in text


def test_cells_of_the_map_gain_after_holm_over_all_of_them():
    cells = [row(curve="mini_tiny", pretrained_on=2000, a_class=i + 1.0, mri=1.5, p=0.02) for i in range(10)]
    cells[0]["p"] = 1e-6
    table = pd.DataFrame(cells)
    text = Map().paragraph(table.assign(p_holm=holm(list(table["p"]))))
    assert "1 of 10 cells gain robustness (p < 0.05 after Holm over 10)" in text


def scale(*seen: int) -> str:
    found = [row(curve="all", model=f"m{i}", pretrained_on=images, mri=-float(i)) for i, images in enumerate(seen)]
    return Scale().paragraph(pd.DataFrame(found))


def test_four_models_are_printed_and_have_no_trend():
    text = scale(1000, 2000, 3000, 4000)
    assert "m3 (4k) -3.00 [-4.00, -2.00]; 4 scales are too few for a rank correlation." in text
    assert "rank correlation of scale" not in text
    assert "rank" not in scale(1000)


def test_models_pretrained_on_equally_many_images_are_one_step_of_a_scale():
    assert "5 scales are too few" in scale(1, 1, 2, 2, 3, 3, 4, 5)
    assert "(n = 6)" in scale(1, 1, 2, 2, 3, 3, 4, 5, 6)


def shifts(models: int, sources: int, seed: int = 0) -> pd.DataFrame:
    """CKA and RI that are nothing but their source's, each drawn without the other, alike in all models."""
    rng = np.random.default_rng(seed)
    cka, ri = rng.uniform(0.5, 1, sources), rng.normal(-5, 3, sources)
    facts = {"layer": "block", "kind": "mini", "images": 10, "note": "", "seed": 0, "num_sources": sources}
    noise = rng.normal(0, 1e-3, (2, models, sources))
    return pd.DataFrame(
        [
            row(curve=f"m{m}", source=SOURCES[s], cka=cka[s] + noise[0, m, s], ri=ri[s] + noise[1, m, s], **facts)
            for m in range(models)
            for s in range(sources)
        ]
    )


def test_the_study_of_cka_takes_sources_and_not_models_on_sources_as_independent():
    """With nothing related, pairs taken as independent exclude 0 in two of five tables, p < 0.05 in one of 20."""
    cases = 40
    texts = [Shift().paragraph(shifts(4, 7, seed)).splitlines()[-1] for seed in range(cases)]
    assert all("mean over 4" in text and "(n = 7)" in text for text in texts)
    ends = [text.split("[")[1].split("]")[0].split(", ") for text in texts]
    excluded = sum(float(low) > 0 or float(high) < 0 for low, high in ends)
    significant = sum(float(text.split(", p ")[1].split(";")[0]) < 0.05 for text in texts)
    assert excluded <= 6  # of 40 at 5 %: more comes up once in 200
    assert significant <= 6


def test_on_fewer_than_six_sources_points_are_printed_and_no_interval_over_them():
    table = shifts(2, 5)
    text = Shift().paragraph(table)
    assert "rank correlation of RI" not in text
    assert "too few sources, or their values are too similar, for a mean rank correlation" in text
    first = table.iloc[0]
    assert f"CKA and RI on mini V2 {first['cka']:.3f}, {first['ri']:+.2f}" in text
    mean = table[table["curve"] == "m0"]["cka"].mean()
    assert f"m0: CKA {mean:.3f}, mRI" in text
    assert "rank correlation" not in str(Shift().figures(table)["shift"].axes[0].get_title(loc="left"))
