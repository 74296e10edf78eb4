"""The cache of decoded images: identical to decoding, with several writers, after kills, damage and a full disk."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import ImageOps
from torchvision.transforms.v2 import RandomHorizontalFlip

from rib.data import crop_cache, crop_file
from rib.data.crop_cache import CropCache, Crops
from rib.data.crop_file import CropFile
from rib.data.crop_room import SPARED_SECONDS, Room, parse_limit
from rib.data.dataset import Images
from rib.data.identity import FileIdentity
from rib.data.transform import Transform, read_image
from rib.errors import RibError
from rib.runtime.console import say_once
from rib.runtime.files import digest_of
from tests.data.trees import few, photograph, picture, pictures

T = Transform(16, 0.875, "bicubic", (0.5,) * 3, (0.5,) * 3)

WAYS = ("in memory", "from the file")


@pytest.fixture
def tree(tmp_path):
    return pictures(tmp_path / "images", 7)


@pytest.fixture
def cache(tmp_path):
    return CropCache(tmp_path / "cache", 10**8)


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    if request.param == "from the file":
        monkeypatch.setattr(crop_cache, "IN_MEMORY", 0)
    return request.param


@pytest.fixture
def decoded(monkeypatch):
    """The files that were decoded since."""
    files, crop = [], crop_cache.crop
    monkeypatch.setattr(crop_cache, "crop", lambda content, *rest: files.append(content) or crop(content, *rest))
    return files


def plain(tree, transform=T, backend="torchvision"):
    return torch.stack([read_image(tree.folder / path, transform, backend) for path in tree.paths])


def all_of(tree, cache, transform=T, backend="torchvision"):
    return Images(tree, transform, backend, cache).__getitems__(range(len(tree)))[0]


def only_file(cache):
    (file,) = cache.folder.iterdir()
    return file


@pytest.mark.parametrize("backend", ["torchvision", "pil"])
def test_they_are_the_decoded_bytes_and_decoded_once(tree, cache, way, decoded, backend):
    for _ in range(2):
        assert torch.equal(all_of(tree, cache, backend=backend), plain(tree, backend=backend))
    assert len(decoded) == 7


def test_parts_of_a_dataset_and_copies_share_its_file(tree, cache, way, decoded, tmp_path):
    assert torch.equal(all_of(tree.limit(3), cache), plain(tree.limit(3)))
    assert torch.equal(all_of(tree, cache), plain(tree))
    copy = pictures(tmp_path / "copy", 9)
    assert torch.equal(all_of(copy, cache), plain(copy))
    assert len(decoded) == 9
    assert only_file(cache)


def test_mean_and_std_share_and_what_changes_a_pixel_does_not(tree, cache, way):
    all_of(tree, cache)
    all_of(tree, cache, replace(T, mean=(0.1,) * 3, std=(0.2,) * 3))
    assert only_file(cache)
    others = [
        (tree, T, "pil"),
        (tree, replace(T, size=15), "torchvision"),
        (tree, replace(T, crop_pct=1.0), "torchvision"),
        (tree, replace(T, interpolation="bilinear"), "torchvision"),
        (replace(tree, spec=replace(tree.spec, border=2)), T, "torchvision"),
        (replace(tree, spec=replace(tree.spec, precropped=True)), T, "torchvision"),
    ]
    for variant, transform, backend in others:
        all_of(variant, cache, transform, backend)
    assert len(list(cache.folder.iterdir())) == 1 + len(others)


@pytest.mark.parametrize("kind", ["content", "listing", "pixels"])
def test_an_image_replaced_in_place_is_decoded_again_however_images_are_told(tree, cache, way, kind):
    """Other bytes of the same size, with the old time: only the content tells, or the time that nobody can set."""
    tree = replace(
        tree,
        drawn="of pixels" if kind == "pixels" else None,
        file_identity=FileIdentity(kind.replace("pixels", "content")),
    )
    file = tree.folder / tree.paths[2]
    kept = file.read_bytes()
    first = all_of(tree, cache)
    found = file.stat()
    other = (tree.folder / tree.paths[3]).read_bytes()
    size = max(len(kept), len(other))
    for content in (kept, other):
        time.sleep(0.02)
        file.write_bytes(content.ljust(size, b"\0"))  # what follows a JPEG's end is ignored
        os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
        now = all_of(replace(tree, labels=tree.labels), cache)  # as the next command finds it
    assert torch.equal(now[2], first[3])
    assert torch.equal(now[[0, 1, 3, 4, 5, 6]], first[[0, 1, 3, 4, 5, 6]])


@pytest.mark.parametrize("kind", ["content", "listing", "pixels"])
def test_an_image_changed_during_the_run_is_told_and_not_kept(tree, cache, monkeypatch, kind):
    monkeypatch.setattr(crop_cache, "IN_MEMORY", 0)
    tree = replace(
        tree,
        drawn="of pixels" if kind == "pixels" else None,
        file_identity=FileIdentity(kind.replace("pixels", "content")),
    )
    images = Images(tree, T, cache=cache)
    first = images.__getitems__([0, 1])[0]
    for path in tree.paths[1:3]:
        photograph(tree.folder / path, 99)
    assert torch.equal(images.__getitems__([0, 1])[0], first)  # the run's own images, as its key says
    with pytest.raises(RibError, match=r"were changed after this command began; run it again$"):
        images.__getitems__([2, 3])
    again = replace(tree, labels=tree.labels)
    assert torch.equal(all_of(again, cache), plain(again))


def test_images_changed_after_their_key_was_taken_are_told(tree, cache, way):
    tree = replace(tree, drawn=None)
    assert tree.digest
    photograph(tree.folder / tree.paths[0], 99)
    with pytest.raises(RibError, match="were changed after this command began; run it again"):
        all_of(tree, cache)


def test_a_corrupt_image_is_named(tree, cache, way):
    (tree.folder / tree.paths[3]).write_bytes(b"\xff\xd8 no more")
    with pytest.raises(RibError, match=r"003\.jpg cannot be read as an image"):
        all_of(tree, cache)


def test_a_file_cut_short_or_damaged_is_made_whole_again(tree, cache, way, decoded):
    all_of(tree, cache)
    whole = only_file(cache).read_bytes()
    harm = {
        "cut": [whole[:length] for length in (0, 50, 20_480, 20_500, len(whole) - 1)],
        "changed": [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in (0, 17, len(whole) - 5)],
        "zeros": [whole[:20_480] + bytes(len(whole) - 20_480)],  # as after a power cut
        "noise": [np.random.default_rng(0).bytes(len(whole))],
    }
    for contents in harm.values():
        for content in contents:
            only_file(cache).write_bytes(content)
            assert torch.equal(all_of(tree, cache), plain(tree))
            decoded.clear()
            assert torch.equal(all_of(tree, cache), plain(tree))
            assert not decoded


def fill(tree, cache, tell, size):
    """Decode a dataset in a process of its own (runs in a child process)."""
    crops = Crops(tree, T, "torchvision", cache)
    write = crop_file._write_at

    def write_and_tell(descriptor, content, position):
        write(descriptor, content, position)
        tell.release()
        time.sleep(0.001)

    crop_file._write_at = write_and_tell
    for first in range(0, len(tree), size):
        crops.read(range(first, min(first + size, len(tree))))


def child(*arguments):
    return multiprocessing.get_context("fork").Process(target=fill, args=arguments)


def test_a_process_killed_while_it_fills_the_cache(tree, cache, monkeypatch, decoded):
    monkeypatch.setattr(crop_cache, "IN_MEMORY", 0)
    for writes in (1, 4, 8, 9):  # keys, pixels and checksums of batches of three
        tell = multiprocessing.get_context("fork").Semaphore(0)
        process = child(tree, cache, tell, 3)
        process.start()
        for _ in range(writes):
            tell.acquire()
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        images = Images(tree, T, cache=cache)
        assert torch.equal(images.__getitems__(range(7))[0], plain(tree))
        assert images.kept()
        decoded.clear()
        assert torch.equal(all_of(tree, cache), plain(tree))
        assert not decoded
        only_file(cache).unlink()


def test_processes_that_fill_one_cache_write_each_image_once(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(crop_cache, "IN_MEMORY", 0)
    monkeypatch.setattr(crop_file, "CHUNK", 8)  # several chunks
    tree = pictures(tmp_path / "many", 30)
    tell = multiprocessing.get_context("fork").Semaphore(0)
    processes = [child(tree, cache, tell, size) for size in (2, 3, 5)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    images = Images(tree, T, cache=cache)
    assert images.kept()
    assert torch.equal(images.__getitems__(range(30))[0], plain(tree))
    assert only_file(cache).stat().st_size == 4 * 8 * 20 + 30 * 768


def test_threads_that_fill_one_cache(tree, cache, monkeypatch):
    monkeypatch.setattr(crop_cache, "IN_MEMORY", 0)
    images, found = Images(tree, T, cache=cache), []
    threads = [threading.Thread(target=lambda: found.append(images.__getitems__(range(7))[0])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(one, plain(tree)) for one in found)
    assert len(found) == 4
    assert only_file(cache).stat().st_size == 1024 * 20 + 7 * 768


def test_a_full_disk_is_told_once_and_costs_time_only(tree, cache, way, capfd):
    say_once.cache_clear()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * 20 + 2 * 768 + 5, limits[1]))
    try:
        for _ in range(2):
            images = Images(tree, T, cache=cache)
            assert torch.equal(images.__getitems__(range(7))[0], plain(tree))
            images.say_trouble()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = f"no more decoded images are kept in {cache.folder} (File too large); the run goes on\n"
    assert capfd.readouterr().err.count(said) == 1
    assert torch.equal(all_of(tree, cache), plain(tree))


@pytest.mark.parametrize("written", [0, 1, 9])
def test_a_disk_that_fills_while_images_are_written(tree, cache, way, capfd, monkeypatch, written):
    say_once.cache_clear()
    original, calls = crop_file._write_at, []

    def full(*arguments):
        calls.append(arguments)
        if len(calls) > written:
            raise OSError(28, "No space left on device")
        return original(*arguments)

    monkeypatch.setattr(crop_file, "_write_at", full)
    images = Images(tree, T, cache=cache)
    assert torch.equal(images.__getitems__(range(7))[0], plain(tree))
    images.say_trouble()
    assert "(No space left on device); the run goes on\n" in capfd.readouterr().err
    monkeypatch.setattr(crop_file, "_write_at", original)
    assert torch.equal(all_of(tree, cache), plain(tree))


def test_a_folder_that_cannot_be_written_is_read(tree, cache, way, capfd, monkeypatch, decoded):
    say_once.cache_clear()
    all_of(tree.limit(4), cache)
    decoded.clear()
    opened = os.open

    def read_only(path, flags, *rest, **options):
        if flags & os.O_RDWR and str(path).startswith(str(cache.folder)):
            raise OSError(30, "Read-only file system")
        return opened(path, flags, *rest, **options)

    monkeypatch.setattr(crop_file.os, "open", read_only)
    images = Images(tree, T, cache=cache)
    assert torch.equal(images.__getitems__(range(7))[0], plain(tree))
    images.say_trouble()
    assert len(decoded) == 3
    assert "(Read-only file system); the run goes on\n" in capfd.readouterr().err


def test_where_there_can_be_no_folder(tree, tmp_path, way):
    (tmp_path / "file").touch()
    assert torch.equal(all_of(tree, CropCache(tmp_path / "file" / "cache", 10**8)), plain(tree))


def test_the_limit_is_kept_and_told(tree, cache, monkeypatch, decoded, capfd):
    say_once.cache_clear()
    monkeypatch.setattr(crop_cache, "IN_MEMORY", 0)
    small = CropCache(cache.folder, 1024 * 20 + 4 * 768)
    for _ in range(2):
        images = Images(tree, T, cache=small)
        for first in range(0, 7, 2):
            assert torch.equal(images.__getitems__(range(first, min(7, first + 2)))[0], plain(tree)[first : first + 2])
        images.say_trouble()
    assert len(decoded) == 7 + 3
    first, second = capfd.readouterr().err.splitlines()
    assert first.startswith(f"decoded images are kept in {cache.folder}, 23.6 kB at most; data.cache=off keeps none")
    assert second.startswith(
        f"the decoded images in {cache.folder} have reached 23.6 kB; further ones are decoded each"
    )


def test_the_files_that_were_unused_for_longest_are_removed(tmp_path):
    room = Room(tmp_path, 250)
    now = time.time()
    for name, age in (("a", 3), ("b", 2), ("c", 0.5)):
        (tmp_path / f"{name}.crops").write_bytes(bytes(100))
        os.utime(tmp_path / f"{name}.crops", (now, now - age * SPARED_SECONDS))
    (tmp_path / "other").write_bytes(bytes(1000))
    left = lambda: {file.stem for file in tmp_path.glob("*.crops")}  # noqa: E731
    assert room.make(50, tmp_path / "a.crops")
    assert left() == {"a", "c"}  # the one that grows stays
    assert room.make(150, tmp_path / "new.crops")
    assert left() == {"c"}
    assert not room.make(200, tmp_path / "new.crops")
    assert left() == {"c"}  # in use by a grid, perhaps


def test_a_file_removed_while_it_is_read(tree, cache, monkeypatch, decoded):
    monkeypatch.setattr(crop_cache, "IN_MEMORY", 0)
    images = Images(tree, T, cache=cache)
    images.__getitems__([0, 1, 2])
    only_file(cache).unlink()
    decoded.clear()
    assert torch.equal(images.__getitems__([0, 1, 2])[0], plain(tree)[:3])
    assert not decoded  # what is open stays
    for _ in range(2):
        assert torch.equal(images.__getitems__(range(7))[0], plain(tree))
    assert images.kept()


def test_what_data_cache_may_be():
    assert [parse_limit(text) for text in ("auto", "off", "False", 0, "5", "60GB", "1.5 g", "2kB")] == [
        *(None, 0, 0, 0, 5, 60 * 10**9, 15 * 10**8, 2000)
    ]
    for wrong in ("", "on", "-1", "5x", "GB", "nan", "inf"):
        with pytest.raises(RibError, match=r"data\.cache: expected auto, off, or a number of bytes such as 60GB, got"):
            parse_limit(wrong)


def test_auto_takes_a_share_of_what_is_free(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 900}))
    assert Room.of(tmp_path / "new", None).limit == 90
    (tmp_path / "a.crops").write_bytes(bytes(100))
    assert Room.of(tmp_path, None).limit == 100
    assert Room.of(tmp_path, 7).limit == 7


def test_off_writes_nothing_and_imagenet_c_is_kept_when_asked_for(tree, cache, monkeypatch):
    assert torch.equal(all_of(tree, CropCache(cache.folder, 0)), plain(tree))
    monkeypatch.setattr(crop_cache, "IN_MEMORY", 0)
    assert torch.equal(all_of(tree, CropCache(cache.folder, 0)), plain(tree))
    corrupted = replace(tree, spec=few("imagenet_c", cells=("noise/1",)))
    all_of(corrupted, CropCache(cache.folder))
    assert not cache.folder.exists()
    all_of(corrupted, cache)
    assert only_file(cache)


def test_flipped_images_come_from_the_cache_and_cropped_ones_do_not(tree, cache, way, decoded):
    direct = Images(tree, T, augment="flip").__getitems__(range(14))[0]
    for _ in range(2):
        assert torch.equal(Images(tree, T, cache=cache, augment="flip").__getitems__(range(14))[0], direct)
    flipped = [torch.equal(direct[i], plain(tree)[i % 7].flip(2)) for i in range(14)]
    assert 0 < sum(flipped) < 14
    assert all(one or torch.equal(direct[i], plain(tree)[i % 7]) for i, one in enumerate(flipped))
    assert torch.equal(all_of(tree, cache), plain(tree))  # what is in memory is not flipped with it
    assert len(decoded) == 14 + (7 if way == "in memory" else 14)
    free = [Images(tree, T, cache=cache, augment="random_resized_crop").__getitems__([i])[0] for i in (0, 7)]
    assert not torch.equal(*free)


@pytest.mark.parametrize("backend", ["torchvision", "pil"])
def test_a_flip_is_the_one_that_torchvision_draws(tree, backend):
    images = Images(tree, T, backend, augment="flip", seed=3).__getitems__(range(14))[0]
    for index, image in enumerate(images):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(digest_of(["augment", 3, *divmod(index, 7)])[:15], 16))
            assert torch.equal(image, RandomHorizontalFlip()(plain(tree, backend=backend)[index % 7]))


@pytest.mark.parametrize("source", ["cached", "streamed", "augmented"])
@pytest.mark.parametrize("trap", [{"border": 2}, {"precropped": True}], ids=["red border", "precropped"])
def test_a_dataset_s_border_and_crops_are_heeded_on_every_way(tmp_path, cache, source, trap):
    """ObjectNet's frame is cut, ImageNet-C's images stay as they are; a plain reader does neither."""
    tree = pictures(tmp_path / "images", 2)
    for n, path in enumerate(tree.paths):
        frame = trap.get("border", 0)
        ImageOps.expand(picture(n, 16, 16), frame, "red").save(tree.folder / path, "PNG")
    tree = replace(tree, spec=replace(tree.spec, **trap))
    whole = replace(T, crop_pct=1.0) if "border" in trap else T
    augment = "flip" if source == "augmented" else "none"
    images = Images(tree, whole, cache=cache if source == "cached" else None, augment=augment).__getitems__([0, 1])[0]
    for image, n in zip(images, range(2), strict=True):
        inner = torch.from_numpy(np.array(picture(n, 16, 16))).permute(2, 0, 1)
        assert torch.equal(image, inner) or (source == "augmented" and torch.equal(image, inner.flip(2)))


@pytest.mark.parametrize("augment", ["flip", "random_resized_crop"])
def test_augmentation_leaves_the_generators_of_other_devices_alone(tree, monkeypatch, augment):
    images = Images(tree, T, augment=augment)
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


def test_an_empty_file_holds_nothing(tmp_path):
    file = CropFile(tmp_path / "none.crops", 4, Room(tmp_path, 100_000))
    out = np.empty((1, 4), np.uint8)
    assert not file.holds([b"k" * 16])
    assert file.read([b"k" * 16], out) == [0]
    file.add([b"k" * 16, b"k" * 16], [np.arange(4, dtype=np.uint8)] * 2)
    assert file.holds([b"k" * 16])
    assert file.read([b"k" * 16], out) == []
    assert out.tolist() == [[0, 1, 2, 3]]
