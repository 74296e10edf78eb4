"""Which head a run's model gets, what of it is in the keys, and what is refused."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rib.config import compose
from rib.config.schema import Config
from rib.errors import RefusedError, RibError
from rib.runs import heads
from rib.runs.command import command_for
from rib.runs.resolve import Resolver, resolve
from rib.runtime.console import say_once
from tests.support.suites import CLASSES, make_photo_suite

REFERENCE = ("head=probe", "head.reference=imagenet_val")
ROLES = ("photo", "sketch")
IMAGENET = {name: {"name": name, "imagenet": [10 * i, 10 * i + 1]} for i, name in enumerate(CLASSES)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return make_photo_suite(tmp_path_factory.mktemp("photos"), ROLES, per_class=4)


def of_suite(file: Path, *more: str) -> tuple[str, ...]:
    roles = f"[{','.join(ROLES)}]"
    names = ("suite.name=photos", f"suite.sources={roles}", f"suite.targets={roles}", "suite.reported=[]")
    return ("model=mini_tiny", f"data.suite={file}", "dataset.name=photo", *names, *more)


def with_keys(file: Path, folder: Path, **keys) -> Path:
    """The suite's file with other keys, in another folder."""
    import yaml

    changed = {**yaml.safe_load(file.read_text()), "root": str(file.parent), **keys}
    (folder / file.name).write_text(yaml.safe_dump(changed))
    return folder / file.name


def test_on_imagenet_s_suites_a_model_keeps_its_outputs(ask_for):
    plain = resolve(ask_for("model=mini_tiny"))
    assert plain.head_images is None and "head" not in plain.protocol and not plain.start.headless
    for kind in ("subset", "default"):
        assert resolve(ask_for("model=mini_tiny", f"head={kind}")).training_key == plain.training_key


@pytest.mark.slow
def test_the_reference_of_a_probe_is_not_scored_and_trains_nothing_else(ask_for, capsys):
    say_once.cache_clear()
    spec = resolve(ask_for("model=mini_tiny", *REFERENCE, "+method=ewc"))
    assert spec.protocol["head"] == "reference:imagenet_val"
    assert "imagenet_val" not in {*spec.images, *spec.config.suite.reported}
    said = capsys.readouterr().err
    assert said.count("imagenet_val trains the probe (head.reference)") == 1
    assert said.count("mini Cartoon, mini Drawing: from the same photographs as mini val, which trains the probe") == 1
    other = resolve(ask_for("model=mini_tiny", *REFERENCE, "dataset=imagenet_a"))
    assert other.start == spec.start
    assert other.of_pretrained().training_key == spec.of_pretrained().training_key
    with pytest.raises(RefusedError, match="dataset=imagenet_val: it trains the probe"):
        resolve(ask_for("model=mini_tiny", *REFERENCE, "dataset.name=imagenet_val"))


def test_without_a_reference_a_part_of_the_source_is_the_probe_s(ask_for, photos):
    specs = [resolve(ask_for(*of_suite(photos, "head=probe", f"dataset.name={source}"))) for source in ROLES]
    for spec, source in zip(specs, ROLES, strict=True):
        assert spec.protocol["head"] == f"probe:{source}"
        images, rest = spec.head_images, spec.source
        assert set(images.paths).isdisjoint(rest.paths) and len(images) + len(rest) == len(spec.scored[source])
        assert len(images) == len(CLASSES)  # round(0.3 * 4)
        assert spec.options == {}  # no file's path, and no head, which the protocol names
    assert specs[0].start.digest != specs[1].start.digest
    assert specs[0].of_pretrained().training_key != specs[1].of_pretrained().training_key
    # Held-out images are those of what is left.
    held = resolve(ask_for(*of_suite(photos, "head=probe", "data.holdout=0.34")))
    assert held.start == specs[0].start and set(held.held_out.paths) < set(specs[0].source.paths)
    asked = resolve(ask_for(*of_suite(photos, "head=probe", "+method=pretrained")))
    assert asked.training_key == specs[0].of_pretrained().training_key


