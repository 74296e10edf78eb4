"""`rib.score`: any module in memory gets the numbers of a run with its weights, and is left as it was."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

import rib
from rib.config import compose
from rib.data.catalog import real
from rib.errors import RibError, RobustnessError
from rib.models.build import build
from rib.models.start import find_start
from rib.pipeline import finetune
from rib.runs.run import Run
from rib.scoring import shared_pass
from rib.scoring.report import Score

LIMIT = 40
OF_TORCHVISION = v2.Compose([v2.CenterCrop(8), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])


@pytest.fixture(scope="module")
def run(tmp_path_factory, cache) -> Run:
    """A run of mini_tiny, fine-tuned on R for a few steps."""
    patch = pytest.MonkeyPatch()
    patch.setattr("rib.reporting.run_figures.draw_run", lambda *_: None)
    folder = tmp_path_factory.mktemp("scored") / "runs"
    options = ("model=mini_tiny", "epochs=1", "optimizer.lr=0.2", "data.images_per_class=3", f"data.limit={LIMIT}")
    made = finetune(compose(f"paths.runs={folder}", f"paths.cache={cache}", "trainer=cpu", "data.root=null", *options))
    patch.undo()
    return made


@pytest.fixture(scope="module")
def nets(run) -> tuple[nn.Module, nn.Module]:
    """The plain networks before and after it."""
    start = find_start(compose("model=mini_tiny").model)
    return tuple(build(replace(start, weights=w)).backbone for w in (start.weights, run.weights_file))


@pytest.fixture
def scored(cache, tmp_path) -> Callable[..., Score]:
    """`score` on toy data, one small dataset unless more are asked for; no run store is there."""

    def call(model, *overrides, **options):
        options = {"data": "mini", "limit": LIMIT, "datasets": ["imagenet_a"], **options}
        return rib.score(model, f"paths.cache={cache}", f"paths.runs={tmp_path / 'none'}", *overrides, **options)

    return call


class Flat(nn.Module):
    """A small module of nobody's library, with BatchNorm, dropout and a tensor that it keeps from its first call."""

    def __init__(self, outputs: int = 1000):
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.drop = nn.BatchNorm2d(3), nn.Dropout(0.5)
        self.last = nn.Linear(3 * 8 * 8, outputs)
        self.kept: Tensor | None = None

    def forward(self, images):
        if self.kept is None:
            self.kept = torch.full((1,), 2.0) * 1
        return self.last(self.drop(self.norm(images) * self.kept).flatten(1))


@pytest.mark.slow
def test_the_same_weights_get_the_numbers_of_their_run(run, nets, scored):
    before, after = nets
    metrics = run.metrics()
    found = scored(after, before=before, source="imagenet_r", datasets=None)
    assert found.accuracy == metrics["accuracy"]
    assert found.robustness_improvement == metrics["robustness_improvement"]
    assert abs(found.ri.value) > 0.1
    for dataset in metrics["accuracy"]:
        mine, stored = found.predictions(dataset).columns, run.predictions(dataset).columns
        assert mine.keys() == stored.keys()
        assert all(np.array_equal(mine[name], stored[name]) for name in stored), dataset
    pretrained = next(run.folder.parents[2].glob("none/pretrained/*"))
    for earlier in (pretrained, str(pretrained), Run(pretrained), rib.load(run.folder).before):
        again = scored(after, before=earlier, source="imagenet_r", datasets=None)
        assert again.robustness_improvement == metrics["robustness_improvement"]
    assert (
        scored(after, before=pretrained.name, runs=run.folder.parents[4], source="imagenet_r", datasets=None).ri
        == again.ri
    )
    assert again.against == "mini_tiny, pretrained"
    start = scored(before, datasets=None)
    assert start.robustness_improvement is None
    assert scored(after, before=start, source="imagenet_r", datasets=None).accuracy == metrics["accuracy"]
    assert scored(before, before=after, datasets=["imagenet_a"]).ri.value == -100 * (
        found.accuracy["imagenet_a"]["after"] - found.accuracy["imagenet_a"]["before"]
    )


def test_without_a_model_to_compare_with_there_are_accuracies_alone(nets, scored):
    found = scored(nets[0], datasets=["imagenet_c", "imagenet_val"])
    assert found.robustness_improvement is None
    for entry in (found.accuracy["imagenet_c"], *found.accuracy["imagenet_c"]["cells"].values()):
        assert entry["before"] is None
        assert entry["after"] > 0
    assert list(found.table().columns) == ["role", "images", "accuracy"]
    assert list(found.table()["role"]) == ["target", "reported"]
    assert "no RI" in found._repr_html_()
    with pytest.raises(RibError, match="give before=MODEL_OR_RUN"):
        found.check(fail_below=-1)


