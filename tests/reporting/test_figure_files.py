"""Files of a figure: formats, page size, embedded fonts, caption, the same bytes again, and nothing that is stale."""

from __future__ import annotations

import re
import sys

import pytest
from matplotlib.figure import Figure
from PIL import Image

from rib.config import compose
from rib.config.schema import FiguresConfig
from rib.errors import RibError
from rib.reporting import captions
from rib.reporting.comparison_panels import comparison_figure
from rib.reporting.publish import redraw
from rib.reporting.report_files import remove_stale
from rib.reporting.run_figures import change_figure, draw_run
from rib.reporting.style import remove_others, save
from tests.support.drawings import metrics


@pytest.fixture(scope="module")
def figure():
    return change_figure(metrics(), 3.3)


def names(folder):
    return {file.name for file in folder.iterdir()}


def test_a_pdf_has_the_asked_width_and_all_its_fonts(figure, tmp_path):
    pypdf = pytest.importorskip("pypdf")
    save(figure, tmp_path / "change", FiguresConfig(["pdf"], 3.3))
    (page,) = pypdf.PdfReader(tmp_path / "change.pdf").pages
    assert float(page.mediabox.width) / 72 == pytest.approx(3.3, abs=0.01)
    assert float(page.mediabox.height) / 72 == pytest.approx(figure.get_figheight(), abs=0.01)
    fonts = [font.get_object() for font in page["/Resources"]["/Font"].get_object().values()]
    assert fonts
    for font in fonts:
        inner = font["/DescendantFonts"][0].get_object() if "/DescendantFonts" in font else font
        assert inner["/FontDescriptor"].get_object().get("/FontFile2"), "TrueType, embedded"
    assert "top-1 accuracy" in page.extract_text()


def test_every_format_is_written_with_one_caption(figure, tmp_path):
    written = save(figure, tmp_path / "a.b", FiguresConfig(["svg", "png", "pdf"], 3.3), "python -m rib.train x=1")
    assert [file.name for file in written] == ["a.b.svg", "a.b.png", "a.b.pdf", "a.b.txt"]
    with Image.open(tmp_path / "a.b.png") as image:
        assert image.width == round(3.3 * 160)
    svg = (tmp_path / "a.b.svg").read_text()
    assert re.search(r'<svg [^>]*width="237.6pt"', svg)
    assert "<text" not in svg, "glyphs are shapes, as SVG cannot embed a font"
    text = (tmp_path / "a.b.txt").read_text()
    for part in ("30,000 images of", "95 %", "Made by: python -m rib.train x=1", "figures.width=3.3"):
        assert part in text


def test_a_caption_says_once_how_its_figure_was_made(figure, tmp_path):
    def caption(command):
        save(figure, tmp_path / "a", FiguresConfig(["pdf"], 3.3), command)
        return (tmp_path / "a.txt").read_text()

    assert "Drawn with" not in caption("python -m rib.report figures.width=3.3 figures.format=pdf")
    assert "Drawn with figures.format=[pdf] figures.width=3.3" in caption("python -m rib.report")
    assert "Drawn with figures.format=[pdf] figures.width=3.3" in caption("")


def test_a_caption_names_the_numbers_that_are_drawn():
    assert "At the right: the change in points. " in change_figure(metrics(), 3.3).caption
    assert "At the right: the change in points, with its 95 % interval. " in change_figure(metrics(), 6.8).caption


