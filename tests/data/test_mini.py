"""The built-in benchmark: the same pixels on every machine, the real layouts, models of graded accuracy."""

import json
import math
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file

from rib.config.command_schema import PretrainConfig, WorldConfig
from rib.config.shipped import conf_dir
from rib.data.mini import DRAWING_VERSION, build, catalog, digests, ensure
from rib.data.mini.arithmetic import Dice, sine
from rib.data.mini.classes import BY_WNID, CLASSES, FOLDERS, STRANGERS
from rib.data.mini.sets import NAMES, pictures
from rib.data.mini.world import pretraining_image
from rib.models.mini import build_mini
from rib.models.mini_weights import NAMES as MODELS
from rib.models.mini_weights import weights_file

FACTS = Path(__file__).resolve().parents[3] / "shared" / "facts" / "objectnet_mapping.json"
DERIVED = {"imagenet_cartoon", "imagenet_drawing", "imagenet_c"}


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    return ensure(tmp_path_factory.mktemp("cache"))


def accuracy(model, root, name):
    """Percent right among the dataset's classes, read without rib's own reader."""
    spec = catalog()[name]
    top = root / spec.folders[0]
    tops = [top / cell for cell in spec.cells] or [top]
    right = count = 0
    for start in tops:
        for label, (group, folder) in enumerate(zip(spec.groups, spec.classes, strict=True)):
            paths = sorted((start / (str(group[0]) if spec.rule == "number" else folder)).iterdir())
            images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
            images = images[:, spec.border : spec.border + 48, spec.border : spec.border + 48]
            with torch.inference_mode():
                logits = model(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1)
            scores = torch.stack([logits[:, list(g)].amax(1) for g in spec.groups], 1)
            right, count = right + int((scores.argmax(1) == label).sum()), count + len(paths)
    assert count == spec.num_images
    return 100 * right / count


def load(name):
    model = build_mini().eval()
    model.load_state_dict({key: value.float() for key, value in load_file(weights_file(name)).items()})
    return model


@pytest.mark.parametrize("name", ["imagenet_r", "objectnet", "imagenet_cartoon"])
def test_pixels_are_the_committed_ones(name, tmp_path):
    assert build.draw(tmp_path, (name,)) == {name: digests()[name]}


@pytest.mark.slow
def test_all_pixels_are_the_committed_ones(root):
    assert json.loads((root / "digests.json").read_text()) == digests()


@pytest.mark.slow
def test_drawing_takes_under_20_seconds(tmp_path):
    start = time.perf_counter()
    ensure(tmp_path)
    assert time.perf_counter() - start < 20


def test_dice_and_sines_are_whole_numbers():
    dice = Dice("a name")
    assert [dice.between(0, 999) for _ in range(4)] == [Dice("a name").between(0, 999), *_later("a name", 3)]
    assert {Dice(str(i)).between(3, 5) for i in range(50)} == {3, 4, 5}
    assert max(abs(sine(d) / 16384 - math.sin(math.radians(d))) for d in range(-360, 720)) < 0.002
    noise = Dice("noise").field(100, 100, layers=4)
    assert abs(noise.mean()) < 5
    assert abs(noise.std() - 148) < 5


def _later(name, count):
    dice = Dice(name)
    dice.between(0, 999)
    return [dice.between(0, 999) for _ in range(count)]


def test_size_of_the_benchmark():
    specs = catalog().specs
    assert tuple(specs) == NAMES
    assert sum(len(pictures(name)) for name in NAMES if name != "imagenet_train") <= 3500
    assert set(digests()) == set(NAMES)
    assert {name for name, spec in specs.items() if spec.derived_from == "imagenet_val"} == DERIVED


def test_classes_are_real_ones():
    wnids = catalog().outputs
    assert len(wnids) == 1000
    assert [c.wnid for c in CLASSES] == sorted(BY_WNID)
    lists = files("timm.data").joinpath("_info")
    for name in "ar":
        real = {wnids[int(i)] for i in lists.joinpath(f"imagenet_{name}_indices.txt").read_text().split()}
        assert {c.wnid for c in CLASSES if (c.in_a if name == "a" else c.in_r)} == real & set(BY_WNID)
    lemmas = dict(
        line.split("\t") for line in lists.joinpath("imagenet_synset_to_lemma.txt").read_text().splitlines() if line
    )
    assert all(c.synset == lemmas[c.wnid] for c in CLASSES)


def test_label_spaces_differ():
    specs = catalog().specs
    spaces = {name: frozenset(i for g in specs[name].groups for i in g) for name in NAMES}
    assert len({spaces[n] for n in ("imagenet_val", "imagenet_a", "imagenet_r", "objectnet")}) == 4
    assert max(len(group) for group in specs["objectnet"].groups) == 3
    looks = {(c.appearance.outline, c.appearance.texture) for c in CLASSES}
    assert len(looks) == len({(c.appearance.texture, c.appearance.palette) for c in CLASSES}) == len(CLASSES)


@pytest.mark.skipif(not FACTS.is_file(), reason="needs ../shared/facts, which is not part of the project")
def test_objectnet_folders_are_real_ones():
    real = json.loads(FACTS.read_text())["folders"]
    groups = catalog()["objectnet"].groups
    for folder, group in zip(FOLDERS, groups, strict=True):
        assert real[folder.name]["label"] == folder.label
        assert sorted(real[folder.name]["imagenet_ids"]) == sorted(group)
    assert not set(STRANGERS) & set(real)