def test_the_start_s_digest_covers_all_that_decides_the_probe(ask_for, photos, tmp_path):
    def digest(*more: str, file: Path = photos) -> str:
        return resolve(ask_for(*of_suite(file, "head=probe", *more))).start.digest

    first = digest()
    changes = ("head.l2=[0.1]", "head.holdout=0.2", "head.seed=1", "head.share=0.5", "data.image_backend=pil")
    others = {digest(change) for change in (*changes, "model=mini_small", "model.transform.crop_pct=0.8")}
    assert len(others | {first}) == 8
    assert first == digest("seed=1", "epochs=1", "optimizer.lr=0.5", "head.l2=[10,1,.1,.01,.001,.0001,.00001,.000001]")
    copy = make_photo_suite(tmp_path / "copy", ROLES, per_class=4)
    assert digest(file=copy) == first
    spec = resolve(ask_for(*of_suite(copy, "head=probe")))
    image = spec.head_images.folder / spec.head_images.paths[0]
    image.write_bytes(image.read_bytes() + b"\0")
    assert digest(file=copy) != first


@pytest.mark.slow
def test_where_it_is_left_open_the_model_decides(photos, tmp_path, ask_for):
    def kind(file: Path, *more: str) -> str | None:
        return heads.settle(ask_for(*of_suite(file, *more))).head.kind

    clip = ("model=open_clip", "model.name=ViT-B-32", "model.tag=openai")
    with_ids = with_keys(photos, tmp_path, classes=IMAGENET)
    assert kind(photos) == "probe" and kind(photos, *clip) == "zero_shot"
    assert kind(with_ids) == "subset" and kind(with_ids, *clip) == "zero_shot"
    assert kind(with_ids, "model=timm", "model.name=vit_small_patch16_224.augreg_in21k") == "probe"
    assert kind(with_ids, "model=timm", "model.name=vit_small_patch16_224.augreg_in1k") == "subset"
    (tmp_path / "own").mkdir()
    assert kind(with_keys(with_ids, tmp_path / "own", head="probe")) == "probe"
    assert kind(with_ids, "head=probe") == "probe"


def test_a_subset_has_imagenet_s_outputs_in_groups(photos, tmp_path, ask_for):
    file = with_keys(photos, tmp_path, classes=IMAGENET)
    spec = resolve(ask_for(*of_suite(file)))
    assert spec.protocol["head"] == "subset" and spec.start.outputs == len(spec.catalog.outputs) == 1000
    assert spec.source.spec.groups[1] == (10, 11) and spec.head_images is None
    assert spec.start == resolve(ask_for("model=mini_tiny")).start  # the model is the one of ImageNet's suites


def test_a_grid_of_models_with_different_heads_has_the_keys_of_its_runs(photos, tmp_path, ask_for):
    file, resolver = with_keys(photos, tmp_path, classes=IMAGENET), Resolver()
    for head in ("subset", "probe", "subset"):
        config = ask_for(*of_suite(file, f"head={head}"))
        shared, alone = resolve(config, resolver), resolve(config)
        assert shared.source.spec.groups == alone.source.spec.groups
        assert (shared.training_key, shared.score_keys) == (alone.training_key, alone.score_keys)


def test_the_suite_s_reference_is_the_probe_s(photos, tmp_path, ask_for):
    file = with_keys(photos, tmp_path, reference="sketch", sources=["photo"], targets=["photo"])
    spec = resolve(ask_for(*of_suite(file, "suite.targets=[photo]")))
    assert spec.protocol["head"] == "reference:sketch" and spec.head_images.spec.name == "sketch"


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("head.kind=linear",), "head.kind: expected one of zero_shot, subset, probe, or null, got linear"),
        (("head.reference=imagenet_val",), "head.reference=imagenet_val: it trains a probe; add head=probe"),
        (("head=zero_shot",), r"head=zero_shot: expected an open_clip model, .*got model=mini_tiny; use head=probe"),
        (("head=probe", "head.reference=imagenet_vall"), "there is no dataset imagenet_vall; did you mean"),
        (("head=probe", "head.l2=[0.0,1]"), "head.l2: expected strengths above 0"),
        (("head=probe", "head.share=1.0"), "head.share: expected a fraction above 0 and below 1, got 1.0"),
        (
            ("head=probe", "head.reference=imagenet_a"),
            r"mini A has no image of the class n\d+ \([a-z ]+\) \(16 such classes\), .* of mini V2",
        ),
        ((*REFERENCE, "data.limit=20"), "give one, a larger data.limit than 20, or another dataset"),
        (
            ("head=probe", "dataset=imagenet_v2", "+method=rib_soup"),
            r"a merge over sources needs one start.*reference=D",
        ),
    ],
)
def test_what_cannot_be_is_one_sentence(ask_for, more, sentence):
    with pytest.raises(RibError, match=sentence):
        resolve(ask_for("model=mini_tiny", *more))


