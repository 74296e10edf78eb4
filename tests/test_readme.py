"""Links of the README and the documentation lead somewhere; the studies stand there as their script wrote them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.studies import BEGIN, DOCS, END, FIGURES
from benchmarks.studies import PAGES as STUDY_PAGES
from rib.config.shipped import conf_dir, options
from tests.support.pages import PAGES


def anchors(page):
    """Return the anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for link in links:
        file, _, anchor = link.partition("#")
        if link.startswith("http") or "_generated" in link:  # make docs checks what it generates
            continue
        target = page.parent / file if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("name", STUDY_PAGES)
def test_the_studies_stand_on_their_page_with_all_their_figures(name):
    studies = STUDY_PAGES[name]
    text = (DOCS / name).read_text().split(BEGIN)[1].split(END)[0]
    sections = text.split("\n## ")[1:]
    assert [section.splitlines()[0] for section in sections] == [question for question, _ in studies.values()]
    assert set(studies) < set(options("study"))
    for study, section in zip(studies, sections, strict=True):
        assert f"`python -m rib.benchmark study={study}`" in section
        assert re.search(r"\d seeds?", section), "n is said"
    shown = set(re.findall(r'src="studies/([^"]+)"', text))
    assert shown == {file.name for study in studies for file in FIGURES.glob(f"{study}_*.png")}
    assert shown


@pytest.mark.parametrize("study", options("study"))
def test_a_studys_header_tells_command_cost_and_what_it_asks(study):
    header = Path(conf_dir(), "study", f"{study}.yaml").read_text().split("\nstudy:")[0]
    assert f"python -m rib.benchmark study={study}" in header
    assert re.search(r"Cost on the built-in data: \d+ cells, .*minute", header)
    assert "?" in header
