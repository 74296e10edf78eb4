"""The crop cache: identical to decoding, with concurrent writers and after damage."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import ImageOps

from rib.data import crop_cache
from rib.data.crop_cache import crops_of
from rib.data.dataset import Images
from rib.data.identity import FileIdentity
from rib.data.transform import Transform, read_image
from rib.errors import RibError
from tests.data.trees import photograph, picture, pictures

T = Transform(16, 0.875, "bicubic", (0.5,) * 3, (0.5,) * 3)


@pytest.fixture
def tree(tmp_path):
    return pictures(tmp_path / "images", 7)


@pytest.mark.parametrize("backend", ["torchvision", "pil"])
def test_they_are_the_decoded_bytes(tree, tmp_path, backend):
    decoded = torch.stack([read_image(tree.folder / path, T, backend) for path in tree.paths])
    for _ in range(2):
        assert torch.equal(crops_of(tree, T, backend, tmp_path / "cache"), decoded)


def test_a_second_time_nothing_is_decoded(tree, tmp_path, monkeypatch):
    first = crops_of(tree, T, "torchvision", tmp_path / "cache")
    monkeypatch.setattr(crop_cache, "read_image", lambda *_: pytest.fail("decoded again"))
    assert torch.equal(crops_of(tree, T, "torchvision", tmp_path / "cache"), first)


def test_what_changes_a_pixel_has_a_file_of_its_own(tree, tmp_path):
    cache = tmp_path / "cache"
    variants = [
        (tree, T, "torchvision"),
        (tree, T, "pil"),
        (tree, replace(T, size=15), "torchvision"),
        (tree, replace(T, crop_pct=1.0), "torchvision"),
        (tree, replace(T, interpolation="bilinear"), "torchvision"),
        (replace(tree, spec=replace(tree.spec, border=2)), T, "torchvision"),
        (replace(tree, drawn="another"), T, "torchvision"),
        (tree.limit(3), T, "torchvision"),
    ]
    for variant in variants:
        crops_of(*variant, cache)
    assert len(list(cache.glob("*.npy"))) == len(variants)


@pytest.mark.parametrize("kind", ["content", "listing", "pixels"])
def test_an_image_replaced_in_place_is_decoded_again_however_images_are_told(tree, tmp_path, kind):
    """Other bytes of the same size, with the old time: only the content tells, or the time that nobody can set."""
    tree = replace(
        tree,
        drawn="of pixels" if kind == "pixels" else None,
        file_identity=FileIdentity(kind.replace("pixels", "content")),
    )
    file = tree.folder / tree.paths[2]
    cache, kept = tmp_path / "cache", file.read_bytes()
    first = crops_of(tree, T, "torchvision", cache).clone()
    found = file.stat()
    other = (tree.folder / tree.paths[3]).read_bytes()
    size = max(len(kept), len(other))
    for content in (kept, other):
        time.sleep(0.02)
        file.write_bytes(content.ljust(size, b"\0"))  # what follows a JPEG's end is ignored
        os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
        now = replace(tree, labels=tree.labels)  # as the next command finds it
        crop_cache = crops_of(now, T, "torchvision", cache).clone()
    assert torch.equal(crop_cache[2], first[3])
    assert torch.equal(crop_cache[[0, 1, 3, 4, 5, 6]], first[[0, 1, 3, 4, 5, 6]])


@pytest.mark.parametrize("kind", ["content", "listing", "pixels"])
def test_an_image_changed_while_it_is_read_is_told_and_nothing_is_kept(tree, tmp_path, monkeypatch, kind):
    tree = replace(
        tree,
        drawn="of pixels" if kind == "pixels" else None,
        file_identity=FileIdentity(kind.replace("pixels", "content")),
    )
    read = crop_cache.read_image

    def and_change(file, *options):
        found = read(file, *options)
        file.write_bytes(file.read_bytes()[:-1] + b"x")
        return found

    monkeypatch.setattr(crop_cache, "read_image", and_change)
    with pytest.raises(RibError, match=r"were changed .*; run it again"):
        crops_of(tree, T, "torchvision", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_images_changed_after_their_key_was_taken_are_told(tree, tmp_path):
    tree = replace(tree, drawn=None)
    assert tree.digest
    photograph(tree.folder / tree.paths[0], 99)
    with pytest.raises(RibError, match="were changed after this command began; run it again"):
        crops_of(tree, T, "torchvision", tmp_path / "cache")


def test_over_budget_or_without_a_cache_there_are_none(tree, tmp_path, monkeypatch):
    assert crops_of(tree, T, "torchvision", None) is None
    monkeypatch.setattr(crop_cache, "BUDGET", 7 * 3 * 16 * 16 - 1)
    assert crops_of(tree, T, "torchvision", tmp_path / "cache") is None


def test_a_file_cut_short_is_made_again(tree, tmp_path):
    first = crops_of(tree, T, "torchvision", tmp_path / "cache").clone()
    (file,) = (tmp_path / "cache").glob("*.npy")
    for length in (0, 50, 1000):
        os.truncate(file, length)
        assert torch.equal(crops_of(tree, T, "torchvision", tmp_path / "cache"), first)


def test_a_full_disk_costs_time_only(tree, tmp_path, monkeypatch):
    first = crops_of(tree, T, "torchvision", tmp_path / "cache").clone()

    def full(stream, array):
        stream.write(b"some of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    assert torch.equal(crops_of(tree, T, "torchvision", tmp_path / "other"), first)
    assert list((tmp_path / "other").iterdir()) == []


def test_several_at_once(tree, tmp_path):
    found: list[torch.Tensor] = []
    threads = [
        threading.Thread(target=lambda: found.append(crops_of(tree, T, "torchvision", tmp_path / "cache")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(one, found[0]) for one in found)
    assert len(found) == 4
    assert [p.suffix for p in (tmp_path / "cache").glob("*.npy")] == [".npy"]


def test_old_leftovers_go_and_young_ones_stay(tree, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    for name, then in (("old.tmp", 0), ("young.tmp", None)):
        (cache / name).touch()
        if then is not None:
            os.utime(cache / name, (then, then))
    crops_of(tree, T, "torchvision", cache)
    assert {p.name for p in cache.glob("*.tmp")} == {"young.tmp"}


def test_a_corrupt_image_is_named_and_nothing_is_kept(tree, tmp_path):
    (tree.folder / tree.paths[3]).write_bytes(b"\xff\xd8 no more")
    with pytest.raises(RibError, match=r"003\.jpg cannot be read as an image"):
        crops_of(tree, T, "torchvision", tmp_path / "cache")
    assert not (tmp_path / "cache").exists() or list((tmp_path / "cache").glob("*.npy")) == []


def test_cached_and_streamed_batches_are_the_same(tree, tmp_path):
    cached = Images(tree, T, crops=crops_of(tree, T, "torchvision", tmp_path / "cache"))
    for one, other in zip(cached.__getitems__([5, 0, 7 + 2]), Images(tree, T).__getitems__([5, 0, 7 + 2]), strict=True):
        assert torch.equal(one, other)
    assert cached.__getitems__([5, 0, 7 + 2])[2].tolist() == [5, 0, 2]


@pytest.mark.parametrize("way", ["cached", "streamed", "augmented"])
@pytest.mark.parametrize("trap", [{"border": 2}, {"precropped": True}], ids=["red border", "precropped"])
def test_a_dataset_s_border_and_crops_are_heeded_on_every_way(tmp_path, way, trap):
    """ObjectNet's frame is cut, ImageNet-C's images stay as they are; a plain reader does neither."""
    tree = pictures(tmp_path / "images", 2)
    for n, path in enumerate(tree.paths):
        frame = trap.get("border", 0)
        ImageOps.expand(picture(n, 16, 16), frame, "red").save(tree.folder / path, "PNG")
    tree = replace(tree, spec=replace(tree.spec, **trap))
    whole = replace(T, crop_pct=1.0) if "border" in trap else T
    crop_cache = crops_of(tree, whole, "torchvision", tmp_path / "cache") if way == "cached" else None
    images = Images(tree, whole, crops=crop_cache, augment="flip" if way == "augmented" else "none").__getitems__(
        [0, 1]
    )[0]
    for image, n in zip(images, range(2), strict=True):
        inner = torch.from_numpy(np.array(picture(n, 16, 16))).permute(2, 0, 1)
        assert torch.equal(image, inner) or (way == "augmented" and torch.equal(image, inner.flip(2)))


def test_augmentation_leaves_the_generators_of_other_devices_alone(tree, monkeypatch):
    images = Images(tree, T, augment="flip")
    monkeypatch.setattr(torch, "manual_seed", lambda seed: pytest.fail("torch.manual_seed sets the GPU's too"))
    images.__getitems__([4])


def test_augmentation_depends_on_seed_epoch_and_image_alone(tree):
    images = Images(tree, T, augment="random_resized_crop", seed=3)
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    alone = images.__getitems__([4])[0][0]
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(images.__getitems__([1, 4, 6])[0][1], alone)
    assert not torch.equal(images.__getitems__([7 + 4])[0][0], alone)
    assert not torch.equal(Images(tree, T, augment="random_resized_crop", seed=4).__getitems__([4])[0][0], alone)