@pytest.mark.slow
def test_the_same_figure_gives_the_same_bytes(tmp_path):
    files = [
        save(change_figure(metrics()), tmp_path / name, FiguresConfig(["png", "pdf", "svg"])) for name in ("a", "b")
    ]
    for one, other in zip(*files, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_a_shorter_list_of_formats_leaves_no_old_file(figure, tmp_path):
    save(figure, tmp_path / "change", FiguresConfig(["png", "pdf", "svg"]))
    save(figure, tmp_path / "changes", FiguresConfig(["pdf"]))
    save(figure, tmp_path / "change", FiguresConfig(["svg"]))
    assert names(tmp_path) == {"change.svg", "change.txt", "changes.pdf", "changes.txt"}


def test_a_figure_that_is_not_drawn_any_more_is_removed_with_its_caption(figure, tmp_path):
    for name in ("old", "kept"):
        save(figure, tmp_path / name, FiguresConfig(["png", "pdf"]))
    (tmp_path / "notes.txt").write_text("the user's own")
    remove_others(tmp_path, {"kept"})
    assert names(tmp_path) == {"kept.png", "kept.pdf", "kept.txt", "notes.txt"}


def test_a_report_removes_comparisons_of_single_models_that_it_draws_no_more(tmp_path):
    runs = [metrics(model=model) for model in ("mini_tiny", "vit.b_16")]
    parts = {model: comparison_figure(runs, 3.3, runs) for model in ("mini_tiny", "vit.b_16")}
    for model, part in parts.items():
        save(part, tmp_path / f"comparison-{model}", FiguresConfig(["pdf"]))
    (tmp_path / "comparison-notes.txt").write_text("the user's own")
    (tmp_path / "comparison-mine.pdf").write_text("the user's own")
    remove_stale(tmp_path, [tmp_path / "comparison-mini_tiny.pdf"])
    own = {"comparison-notes.txt", "comparison-mine.pdf"}
    assert names(tmp_path) == {"comparison-mini_tiny.pdf", "comparison-mini_tiny.txt"} | own


def test_a_user_s_own_figure_is_resized(tmp_path):
    own = Figure(figsize=(6, 4))
    own.add_subplot().plot([1, 2])
    save(own, tmp_path / "own", FiguresConfig(["png"], 3.0))
    with Image.open(tmp_path / "own.png") as image:
        assert image.size == (480, 320)


def test_a_run_without_a_curve_loses_the_figure_of_one(tmp_path):
    m = metrics("wise_ft")
    draw_run(m, tmp_path, FiguresConfig(["png"]))
    assert names(tmp_path / "figures") == {"change.png", "change.txt", "curve.png", "curve.txt"}
    del m["curve"]
    draw_run(m, tmp_path, FiguresConfig(["png"]))
    assert names(tmp_path / "figures") == {"change.png", "change.txt"}


@pytest.mark.parametrize(
    ("override", "formats"),
    [
        ("figures.format=pdf", ["pdf"]),
        ("figures.format=[svg,pdf,svg]", ["svg", "pdf"]),
        ("figures.width=3.3", ["png", "pdf"]),
        ("logger=tensorboard", ["png", "pdf"]),
    ],
)
def test_one_format_is_as_good_as_a_list(override, formats):
    assert compose(override).figures.format == formats


def test_a_dashboard_gets_its_png():
    assert compose("figures.format=svg", "logger=tensorboard").figures.format == ["svg", "png"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("figures.format=jpg", r"figures\.format: expected one of png, pdf, svg, or a list .*, got 'jpg'"),
        ("figures.format=[pfd]", r"got 'pfd'; did you mean pdf\?"),
        ("figures.format=[]", r"figures\.format: expected one of .*, got an empty list"),
        ("figures.width=1", r"figures\.width: expected inches from 2\.5 to 20, .*; got 1"),
        ("figures.width=8.5cm", r"figures\.width: "),
        ("figures.title=maybe", r"figures\.title: "),
    ],
)
def test_a_wrong_option_is_one_sentence(override, message):
    with pytest.raises(RibError, match=message):
        compose(override)


def test_the_command_in_a_caption_has_no_secret(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/x/rib/report.py", "paths.runs=my runs", "logger.api_key=123"])
    assert captions.running_command("else") == "python -m rib.report 'paths.runs=my runs' logger.api_key=REMOVED"
    monkeypatch.setattr(sys, "argv", ["/x/bin/rib-report", "out=a"])
    assert captions.running_command("else") == "rib-report out=a"
    monkeypatch.setattr(sys, "argv", ["/x/rib/__main__.py", "report", "out=a"])
    assert captions.running_command("else") == "python -m rib report out=a"
    monkeypatch.setattr(sys, "argv", ["/x/ipykernel_launcher.py"])
    assert captions.running_command("else") == "else"


@pytest.mark.slow
def test_a_finished_run_is_drawn_again_only_if_something_else_is_asked_for(tmp_path):
    m = metrics("wise_ft")
    del m["curve"]
    file = tmp_path / "figures" / "change.png"

    def drawn(m=m, **options):
        before = file.stat().st_mtime_ns if file.is_file() else 0
        redraw(m, tmp_path, FiguresConfig(**{"format": ["png"], **options}))
        return file.stat().st_mtime_ns != before

    assert drawn()
    assert not drawn()
    assert drawn(width=3.3)
    assert not drawn(width=3.3)
    assert drawn(title=False, width=3.3)
    assert not drawn(title=False, width=3.3)
    assert drawn(format=["png", "svg"])
    assert drawn()
    assert names(tmp_path / "figures") == {"change.png", "change.txt"}
    file.unlink()
    assert drawn()
    assert drawn({**m, "suite": "paper"}), "another suite has other datasets"
