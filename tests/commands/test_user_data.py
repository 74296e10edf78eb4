"""Checks of a user's data root before training: what is refused, left out, and recorded in the result."""

from __future__ import annotations

import shutil

import pytest

from rib.data.catalog import Catalog, real
from rib.errors import RibError
from rib.pipeline import get_or_make
from rib.runs.images import check_images
from rib.runs.resolve import resolve
from rib.runs.store import RunStore
from tests.data.trees import few, fill, photograph

pytestmark = pytest.mark.usefixtures("no_progress")

SUITE = ("suite.targets=[imagenet_a,imagenet_r,objectnet]", "suite.reported=[]")
ALLOW = "data.allow_incomplete=true"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Three classes of two images each, of four datasets that are complete with them."""
    specs = [few(name) for name in ("imagenet_a", "imagenet_r", "objectnet", "imagenet_train")]
    monkeypatch.setattr(
        "rib.data.catalog.real", lambda: Catalog("user", real().outputs, {dataset.name: dataset for dataset in specs})
    )
    for dataset in specs:
        fill(tmp_path / "data" / dataset.folders[0], dataset.classes)
    return tmp_path / "data"


@pytest.fixture
def spec(ask_for, root):
    return lambda *overrides: resolve(ask_for("model=mini_tiny", *SUITE, f"data.root={root}", *overrides))


def test_a_complete_root_has_nothing_to_stamp(spec):
    assert "incomplete" not in spec(ALLOW).protocol["switches"]


@pytest.mark.parametrize("name", ["imagenet_a", "objectnet", "imagenet_train"])
def test_the_source_and_every_target_are_checked(spec, root, name):
    dataset = few(name)
    shutil.rmtree(root / dataset.folders[0] / dataset.classes[1])
    with pytest.raises(RibError, match=f"^{dataset.title}: expected 3 classes with images in .*, found 2 "):
        spec("dataset=imagenet_train")


@pytest.mark.parametrize("limit", ["null", "1"])
def test_what_is_gone_on_without_is_named_and_stamped(spec, root, capsys, limit):
    for name in ("objectnet", "imagenet_train"):
        dataset = few(name)
        shutil.rmtree(root / dataset.folders[0] / dataset.classes[1])
    shutil.rmtree(root / "imagenet-a")
    asked = spec("dataset=imagenet_train", ALLOW, f"data.limit={limit}")
    assert list(asked.scored) == ["imagenet_r", "objectnet"]
    assert capsys.readouterr().err.startswith("dataset left out of scoring: ImageNet-A: expected the folder")
    assert asked.protocol["switches"]["incomplete"] == {
        "imagenet_train": {"images": 4, "expected": 6, "classes": 2, "expected_classes": 3},
        "objectnet": {"images": 4, "expected": None, "classes": 2, "expected_classes": 3},
        "imagenet_a": {"images": 0, "expected": 6, "classes": 0, "expected_classes": 3},
    }
    assert "imagenet_train" not in asked.of_pretrained().protocol["switches"]["incomplete"]


@pytest.mark.parametrize("said", ["null", "yes"])
def test_objectnet_is_no_source_without_its_authors_permission(spec, said):
    with pytest.raises(RibError) as error:
        spec("dataset=objectnet", f"data.objectnet_training={said}")
    assert "ObjectNet may never be used to tune the parameters of any model." in str(error.value)
    assert "data.objectnet_training=i_have_permission" in str(error.value)


def test_permission_to_train_on_objectnet_is_stamped_where_it_is_used(spec):
    given = "data.objectnet_training=i_have_permission"
    assert spec("dataset=objectnet", given).protocol["switches"] == {"objectnet_training": "i_have_permission"}
    assert spec("dataset=imagenet_r", given).protocol["switches"] == {}


@pytest.fixture
def damaged(root):
    """An image of the source that stops in the middle as if it were at its end; all others are whole."""
    for number, file in enumerate(sorted(root.rglob("*.JPEG"))):
        photograph(file, number)
    file = next((root / "imagenet/train").rglob("*.JPEG"))
    content = file.read_bytes()
    file.write_bytes(content[:-200] + content[-2:])
    return file


def test_a_damaged_image_of_the_source_is_named_before_anything_trains(spec, damaged, capsys):
    check_images(spec("dataset=imagenet_train"))
    assert f"1 damaged image: {damaged} (premature end of data segment)" in capsys.readouterr().err


@pytest.mark.slow
def test_a_damaged_image_is_refused_before_anything_is_made(spec, damaged, tmp_path):
    asked = spec("dataset=imagenet_train", "data.damaged=refuse")
    with pytest.raises(RibError, match=rf"^data\.damaged=refuse: 1 damaged image: {damaged} "):
        get_or_make(asked, RunStore(tmp_path / "store"))
    assert not list((tmp_path / "store").rglob("*"))


def test_damage_in_what_takes_no_part_is_let_be(spec, damaged):
    check_images(spec("dataset=imagenet_r", "data.damaged=refuse"))