def test_a_score_shows_as_a_table(nets, scored):
    before, after = nets
    found = scored(after, before=before, source="imagenet_r", datasets=["imagenet_r", "imagenet_a", "imagenet_val"])
    table = found.table()
    entry = found.accuracy["imagenet_a"]
    assert list(table.columns) == ["role", "images", "before", "after", "change", "low", "high"]
    assert list(table["role"]) == ["source", "target", "reported"]
    assert table.loc["imagenet_a", "after"] == 100 * entry["after"]
    assert table.loc["imagenet_a", "low"] == entry["change"]["low"]
    html = found._repr_html_()
    assert f"{100 * entry['after']:.2f}" in html
    assert "mini" in html
    assert found.summary in str(found)
    assert "over 1 target" in found.summary


def test_a_users_own_transform_is_applied_exactly(scored):
    seen, batches = [], []
    model = Flat()

    def transform(image):
        assert isinstance(image, Image.Image)
        assert image.mode == "RGB"
        seen.append((image.size, OF_TORCHVISION(image)))
        return seen[-1][1]

    model.register_forward_pre_hook(lambda module, args: batches.append(args[0].clone()))
    found = scored(model, transform=transform, datasets=["objectnet", "imagenet_r"], batch_size=16)
    assert [len(batch) for batch in batches] == [16, 16, 8] * 2
    assert torch.equal(torch.cat(batches), torch.stack([tensor for _, tensor in seen]))
    # ObjectNet's red border is no part of the photograph.
    assert {size for size, _ in seen[:LIMIT]} == {(48, 48)}
    tree = found.images("imagenet_r")
    with torch.no_grad():
        logits = model.eval()(torch.cat(batches[3:]))
    ids = torch.tensor([group[0] for group in tree.spec.groups])
    right = logits[:, ids].argmax(1).numpy() == tree.labels
    assert found.accuracy["imagenet_r"]["after"] == right.mean()


def test_the_model_and_the_random_states_are_left_as_they_were(scored):
    model = Flat()
    model.train()
    model.norm.eval()
    model.last.bias.requires_grad_(False)
    model.last.weight.grad = torch.ones_like(model.last.weight)
    state, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]

    def draws(image):
        return OF_TORCHVISION(image) + torch.rand(()) + random.random() + np.random.rand()  # noqa: NPY002

    torch.manual_seed(3), random.seed(3), np.random.seed(3)  # noqa: NPY002
    expected = (torch.rand(2).tolist(), random.random(), np.random.rand())  # noqa: NPY002
    torch.manual_seed(3), random.seed(3), np.random.seed(3)  # noqa: NPY002
    with torch.enable_grad():
        first = scored(model, transform=draws, device="cpu")
        assert torch.is_grad_enabled()
    assert (torch.rand(2).tolist(), random.random(), np.random.rand()) == expected  # noqa: NPY002
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(model.last.weight.grad, torch.ones_like(model.last.weight))
    assert not model.last.bias.requires_grad
    # What the model keeps from scoring can be trained with.
    model(torch.rand(4, 3, 8, 8)).sum().backward()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(3), random.seed(3), np.random.seed(3)  # noqa: NPY002
        torch.rand(2), random.random(), np.random.rand()  # noqa: NPY002
        torch.manual_seed(3), random.seed(3), np.random.seed(3)  # noqa: NPY002
        again = scored(model, transform=draws)
    assert np.array_equal(first.predictions("imagenet_a").log_prob, again.predictions("imagenet_a").log_prob)


class Merging(nn.Linear):
    """Merges an update into its weight in eval mode, as some LoRA layers do."""

    def train(self, mode: bool = True):
        if mode != self.training:
            with torch.no_grad():
                self.weight += 1 if not mode else -1
        return super().train(mode)


@pytest.mark.parametrize("training", [True, False])
def test_layers_that_change_with_the_mode_are_changed_back(scored, training):
    model = nn.Sequential(nn.Flatten(), Merging(192, 1000)).train(training)
    start = model[1].weight.clone()
    scored(model, transform=OF_TORCHVISION)
    assert torch.allclose(model[1].weight, start, atol=1e-6)  # an update of 1 that is added and subtracted
    assert model[1].training is training


def test_a_model_is_left_as_it_was_after_an_error_too(scored):
    model = Flat(outputs=7).train()
    with pytest.raises(RibError, match="expected logits"):
        scored(model, transform=OF_TORCHVISION)
    assert model.training
    assert model.drop.training


def test_models_with_one_transform_share_a_pass(nets, scored, monkeypatch):
    passes = []
    original = shared_pass._score_dataset
    monkeypatch.setattr(
        shared_pass, "_score_dataset", lambda models, *a: passes.append(len(models)) or original(models, *a)
    )
    scored(nets[1], before=nets[0])
    scored(Flat(), before=Flat(), transform=OF_TORCHVISION)
    assert passes == [2, 2]


def small(image: Image.Image) -> Tensor:
    return OF_TORCHVISION(image)


class NaN(Flat):
    def forward(self, images):
        return super().forward(images) * torch.nan


class Outputs(Flat):
    def forward(self, images):
        return SimpleNamespace(logits=super().forward(images))


