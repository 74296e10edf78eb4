"""Every model config builds; weights files that do not fit are refused in one sentence; timm models work whole."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file

from rib.config import compose, instantiate, options
from rib.data import catalog, mini
from rib.errors import RibError
from rib.methods.base import Method
from rib.models.zoo import build, build_backbone, find_start
from rib.pipeline import finetune
from rib.schema import ModelConfig

TINY_TIMM = "test_vit.r160_in1k"


@pytest.fixture
def timm_weights(tmp_path):
    torch.manual_seed(0)
    file = tmp_path / "test_vit.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), file)
    return file


@pytest.mark.parametrize("name", options("model"))
def test_every_model_config_builds_on_the_meta_device(name, timm_weights):
    overrides = [f"model={name}"]
    if name == "timm":
        overrides += [f"model.name={TINY_TIMM}", f"model.weights={timm_weights}"]
    start = find_start(compose(*overrides).model)
    with torch.device("meta"):
        backbone = build_backbone(start)
        outputs = backbone(torch.zeros(2, 3, start.transform.size, start.transform.size))
    assert outputs.shape == (2, len(catalog.real().wnids))


@pytest.mark.parametrize("name", options("method"))
def test_every_method_config_is_a_method(name):
    config = compose(f"+method={name}")
    assert list(config.method) == [name]
    node = config.method[name]
    assert not node or isinstance(instantiate(node), Method)


def test_a_timm_model_has_its_own_transform_and_trains(ask_for, timm_weights):
    config = ask_for(
        "model=timm",
        f"model.name={TINY_TIMM}",
        f"model.weights={timm_weights}",
        "data.limit=30",
        "epochs=1",
        "suite.targets=[imagenet_a,imagenet_r]",
    )
    start = find_start(config.model)
    data = timm.data.resolve_model_data_config(timm.create_model(TINY_TIMM))
    assert start.transform.size == data["input_size"][-1]
    assert start.transform.crop_pct == data["crop_pct"]
    assert start.transform.mean == tuple(data["mean"])
    assert start.architecture == "test_vit"
    run = finetune(config)
    assert run.weights().keys() == timm.create_model("test_vit").state_dict().keys()


def test_the_classifier_is_the_backbone_on_normalised_images(timm_weights):
    start = find_start(ModelConfig(TINY_TIMM, "timm", weights=str(timm_weights)))
    model = build(start, 1000)
    images = torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8)
    mean, std = (torch.tensor(v)[:, None, None] for v in (start.transform.mean, start.transform.std))
    with torch.no_grad():
        assert torch.equal(model(images), model.backbone((images.float() / 255 - mean) / std))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": "mini_lagre", "library": "mini"}, "expected one of"),
        (
            {"name": "vit_base_patch16_224.augreg_in1", "library": "timm"},
            "did you mean vit_base_patch16_224.augreg_in1k",
        ),
        ({"name": TINY_TIMM, "library": "timm"}, "expected a local file of weights"),
        ({"name": TINY_TIMM, "library": "timm", "weights": "none.pt"}, "there is no file none.pt"),
        ({"name": TINY_TIMM, "library": "keras"}, "expected mini or timm, got 'keras'"),
    ],
)
def test_what_cannot_be_found_is_one_sentence(change, sentence):
    with pytest.raises(RibError, match=sentence):
        find_start(ModelConfig(**change))


def test_weights_that_do_not_fit_are_refused_by_name(tmp_path, timm_weights):
    start = find_start(
        ModelConfig("mini_small", "mini", weights=str(timm_weights), transform=compose().model.transform)
    )
    with pytest.raises(RibError, match=r"does not fit vit_mini: \S+ should be"):
        build(start, 1000)
    fits = find_start(ModelConfig(TINY_TIMM, "timm", weights=str(timm_weights)))
    with pytest.raises(RibError, match="expected 40 outputs, the checkpoint has 1000"):
        build(fits, 40)


def test_pickled_code_and_damaged_files_are_refused(tmp_path):
    pickled = tmp_path / "model.pt"
    torch.save(torch.nn.Linear(2, 2), pickled)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"not weights")
    for file in (pickled, damaged):
        with pytest.raises(RibError, match=f"cannot read {file} as weights"):
            build(find_start(ModelConfig(TINY_TIMM, "timm", weights=str(file))), 1000)


def test_a_torch_file_of_tensors_is_read(tmp_path):
    torch.manual_seed(1)
    state = timm.create_model("test_vit").state_dict()
    file = tmp_path / "weights.pt"
    torch.save({"state_dict": state}, file)
    model = build(find_start(ModelConfig(TINY_TIMM, "timm", weights=str(file))), 1000)
    assert torch.equal(model.backbone.state_dict()["head.weight"], state["head.weight"])


def test_mini_names_what_ships():
    assert [n for n in options("model") if n.startswith("mini_")] == sorted(
        f"mini_{size}" for size in ("tiny", "small", "medium", "large")
    )
    assert len(mini.catalog().wnids) == 1000