def test_a_class_without_an_image_for_the_probe_is_refused_by_name(tmp_path, ask_for):
    file = make_photo_suite(tmp_path, ROLES, per_class=2, lacks={"photo": ["mug"]})
    with pytest.raises(
        RibError, match="head=probe: Photo has no image of the class mug, and the probe needs one of every"
    ):
        resolve(ask_for(*of_suite(file, "head=probe")))
    assert resolve(ask_for(*of_suite(file, "head=probe", "dataset.name=sketch"))).protocol["head"] == "probe:sketch"


def test_what_may_not_be_trained_on_trains_no_probe_either(photos, tmp_path, ask_for):
    closed = {"sketch": {"folder": "sketch", "may_train": False, "licence": "Not for training."}, "photo": "photo"}
    file = with_keys(photos, tmp_path, domains=closed)
    for option, more in (("dataset", ("dataset.name=sketch",)), ("head.reference", ("head.reference=sketch",))):
        with pytest.raises(RefusedError, match=f"{option}=sketch: Not for training; the suite's file says may_train"):
            resolve(ask_for(*of_suite(file, "head=probe", *more)))
    assert resolve(ask_for(*of_suite(file, "head=probe", "suite.sources=[photo]"))).source_name == "photo"


def test_what_is_irregular_about_the_probe_s_images_is_stamped(ask_for):
    spec = resolve(ask_for("model=mini_tiny", *REFERENCE))
    closed = replace(spec.head_images.spec, may_train=False)
    images = replace(spec.head_images, spec=closed, incomplete={"images": 1}, found=7)
    for one in (spec, spec.of_pretrained()):
        found = replace(one, head_images=images)
        assert found.switches["incomplete"] == {"imagenet_val": {"images": 1}}
        assert "objectnet_training" in found.switches and found.images_found["imagenet_val"] == 7
        assert one.switches == {}


def test_imagenet_s_outputs_that_do_not_fit_name_the_way_out(ask_for, tmp_path):
    torch.manual_seed(0)
    import timm

    save_file(timm.create_model("test_vit", num_classes=9).state_dict(), tmp_path / "w.safetensors")
    model = ("model=timm", "model.name=test_vit.r160_in1k", f"model.weights={tmp_path / 'w.safetensors'}")
    spec = resolve(ask_for(*model))
    from rib.models.build import build

    with pytest.raises(RibError, match=r"a head of 9 outputs; rib needs 1000 outputs, ImageNet-1K's .* head=probe"):
        build(spec.start)
    assert build(resolve(ask_for(*model, *REFERENCE)).start).backbone.num_classes == 1000


def test_settling_twice_changes_nothing(ask_for):
    config: Config = heads.settle(ask_for("model=mini_tiny", *REFERENCE))
    assert heads.settle(config) == config
    assert heads.settle(replace(config, head=replace(config.head, kind="probe"))) == config


def test_the_command_of_a_probe_names_the_source_that_it_has_a_part_of(ask_for):
    spec = resolve(ask_for("model=mini_tiny", "head=probe", "dataset=imagenet_v2")).of_pretrained()
    line = command_for(spec.config)
    assert "+method=pretrained" in line and "dataset=imagenet_v2" in line and "head=probe" in line
    words = shlex.split(line.partition("  #")[0])[3:]
    assert resolve(compose(*words)).training_key == spec.training_key
