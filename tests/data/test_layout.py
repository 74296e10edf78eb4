"""Datasets with the same class folders as another, and uncertain labels: always refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from rib.data.catalog import FIRST_OF_VAL, real
from rib.data.scan import scan
from rib.errors import RibError
from tests.data.trees import few, fill

V2 = "imagenet-v2"


def refused(spec, root) -> str:
    """Return the message, one sentence, the same with and without ``allow_incomplete``."""
    said = set()
    for allow in (False, True):
        with pytest.raises(RibError) as caught:
            scan(spec, root, allow_incomplete=allow)
        said.add(str(caught.value))
    (message,) = said
    assert message.startswith(f"{spec.title}: ")
    assert "\n" not in message
    return message


# Which set it is


@pytest.mark.parametrize("variant", ["imagenetv2-top-images-format-val", "imagenetv2-threshold0.7-format-val"])
def test_v2s_other_two_sets_are_never_advised_to_be_moved_up(tmp_path, variant):
    spec = few("imagenet_v2")
    fill(tmp_path / V2 / variant, map(str, range(3)))
    message = refused(spec, tmp_path)
    assert f"found only those of another set of images in {tmp_path / V2 / variant}" in message
    assert "move them up" not in message


@pytest.mark.parametrize("variant", ["imagenetv2-top-images-format-val", "ImageNetV2-threshold0.7", "topimages"])
def test_a_link_to_v2s_other_sets_is_no_v2(tmp_path, variant):
    spec = few("imagenet_v2")
    fill(tmp_path / "kept" / variant, map(str, range(3)))
    (tmp_path / V2).symlink_to(tmp_path / "kept" / variant)
    assert "ImageNet-V2's t" in refused(spec, tmp_path)
    assert "another set of images" in refused(spec, tmp_path)


def test_v2_beside_its_other_sets_is_found(tmp_path):
    spec = few("imagenet_v2")
    for name in ("imagenetv2-matched-frequency-format-val", "imagenetv2-top-images-format-val"):
        fill(tmp_path / V2 / name, map(str, range(3)))
    assert scan(spec, tmp_path).folder == tmp_path / spec.folders[0]


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("imagenet_cartoon", "imagenet-drawing"),
        ("imagenet_drawing", "imagenet/val"),
        ("imagenet_val", "imagenet/train"),
        ("imagenet_sketch", "stylized-imagenet"),
        ("imagenet_val", "datasets/imagenet-cartoon"),
    ],
)
def test_a_link_to_another_set_of_the_same_classes_and_number_is_refused(tmp_path, name, target):
    spec = few(name)
    fill(tmp_path / "kept" / target, spec.classes)
    place = tmp_path / "data" / spec.folders[0]
    place.parent.mkdir(parents=True)
    place.symlink_to(tmp_path / "kept" / target)
    assert "another set of images; put those of" in refused(spec, tmp_path / "data")


def test_a_link_to_the_same_set_under_another_root_is_followed(tmp_path):
    spec = few("imagenet_cartoon")
    fill(tmp_path / "kept/datasets/imagenet-cartoon", spec.classes)
    (tmp_path / "imagenet-cartoon").symlink_to(tmp_path / "kept/datasets/imagenet-cartoon")
    assert len(scan(spec, tmp_path)) == 6


def test_val_is_moved_up_and_never_train(tmp_path):
    spec = few("imagenet_val")
    for part in ("train", "val"):
        fill(tmp_path / "imagenet/val" / part, spec.classes)
    assert refused(spec, tmp_path).endswith(f"found them in {tmp_path / 'imagenet/val/val'}; move them up")


def test_another_set_within_a_folder_is_not_moved_up(tmp_path):
    shared = sorted(set(real()["imagenet_a"].classes) & set(real()["imagenet_r"].classes))
    fill(tmp_path / "imagenet-r/imagenet-a", shared, each=1)
    assert "move them up" not in refused(real()["imagenet_r"], tmp_path)


@pytest.mark.parametrize(("name", "other"), [("imagenet_r", "imagenet_a"), ("imagenet_a", "imagenet_val")])
def test_two_hundred_classes_are_not_picked_out_of_another_sets(tmp_path, name, other):
    spec = real()[name]
    fill(tmp_path / spec.folders[0], real()[other].classes, each=1)
    message = refused(spec, tmp_path)
    assert "is a class of ImageNet but none of its 200" in message


def test_more_images_than_the_release_has_are_not_incomplete(tmp_path):
    """Train in the place of val."""
    spec = few("imagenet_val")
    fill(tmp_path / "imagenet/val", spec.classes, each=9)
    assert "expected 6 images" in refused(spec, tmp_path)
    assert "found 27: more than the release has" in refused(spec, tmp_path)


def test_classes_of_different_sizes_are_not_a_complete_val(tmp_path):
    spec = few("imagenet_val")
    folder = fill(tmp_path / "imagenet/val", spec.classes)
    moved = next((folder / spec.classes[0]).iterdir())
    moved.rename(folder / spec.classes[1] / "moved.JPEG")
    with pytest.raises(RibError, match=r"expected equally many images of each class in .*, found 1 to 3"):
        scan(spec, tmp_path)
    assert scan(spec, tmp_path, allow_incomplete=True).incomplete is not None


# ObjectNet's number


def objectnet(root, count: int):
    """So many images, of a set that is complete with 180 to 200 of them."""
    spec = replace(real()["objectnet"], between=(180, 200))
    fill(root / "objectnet-1.0/images", spec.classes, each=1, ending=".png")
    for number in range(count - len(spec.classes)):
        (root / "objectnet-1.0/images" / spec.classes[0] / f"{number}.png").touch()
    return spec


def test_an_objectnet_of_an_image_a_class_is_incomplete_and_says_so(tmp_path):
    spec = real()["objectnet"]
    fill(tmp_path / "objectnet-1.0/images", spec.classes, each=1, ending=".png")
    with pytest.raises(RibError, match=r"expected 18,000 to 20,000 images in .*, found 113; unpack its archive again"):
        scan(spec, tmp_path)
    tree = scan(spec, tmp_path, allow_incomplete=True)
    assert tree.incomplete == {"images": 113, "expected": 18_000, "classes": 113, "expected_classes": 113}


@pytest.mark.parametrize("count", [180, 185])
def test_the_number_of_a_complete_objectnet_is_kept_also_of_a_part(tmp_path, count):
    tree = scan(objectnet(tmp_path, count), tmp_path)
    assert tree.incomplete is None
    assert (tree.found, tree.limit(50).found, tree.holdout(0.1, 0)[0].found) == (count,) * 3


def test_an_objectnet_with_copies_of_its_images_is_refused(tmp_path):
    assert "found 201: more than the release has" in refused(objectnet(tmp_path, 201), tmp_path)


def test_where_the_catalog_knows_the_number_none_is_kept(tmp_path):
    spec = few("imagenet_r")
    fill(tmp_path / "imagenet-r", spec.classes)
    assert scan(spec, tmp_path).found is None


# Labels that are not certain


@pytest.mark.parametrize(
    "numbers", [range(1, 13), range(13), range(1, 9)], ids=["from 1", "0 is the background", "from 1, some missing"]
)
@pytest.mark.parametrize("padded", [False, True])
def test_v2_counted_from_one_is_off_by_one_and_never_labelled(tmp_path, numbers, padded):
    spec = few("imagenet_v2", 12)
    fill(tmp_path / spec.folders[0], [f"{n:04}" if padded else str(n) for n in numbers])
    message = refused(spec, tmp_path)
    assert f"expected folders 0 to 11 in {tmp_path / spec.folders[0]}, found {numbers[0]} to {numbers[-1]}" in message


def test_v2_with_a_class_missing_keeps_the_labels_of_the_others(tmp_path):
    spec = few("imagenet_v2", 12)
    fill(tmp_path / spec.folders[0], [str(n) for n in range(12) if n not in (0, 5)])
    tree = scan(spec, tmp_path, allow_incomplete=True)
    assert all(int(path.split("/")[0]) == label for path, label in zip(tree.paths, tree.labels, strict=True))


@pytest.mark.parametrize("archive", ["", "weather/"])
def test_severities_counted_from_zero_are_refused(tmp_path, archive):
    spec = few("imagenet_c", cells=tuple(f"fog/{severity}" for severity in range(1, 6)))
    for severity in range(5):
        fill(tmp_path / "imagenet-c" / f"{archive}fog/{severity}", spec.classes)
    assert f"expected severities from 1, found {tmp_path / 'imagenet-c' / archive / 'fog/0'};" in refused(
        spec, tmp_path
    )


def test_a_mapping_file_that_gives_two_classes_one_title_is_refused(tmp_path):
    spec = replace(real()["objectnet"], between=None)
    fill(tmp_path / "objectnet-1.0/images", [*spec.classes[:-1], "renamed"], each=1, ending=".png")
    (tmp_path / "objectnet-1.0/mappings").mkdir()
    mapping = dict.fromkeys(spec.classes[:2], "Chair") | {"renamed": "Chair"}
    (tmp_path / "objectnet-1.0/mappings/folder_to_objectnet_label.json").write_text(json.dumps(mapping))
    assert "gives two classes the same title" in refused(spec, tmp_path)


# Val's labels from a list


CLASSES = 4
VAL = replace(
    few("imagenet_val", CLASSES, 2),
    classes=FIRST_OF_VAL[:CLASSES],
    first=FIRST_OF_VAL,
)
LABELS = [*range(CLASSES), *range(CLASSES)]


def stem(number: int) -> str:
    return f"ILSVRC2012_val_{number:08}"


def flat(root, lines, numbers=range(1, 9), extra=()):
    folder = root / "imagenet/val"
    folder.mkdir(parents=True)
    for name in (*map(stem, numbers), *extra):
        (folder / f"{name}.JPEG").write_bytes(b"x")
    (root / "imagenet/val_synsets.txt").write_text("\n".join(lines))


def in_order():
    """Images 1 to 4 have their real classes; 5 to 8 are taken for them again."""
    return [VAL.classes[label] for label in LABELS]


FOUR = replace(VAL, first=FIRST_OF_VAL[:CLASSES])


def test_a_list_in_vals_order_is_read(tmp_path):
    flat(tmp_path, in_order())
    assert scan(FOUR, tmp_path).labels.tolist() == LABELS


@pytest.mark.parametrize("order", [sorted, lambda lines: lines[1:] + lines[:1], lambda lines: lines[::-1]])
def test_a_list_in_another_order_is_found_out_by_the_first_images(tmp_path, order):
    flat(tmp_path, order(in_order()))
    assert "in another order: use those of the release" in refused(FOUR, tmp_path)


def test_a_list_that_gives_a_class_too_many_images_is_of_another_set(tmp_path):
    flat(tmp_path, [*in_order()[:-1], VAL.classes[0]])
    assert f"the list of labels gives {VAL.classes[0]} 3 images" in refused(FOUR, tmp_path)


def test_a_line_belongs_to_its_image_whichever_are_there(tmp_path):
    """With a line an image, one image missing and a foreign one in its place would shift all labels between."""
    flat(tmp_path, in_order(), numbers=[1, 2, 4, 7, 8])
    tree = scan(FOUR, tmp_path, allow_incomplete=True)
    assert tree.labels.tolist() == [LABELS[n - 1] for n in (1, 2, 4, 7, 8)]


@pytest.mark.parametrize("name", ["cat", "ILSVRC2012_val_00000009", "ILSVRC2012_val_00000000", "val_00000003"])
def test_an_image_without_a_line_of_its_own_is_named(tmp_path, name):
    flat(tmp_path, in_order(), numbers=range(1, 8), extra=[name])
    assert f"found {name}.JPEG" in refused(FOUR, tmp_path)


def test_vals_images_sorted_into_the_wrong_folders_are_found_out(tmp_path):
    folder = tmp_path / "imagenet/val"
    for number in range(1, 9):
        place = folder / VAL.classes[number % CLASSES]  # off by one
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{stem(number)}.JPEG").write_bytes(b"x")
    message = refused(FOUR, tmp_path)
    assert f"{stem(4)}.JPEG is {FIRST_OF_VAL[3]}, found under {FIRST_OF_VAL[0]}" in message


def test_the_first_of_val_are_the_outputs_that_every_list_gives_them():
    assert [real().outputs.index(wnid) for wnid in FIRST_OF_VAL] == [65, 970, 230, 809, 516, 57, 334, 415]
