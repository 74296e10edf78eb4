"""ObjectNet's accuracy through scan and projection, against a short script that reads the mapping itself."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import ImageOps

from rib.data.catalog import real, resource, with_label_rule
from rib.data.labels import LabelSpace
from rib.data.scan import scan
from tests.data.trees import fill, picture

FACTS = json.loads(resource("objectnet.json"))
OTHERS = ["air_freshener", "baking_sheet", "keychain", "trophy", "zzz"]


def framed(file, number):
    ImageOps.expand(picture(number, 8, 10), 2, (255, 0, 0)).save(file)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("objectnet")
    folder = root / "objectnet-1.0/images"
    fill(folder, [*list(FACTS)[:40], *OTHERS], each=2, ending=".png", write=framed)
    fill(folder, list(FACTS)[40:], each=1, ending=".png", write=framed)
    return root


def ids_of(folder, rule):
    entry = FACTS[folder]
    return {"max": entry["ids"], "first": entry["ids"][:1], "authors": [entry["authors"]]}[rule]


def accuracy_by_hand(paths, logits, rule):
    classes = sorted({tuple(ids_of(folder, rule)) for folder in FACTS})
    right = 0
    for path, row in zip(paths, logits.numpy(), strict=True):
        scores = [max(row[i] for i in ids) for ids in classes]
        right += classes[int(np.argmax(scores))] == tuple(ids_of(path.split("/")[0], rule))
    return right / len(paths)


@pytest.mark.parametrize("rule", ["max", "first", "authors"])
def test_accuracy_is_that_of_an_independent_script(root, rule):
    spec = replace(with_label_rule(real()["objectnet"], rule), between=None)
    tree = scan(spec, root)
    folders = [path.split("/")[0] for path in tree.paths]
    assert set(folders) == set(FACTS)
    assert len(tree) == 113 + 40
    assert [list(spec.groups[label]) for label in tree.labels] == [ids_of(folder, rule) for folder in folders]

    logits = torch.randn(len(tree), 1000, generator=torch.Generator().manual_seed(0))
    for row, folder in list(zip(logits, folders, strict=True))[::2]:
        row[ids_of(folder, rule)[-1]] += 6  # else nearly all are wrong
    projected = LabelSpace(spec.groups).project(logits)
    accuracy = (projected.argmax(1).numpy() == tree.labels).mean()
    assert accuracy == accuracy_by_hand(tree.paths, logits, rule)
    assert 0.4 < accuracy < 0.6

    place = {name: i for i, name in enumerate(sorted([*FACTS, *OTHERS]))}
    naive = np.array([place[folder] for folder in folders])
    assert (projected.argmax(1).numpy() == naive).mean() < 0.2