def test_objectnet_mappings_agree_with_the_catalog(tmp_path):
    build.draw(tmp_path, ())
    mappings = tmp_path / "objectnet-1.0" / "mappings"
    label = json.loads((mappings / "folder_to_objectnet_label.json").read_text())
    synsets = json.loads((mappings / "objectnet_to_imagenet_1k.json").read_text())
    lines = (mappings / "imagenet_to_label_2012_v2").read_text().splitlines()
    line_of_output = json.loads((mappings / "pytorch_to_imagenet_2012_id.json").read_text())
    output = {lines[line]: int(i) for i, line in line_of_output.items()}
    spec = catalog()["objectnet"]
    for folder, group in zip(spec.classes, spec.groups, strict=True):
        assert tuple(output[s] for s in synsets[label[folder]].split("; ")) == group
    assert set(label) > set(spec.classes)


ENSURE = """
import sys
from pathlib import Path
from rib.data.mini import build
build.NAMES = ("imagenet_sketch", "imagenet_v2")
print(build.ensure(Path(sys.argv[1])))
"""


def _process(cache):
    return subprocess.Popen(
        [sys.executable, "-c", ENSURE, str(cache)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def _finished(process):
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return out.decode().strip()


def test_two_processes_at_once(tmp_path):
    pair = [_process(tmp_path), _process(tmp_path)]
    assert {_finished(process) for process in pair} == {str(tmp_path / f"mini-v{DRAWING_VERSION}")}
    assert len(list(tmp_path.glob("mini-v*/imagenet-sketch/*/*.JPEG"))) == catalog()["imagenet_sketch"].num_images
    assert not list(tmp_path.glob("*.partial-*"))


@pytest.mark.slow
def test_killed_midway(tmp_path):
    process = _process(tmp_path)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("*.partial-*/imagenet-sketch/*/*")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert list(tmp_path.glob("*.partial-*"))
    assert not (tmp_path / f"mini-v{DRAWING_VERSION}").exists()
    _finished(_process(tmp_path))
    assert (tmp_path / f"mini-v{DRAWING_VERSION}" / "digests.json").is_file()
    assert not list(tmp_path.glob("*.partial-*"))


def test_whoever_loses_the_rename_uses_the_winners(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "NAMES", ())
    root = build.ensure(tmp_path)
    build._publish(root)
    assert [p.name for p in tmp_path.glob("mini-v*") if p.is_dir()] == [root.name]


@pytest.mark.parametrize("file", ["digests.json", "contents.json"])
@pytest.mark.parametrize("damage", [None, "", "{", "[]"])
def test_a_root_that_does_not_say_what_was_drawn_is_drawn_anew(tmp_path, monkeypatch, file, damage):
    """An older version's root, and one whose files were cut short, do not."""
    monkeypatch.setattr(build, "NAMES", ())
    root = build.ensure(tmp_path)
    (root / "stranger").touch()
    assert (build.ensure(tmp_path) / "stranger").exists()
    (root / file).unlink() if damage is None else (root / file).write_text(damage)
    assert not (build.ensure(tmp_path) / "stranger").exists()


@pytest.mark.parametrize("name", MODELS)
def test_shipped_weights_fit(name):
    assert weights_file(name).stat().st_size <= 2e6
    weights = load_file(weights_file(name))
    assert {value.dtype for value in weights.values()} == {torch.float16}
    build_mini().load_state_dict(weights)
    node = OmegaConf.load(Path(conf_dir(), "model", f"{name}.yaml"))
    assert (node.name, node.library, node.architecture) == (name, "mini", "vit_mini")
    assert OmegaConf.load(Path(conf_dir(), "pretrain", f"{name}.yaml")).name == name


def test_no_such_model():
    with pytest.raises(ValueError, match=r"mini_tiny.*got 'mini_huge'"):
        weights_file("mini_huge")


@pytest.mark.slow
def test_room_both_ways_and_a_ladder(root):
    mean = {}
    for model_name in MODELS:
        model = load(model_name)
        scores = {name: accuracy(model, root, name) for name in NAMES}
        if model_name in ("mini_small", "mini_large"):
            for name, score in scores.items():
                assert 300 / len(catalog()[name].groups) < score < 95, (model_name, name, score)
        shifted = [scores[name] for name in NAMES if name not in ("imagenet_val", "imagenet_train")]
        mean[model_name] = sum(shifted) / len(shifted)
    assert list(mean.values()) == sorted(mean.values())


def test_pretraining_pictures_are_their_names():
    first, place = pretraining_image("somewhere", ["photo", "chalk"], 40)
    again, _ = pretraining_image("somewhere", ["photo", "chalk"], 40)
    elsewhere, _ = pretraining_image("elsewhere", ["photo", "chalk"], 40)
    assert place == 0
    assert np.array_equal(first, again)
    assert not np.array_equal(first, elsewhere)


def test_pretraining_repeats_itself(tmp_path):
    from rib.models.pretraining import pretrain

    world = WorldConfig("mini_tiny", images=80, epochs=1, looks=["photo"])
    threads = torch.get_num_threads()
    files_ = []
    for i in range(2):
        out = str(tmp_path / f"{i}.safetensors")
        config = PretrainConfig(world, out, threads=1, seed=0, batch_size=40, lr=1.5e-3, weight_decay=0.05)
        files_.append(pretrain(config).read_bytes())
    torch.set_num_threads(threads)
    assert files_[0] == files_[1]
