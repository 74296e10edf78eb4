"""Series in grey print and for colour-blind readers: neighbours differ in colour, or else in marker or line style.

Colour blindness is simulated by the matrices of severity 1.0 in Machado, Oliveira & Fernandes 2009, "A
Physiologically-based Model for Simulation of Color Vision Deficiency", on linear RGB.
"""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from rib.config.schema import FiguresConfig
from rib.reporting.report import _draw_comparison
from rib.reporting.run_figures import loss_figure
from rib.reporting.style import GAIN, LINES, LOSS, SERIES, style
from tests.support.drawings import metrics

SEEN = {
    "full": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
    "grey": np.tile([0.2126, 0.7152, 0.0722], (3, 1)),
}
"""What becomes of linear red, green and blue."""


def linear(colour: str) -> np.ndarray:
    rgb = np.array(to_rgb(colour))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(colour: str, sight: str) -> np.ndarray:
    """CIELAB coordinates of a colour as somebody sees it."""
    rgb = np.clip(np.array(SEEN[sight]) @ linear(colour), 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ rgb / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def difference(one: str, other: str, sight: str) -> float:
    return float(np.linalg.norm(lab(one, sight) - lab(other, sight)))


@pytest.mark.parametrize("sight", ["full", "protanopia", "deuteranopia", "tritanopia"])
def test_all_colours_differ_for_every_reader(sight):
    for one, other in combinations(SERIES, 2):
        assert difference(one, other, sight) > 9, (one, other)


@pytest.mark.parametrize("sight", SEEN)
def test_neighbouring_series_differ_in_colour_or_in_marker(sight):
    looks = [style(number) for number in range(49)]
    assert len({tuple(look.values()) for look in looks}) == 49
    for one, other in pairwise(looks):
        differs = difference(one["color"], other["color"], sight) > 15
        assert differs or one["marker"] != other["marker"]
    for one, other in combinations(looks[:7], 2):  # with one colour each, no two share a marker either: grey is enough
        assert one["marker"] != other["marker"]


@pytest.mark.parametrize("sight", ["full", "protanopia", "deuteranopia", "tritanopia"])
def test_gain_and_loss_differ_for_every_reader(sight):
    """In grey they need not: their sign says it, by the side of zero or by the filled marker's side of the open one."""
    assert difference(GAIN, LOSS, sight) > 40


def test_lines_without_markers_differ_in_their_style(tmp_path):
    log = tmp_path / "metrics.csv"
    log.write_text("step,loss,penalty/a,penalty/b,penalty/c\n1,1,2,3,4\n2,1,2,3,4\n")
    lines = loss_figure([log], metrics()).axes[0].get_lines()
    assert [line.get_linestyle() for line in lines] == list(LINES)


def test_a_comparison_of_more_methods_than_colours_is_left_out_and_said(tmp_path, capsys):
    (tmp_path / "comparison.png").touch()
    runs = [{"method": f"method{i}", "options": {}} for i in range(len(SERIES) + 1)]
    assert not _draw_comparison(runs, tmp_path / "comparison", FiguresConfig(), "")
    assert not (tmp_path / "comparison.png").exists()
    said = "no figure comparison: it can tell 7 methods apart, and there are more; give methods=[..]\n"
    assert capsys.readouterr().err == said