class Pair(Flat):
    def forward(self, images):
        return super().forward(images), None


def test_an_output_with_logits_is_taken(scored):
    plain, wrapped = scored(Flat(), transform=small), scored(Outputs(), transform=small)
    assert plain.accuracy == wrapped.accuracy


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (lambda: Flat(10), {}, r"expected logits of shape \(32, 1000\), got a tensor of shape \(32, 10\)"),
        (Pair, {}, "got a tuple; wrap the model"),
        (NaN, {}, "its logits are NaN for 40 of 40 images of .*; check the weights"),
        (Flat, {"transform": None}, "this Flat does not record .* give transform=FUNCTION"),
        (Flat, {"transform": lambda image: image}, "transform: expected it to return a tensor .*, got Image"),
        (Flat, {"transform": lambda image: small(image)[0]}, r"got one of shape \(8, 8\)"),
        (Flat, {"transform": v2.Compose([v2.RandomCrop((8, 9)), small])}, None),
        (Flat, {"transform": lambda image: small(image).repeat(1, 2, 2)}, "it cannot be run on images of shape"),
        (Flat, {"transform": lambda i: small(i)[:, : 4 + i.getpixel((0, 0))[0] % 4]}, "tensors of one shape"),
        (Flat, {"before": "nowhere"}, "nowhere"),
        (Flat, {"before": 3}, "expected a module, a score, a run or a run's folder, got a int"),
        (Flat, {"datasets": ["imagenet_q"]}, "there is no dataset imagenet_q; did you mean"),
        (Flat, {"datasets": "imagenet_a"}, r"write datasets=\['imagenet_a'\]"),
        (Flat, {"datasets": []}, "got none"),
        (Flat, {"source": "imagenet"}, "there is no dataset imagenet; did you mean"),
        (Flat, {"data": "/nowhere"}, "there is no folder /nowhere"),
        (Flat, {"suite": "six"}, "suite"),
        (Flat, {"limit": 0}, "data.limit: expected at least 1"),
        (Flat, {"batch_size": 0}, "batch_size: expected 1 or more"),
        (Flat, {"precision": "16"}, "evaluation.precision: expected one of"),
        (lambda: Flat().to("meta"), {}, "got one on the meta device"),
        (lambda: 3, {}, r"expected a torch.nn.Module, got a int; rib.load\(RUN\)"),
    ],
)
def test_an_error_is_one_sentence(scored, make, options, words):
    if words is None:
        assert scored(make(), **options).accuracy
        return
    with pytest.raises(RibError, match=words) as error:
        scored(make(), **{"transform": small, **options})
    assert "\n" not in str(error.value)


def test_a_model_is_not_compared_with_itself(scored):
    model = Flat()
    with pytest.raises(RibError, match=r"the same module as model; keep the start with copy.deepcopy"):
        scored(model, before=model, transform=small)
    with pytest.raises(RibError, match=r"optimizer.lr=1: expected an option of data, evaluation"):
        scored(model, "optimizer.lr=1")


@pytest.mark.slow
def test_a_run_of_other_images_is_refused(run, nets, scored):
    with pytest.raises(RibError, match=r"was scored on other images of imagenet_a .*limit=40.* than these 30"):
        scored(nets[1], before=run, limit=30)
    with pytest.raises(RibError, match="was not scored on imagenet_c; give datasets="):
        scored(nets[1], before=run, datasets=["imagenet_c"])
    with pytest.raises(RibError, match="that score is of other images of imagenet_a"):
        scored(nets[1], before=scored(nets[0]), limit=30)
    with pytest.raises(RibError, match="there is no score on imagenet_v2"):
        scored(nets[1], before=scored(nets[0]), datasets=["imagenet_v2"])
    for earlier in (run, scored(nets[0], datasets=["objectnet"])):
        with pytest.raises(RibError, match=r"(other images|other labels) of objectnet.*label.rule"):
            scored(nets[1], "data.label_rule=authors", before=earlier, datasets=["objectnet"])


def test_check_raises_an_assertion_below_the_limit(nets, scored):
    before, after = nets
    found = scored(after, before=before, source="imagenet_r", datasets=None)
    ri = found.ri
    found.check(fail_below=ri.high)
    found.check(fail_below=ri.value, fail_on="value")
    with pytest.raises(AssertionError, match=r"its upper end is 0.50 below the limit") as error:
        found.check(fail_below=ri.high + 0.5)
    assert isinstance(error.value, RobustnessError)
    with pytest.raises(RobustnessError, match=r"it is 0.50 below the limit"):
        found.check(fail_below=ri.value + 0.5, fail_on="value")


def test_nothing_is_written_beside_the_cache(nets, cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rib.score(nets[0], f"paths.cache={cache}", data="mini", limit=5, datasets=["imagenet_a"])
    assert not list(Path().iterdir())


def test_outputs_are_those_of_the_catalog():
    assert len(real().outputs) == 1000
