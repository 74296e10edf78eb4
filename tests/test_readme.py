"""What the README points at is there, and what the studies say stands in it as they said it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.studies import BEGIN, END, FIGURES, STUDIES
from rib.config.shipped import conf_dir, options

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    text = page.read_text()
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    headings = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.+)$", text, re.M)}
    for link in links:
        if link.startswith("#"):
            assert link[1:] in headings, link
        elif not link.startswith("http"):
            assert (page.parent / link).exists(), link


def test_the_studies_of_the_paper_stand_in_it_with_all_their_figures():
    text = (ROOT / "README.md").read_text().split(BEGIN)[1].split(END)[0]
    sections = text.split("\n### ")[1:]
    assert [section.splitlines()[0] for section in sections] == [spec for spec, _ in STUDIES.values()]
    assert set(STUDIES) < set(options("study"))
    for study, section in zip(STUDIES, sections, strict=True):
        assert f"`python -m rib.benchmark study={study}`" in section
        assert re.search(r"\d seeds?", section), "n is said"
    shown = set(re.findall(r'src="docs/studies/([^"]+)"', text))
    assert shown == {file.name for file in FIGURES.glob("*.png")}


@pytest.mark.parametrize("study", options("study"))
def test_a_studys_header_tells_command_cost_and_what_it_asks(study):
    header = Path(conf_dir(), "study", f"{study}.yaml").read_text().split("\nstudy:")[0]
    assert f"python -m rib.benchmark study={study}" in header
    assert re.search(r"Cost on the built-in data: \d+ cells, .*minute", header)
    assert "?" in header
