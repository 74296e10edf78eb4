"""Repacked, renamed, padded and incomplete copies of the releases."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from rib.data.catalog import real
from rib.data.scan import scan
from rib.errors import RibError
from tests.data.trees import few, fill

FOLDERS = {"alarm_clock": "Alarm clock", "bench": "Bench", "chair": "Chair"}


def labels_by_folder(tree) -> dict[str, int]:
    return {path.split("/")[-2]: int(label) for path, label in zip(tree.paths, tree.labels, strict=True)}


def test_v2s_numbers_may_be_padded(tmp_path):
    spec = few("imagenet_v2", 12)
    fill(tmp_path / spec.folders[0], [f"{i:04}" for i in range(12)])
    assert labels_by_folder(scan(spec, tmp_path)) == {f"{i:04}": i for i in range(12)}


@pytest.mark.parametrize("name", ["imagenet_cartoon", "imagenet_drawing"])
def test_cartoon_and_drawing_as_their_tars_unpack(tmp_path, name):
    spec = few(name)
    fill(tmp_path / "datasets" / name.replace("_", "-"), spec.classes)
    assert len(scan(spec, tmp_path)) == 6


def test_a_count_that_is_wrong_in_one_cell_of_c_names_it(tmp_path):
    spec = few("imagenet_c", cells=("gaussian_noise/1", "fog/5"))
    for cell in spec.cells:
        fill(tmp_path / "imagenet-c" / cell, spec.classes)
    next((tmp_path / "imagenet-c/fog/5").rglob("*.JPEG")).unlink()
    with pytest.raises(RibError, match="expected 6 images in fog/5, found 5"):
        scan(spec, tmp_path)


def objectnet(root, folders, mapping: str):
    """ObjectNet's ``FOLDERS`` as the classes, these folders on disk, and this mapping file."""
    spec = real()["objectnet"]
    kept = [spec.classes.index(name) for name in FOLDERS]
    fill(root / "objectnet-1.0/images", folders, each=1, ending=".png")
    (root / "objectnet-1.0/mappings").mkdir()
    (root / "objectnet-1.0/mappings/folder_to_objectnet_label.json").write_text(mapping)
    return replace(spec, between=None, classes=tuple(FOLDERS), groups=tuple(spec.groups[i] for i in kept))


def test_objectnets_mapping_file_knows_a_renamed_folder(tmp_path):
    mapping = json.dumps(FOLDERS | {"seat": "Chair", "air_freshener": "Air freshener"})
    spec = objectnet(tmp_path, ["alarm_clock", "bench", "seat", "air_freshener"], mapping)
    assert labels_by_folder(scan(spec, tmp_path)) == {"alarm_clock": 0, "bench": 1, "seat": 2}


def test_a_folder_that_objectnets_mapping_file_does_not_list_is_named(tmp_path):
    spec = objectnet(tmp_path, [*FOLDERS, "new_folder"], json.dumps(FOLDERS))
    with pytest.raises(RibError, match=r"images/new_folder is not one of its classes \(1 such folders\); move it away"):
        scan(spec, tmp_path)
    assert len(scan(spec, tmp_path, allow_incomplete=True)) == 3


def test_an_objectnet_mapping_file_cut_short_is_named(tmp_path):
    spec = objectnet(tmp_path, FOLDERS, '{"bench": ')
    with pytest.raises(RibError, match=r"folder_to_objectnet_label\.json is not a valid JSON file"):
        scan(spec, tmp_path)
