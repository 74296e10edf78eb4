"""Every note that a method writes has words."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import rib
from rib.reporting.notes import SENTENCES, describe_alpha, describe_notes

FOLDERS = ("methods", "training")


def written_notes() -> set[str]:
    """Return the keys of notes in the source: names with a dot in `report`, and those of BatchNorm."""
    found = set()
    for folder in FOLDERS:
        for file in (Path(rib.__file__).parent / folder).glob("*.py"):
            tree = ast.parse(file.read_text())
            functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
            for node in (f for f in functions if f.name in ("report", "fit", "save_merged")):
                doc = ast.get_docstring(node, clean=False)
                texts = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
                found |= {t for t in texts if t != doc and "." in t and " " not in t and not t.endswith(".json")}
    return found


def test_every_note_of_the_source_begins_like_one_that_has_words():
    notes = written_notes()
    assert {"ewc.lambda", "soup.ingredients", "surgical.rate.", "wise_ft.chosen_alpha", "batch_norm.layers"} <= notes
    assert [note for note in sorted(notes) if not note.startswith(tuple(SENTENCES))] == []


@pytest.mark.parametrize(
    ("notes", "sentences"),
    [
        (
            {"ewc.capped_share": 0.002, "ewc.fisher_error": 0.07, "ewc.fisher_mean": 0.0052, "ewc.lambda": 191.5},
            [
                "0.2 % of EWC's penalty weights were capped for stability",
                "EWC's penalty strength lambda was 191.5: method.ewc.strength=0.9958 divided by the mean Fisher 0.0052 "
                "(relative sampling error 7 %)",
            ],
        ),
        (
            {"ewc.capped_share": 0.0, "ewc.fisher_mean": 0.0052},
            ["None of EWC's penalty weights was capped for stability", "EWC's Fisher information: mean Fisher 0.0052"],
        ),
        ({"ewc.capped_share": 0.5}, ["50 % of EWC's penalty weights were capped for stability"]),
        (
            {"ftp.smallest_radius": 1e-8, "ftp.largest_radius": 0.25},
            [
                "FTP let each row of a weight move from its pretrained value by at most 1e-08 to 0.25 in all (sum of "
                "magnitudes; it depends on the tensor)"
            ],
        ),
        (
            {"soup.ingredients": 2, "soup.kept.ewc": 1.0, "soup.kept.finetune seed=1": 1.0},
            ["The soup averages 2 runs: ewc, finetune seed=1"],
        ),
        (
            {"surgical.rate.head": 1.0, "surgical.rate.blocks.0": 0.125},
            ["Surgical fine-tuning's learning rates, relative to the largest: head 1, blocks.0 0.12"],
        ),
        (
            {"surgical.smallest_rate": 0.01, "surgical.median_rate": 0.2},
            ["Surgical fine-tuning's learning rates of tensors, relative to the largest: median 0.2, smallest 0.01"],
        ),
        (
            {"wise_ft.chosen_alpha": 0.4},
            ["WiSE-FT chose alpha 0.4 by accuracy on the images held out of the source"],
        ),
        (
            {"batch_norm.layers": 20, "batch_norm.images": 1280},
            [
                "The model has 20 BatchNorm layers, whose statistics can cost accuracy, too; "
                "batch_norm=frozen keeps them",
                "BatchNorm's statistics were estimated again on 1,280 images of the source",
            ],
        ),
        ({"mine.share": 0.123456, "ewc.capped_share": 1.0}, None),
    ],
)
def test_notes_are_sentences(notes, sentences):
    if sentences is None:  # a user's own method
        sentences = ["100 % of EWC's penalty weights were capped for stability", "mine.share: 0.1235"]
    assert describe_notes(notes) == sentences


def test_an_alpha_that_was_not_chosen_is_told():
    (told,) = describe_alpha("lwf+wise_ft", {}, {})
    assert told.startswith("WiSE-FT used alpha 0.5 (0: the pretrained weights")
    assert "alpha 0.3 " in describe_alpha("wise_ft", {"method.wise_ft.alpha": 0.3}, {})[0]
    assert "alpha 0.25 " in describe_alpha("fisher_merge", {"method.fisher_merge.alpha": 0.25}, {})[0]
    assert describe_alpha("wise_ft", {}, {"wise_ft.chosen_alpha": 0.4}) == []
    assert describe_alpha("ewc", {"method.ewc.strength": 3.0}, {}) == []
