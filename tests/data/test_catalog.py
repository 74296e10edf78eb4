"""The catalog against timm's lists, the sizes of the releases, and the authors' own labels."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from rib.data import mini
from rib.data.catalog import nearest_dataset, real, with_label_rule
from rib.errors import RibError

INFO = Path(find_spec("timm").origin).parent / "data" / "_info"
FACTS = Path(__file__).resolve().parents[3] / "shared" / "facts" / "objectnet_mapping.json"

FULL = 1000
CLASSES = {
    "imagenet_val": FULL,
    "imagenet_v2": FULL,
    "imagenet_a": 200,
    "imagenet_r": 200,
    "imagenet_sketch": FULL,
    "objectnet": 113,
    "imagenet_cartoon": FULL,
    "imagenet_drawing": FULL,
    "imagenet_c": FULL,
    "imagenet_train": FULL,
}
AUTHORS_ERRORS = {
    "chair": 508,  # computer keyboard
    "jeans": 850,  # teddy bear
    "trash_bin": 531,  # digital watch
    "skirt": 588,  # hamper
    "swimming_trunks": 909,  # wok
    "weight_scale": 732,  # Polaroid camera
    "binder_closed": 463,  # bucket
    "iron_for_clothes": 882,  # vacuum cleaner
}


@pytest.mark.parametrize("catalog", [real(), mini.catalog()], ids=["real", "mini"])
def test_both_worlds_hold_the_same_ten_names_in_the_same_order(catalog):
    assert list(catalog.specs) == list(CLASSES)
    assert all(spec.name == name for name, spec in catalog.specs.items())


@pytest.mark.parametrize("name", CLASSES)
def test_each_dataset_has_as_many_classes_as_its_release(name):
    spec = real()[name]
    assert len(spec.groups) == len(spec.classes) == len(set(spec.classes)) == CLASSES[name]


def test_outputs_are_the_sorted_wordnet_ids_that_timm_lists():
    assert list(real().outputs) == (INFO / "imagenet_synsets.txt").read_text().split()
    assert list(real().outputs) == sorted(real().outputs)


@pytest.mark.parametrize("name", ["imagenet_a", "imagenet_r"])
def test_the_200_ids_are_those_that_timm_lists(name):
    spec = real()[name]
    listed = [int(i) for i in (INFO / f"{name}_indices.txt").read_text().split()]
    assert [ids for (ids,) in spec.groups] == listed
    assert list(spec.classes) == [real().outputs[i] for i in listed]


def test_a_and_r_are_different_subsets():
    a, r = (set(real()[name].classes) for name in ("imagenet_a", "imagenet_r"))
    assert a != r
    assert len(a | r) == 314


def test_objectnet_has_113_folders_on_125_outputs_and_nine_own_several():
    spec = real()["objectnet"]
    assert len({i for group in spec.groups for i in group}) == sum(map(len, spec.groups)) == 125
    several = [name for name, group in zip(spec.classes, spec.groups, strict=True) if len(group) > 1]
    assert several == ["alarm_clock", "bicycle", "chair", "helmet", "pen", "skirt", "still_camera", "tie", "wheel"]


def test_objectnet_is_as_the_mapping_of_its_release_says():
    if not FACTS.is_file():
        pytest.skip(f"no {FACTS}")
    facts = json.loads(FACTS.read_text())["folders"]
    spec = real()["objectnet"]
    theirs = with_label_rule(spec, "authors")
    assert dict(zip(spec.classes, spec.groups, strict=True)) == {n: tuple(e["imagenet_ids"]) for n, e in facts.items()}
    assert {n: theirs.groups[j] for n, j in zip(theirs.classes, theirs.labels, strict=True)} == {
        n: (e["rib_official_code_id"],) for n, e in facts.items()
    }


def test_first_keeps_one_output_of_each_of_the_113_classes():
    spec, first = real()["objectnet"], with_label_rule(real()["objectnet"], "first")
    assert first.groups == tuple(group[:1] for group in spec.groups)
    assert len({i for (i,) in first.groups}) == 113


def test_authors_has_105_outputs_and_exactly_their_eight_wrong_folders():
    spec, theirs = real()["objectnet"], with_label_rule(real()["objectnet"], "authors")
    assert len(theirs.groups) == 105
    assert theirs.groups == tuple(sorted(theirs.groups))
    assert set(theirs.labels) == set(range(105))
    read_as = {name: theirs.groups[label][0] for name, label in zip(theirs.classes, theirs.labels, strict=True)}
    right = dict(zip(spec.classes, spec.groups, strict=True))
    assert {name: output for name, output in read_as.items() if output not in right[name]} == AUTHORS_ERRORS


def test_max_and_other_datasets_are_left_as_they_are():
    assert with_label_rule(real()["objectnet"], "max") is real()["objectnet"]
    assert with_label_rule(real()["imagenet_r"], "authors") is real()["imagenet_r"]


def test_an_unknown_label_rule_is_one_sentence():
    with pytest.raises(RibError, match=r"^data\.label_rule: expected max, first or authors, got 'mean'$"):
        with_label_rule(real()["objectnet"], "mean")


@pytest.mark.parametrize("catalog", [real(), mini.catalog()], ids=["real", "mini"])
def test_cartoon_drawing_and_c_alone_are_made_of_val(catalog):
    derived = {name: spec.derived_from for name, spec in catalog.specs.items() if spec.derived_from}
    assert derived == dict.fromkeys(("imagenet_cartoon", "imagenet_drawing", "imagenet_c"), "imagenet_val")


@pytest.mark.parametrize("catalog", [real(), mini.catalog()], ids=["real", "mini"])
def test_every_dataset_states_its_licence(catalog):
    assert all(spec.licence for spec in catalog.specs.values())


def test_objectnet_alone_may_train_no_model():
    assert [name for name, spec in real().specs.items() if not spec.may_train] == ["objectnet"]
    assert "CC BY" in real()["objectnet"].licence
    assert real()["objectnet"].border == 2


def test_sizes_of_the_releases():
    sizes = {name: spec.num_images for name, spec in real().specs.items()}
    assert sizes["imagenet_a"] == 7_500
    assert sizes["imagenet_r"] == 30_000
    assert sizes["imagenet_sketch"] == 50_889
    assert sizes["imagenet_v2"] == 10_000
    assert sizes["imagenet_c"] == 3_750_000
    assert {sizes[n] for n in ("imagenet_val", "imagenet_cartoon", "imagenet_drawing")} == {50_000}
    assert len(real()["imagenet_c"].cells) == 75


def test_mini_has_the_same_differences_on_a_small_scale():
    world = mini.catalog()
    assert world.outputs == real().outputs
    a, r, objectnet = (world[name] for name in ("imagenet_a", "imagenet_r", "objectnet"))
    outputs = [{i for group in spec.groups for i in group} for spec in (a, r, objectnet)]
    assert all(one != other and one & other for one in outputs for other in outputs if one is not other)
    assert max(map(len, objectnet.groups)) > 1
    for name, spec in world.specs.items():
        true = dict(zip(real()[name].classes, real()[name].groups, strict=True))
        assert all(set(g) <= set(true[c]) for c, g in zip(spec.classes, spec.groups, strict=True)), name


def test_authors_rule_also_reads_mini_as_their_code_would():
    theirs = with_label_rule(mini.catalog()["objectnet"], "authors")
    assert theirs.groups[theirs.labels[theirs.classes.index("chair")]] == (508,)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *(("val", "imagenet_val"), ("V2", "imagenet_v2"), ("ImageNet-V2", "imagenet_v2"), ("IN-R", "imagenet_r")),
        *(("mini R", "imagenet_r"), ("object_net", "objectnet"), ("imagenet_sketsh", "imagenet_sketch"), ("xyz", None)),
    ],
)
def test_a_short_name_of_a_dataset_is_understood_in_the_message(name, meant):
    assert nearest_dataset(name, CLASSES) == (f"; did you mean {meant}?" if meant else "")
    with pytest.raises(RibError, match=f"there is no dataset {name}"):
        real()[name]
