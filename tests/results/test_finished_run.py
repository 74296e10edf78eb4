"""A finished run: its network gives its predictions, its tables are its metrics.json, and it shows in a notebook."""

from __future__ import annotations

import shutil
import warnings
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from timm.models import VisionTransformer

import rib
from rib.models.adapters import BorderPrompt
from rib.runs.run import Run


class Cells(HTMLParser):
    """The texts of a page, by kind of element; fails on elements that are not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        assert not {"src", "href"} & dict(attrs).keys(), "nothing comes from a network"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1], data))


@pytest.mark.parametrize("dataset", ["imagenet_r", "objectnet"])
def test_the_plain_network_with_its_transform_gives_the_stored_predictions(toy, dataset):
    """ObjectNet has a border to cut, which belongs to the dataset, not to the model: without it, nearly the same."""
    network = toy.plain.model()
    model, transform = network
    assert type(model) is VisionTransformer and not model.training and network.model is model
    assert next(model.parameters()).device.type == "cpu"
    images, stored = toy.plain.images(dataset), toy.plain.predictions(dataset)
    assert len(images) == len(stored) == 40
    batch = torch.stack([transform(Image.open(file)) for file in images["file"]])
    with torch.no_grad():
        logits = model(batch)
    groups = [list(group) for group in toy.plain.outputs(dataset)]
    assert images["output"].tolist() == [groups[label][0] for label in stored.label]
    log_prob = torch.stack([logits[:, group].max(dim=1)[0] for group in groups], dim=1).log_softmax(dim=1)
    found = log_prob.gather(1, torch.tensor(stored.label).long()[:, None])[:, 0].numpy()
    assert np.allclose(found, stored.log_prob, atol=1e-4 if dataset == "imagenet_r" else 3)
    if dataset == "imagenet_r":
        assert np.array_equal(log_prob.argmax(dim=1), stored.top5[:, 0])


def test_the_transform_takes_grey_and_transparent_images_and_tensors(toy):
    _, transform = toy.plain.model()
    picture = Image.open(toy.plain.images("imagenet_r")["file"].iloc[0]).convert("RGB")
    expected = transform(picture)
    assert expected.dtype == torch.float32 and expected.shape == (3, 48, 48) and type(expected) is torch.Tensor
    assert torch.equal(transform(picture.convert("RGBA")), expected)
    assert torch.equal(transform(np.array(picture)), expected)
    assert torch.equal(transform(torch.tensor(np.array(picture)).permute(2, 0, 1)), expected)
    assert transform(picture.convert("L")).shape == transform(picture.convert("P")).shape == (3, 48, 48)


def test_the_network_needs_no_pretrained_weights_and_leaves_the_random_state_alone(toy, monkeypatch):
    monkeypatch.setattr("rib.models.start.weights_file", lambda name: pytest.fail("the pretrained weights were read"))
    state = torch.get_rng_state()
    model, _ = toy.ewc.model()
    assert torch.equal(torch.get_rng_state(), state)
    stored = toy.ewc.weights()
    assert stored.keys() == model.state_dict().keys()
    assert all(torch.equal(stored[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.slow
def test_a_visual_prompt_comes_along(toy, tmp_path):
    run = rib.finetune("visual_prompt", **{**toy.options, "steps": 1, "runs": tmp_path})
    model, transform = run.model()
    assert isinstance(model[0], BorderPrompt)
    images, stored = run.images("imagenet_v2"), run.predictions("imagenet_v2")
    with torch.no_grad():
        found = model(torch.stack([transform(Image.open(file)) for file in images["file"]]))
    # V2's 40 classes are all of the model's outputs that mini has.
    groups = [group[0] for group in rib.results.images.spec_of("imagenet_v2", run.metrics).groups]
    assert np.array_equal(found[:, groups].argmax(dim=1), stored.top5[:, 0])


@pytest.mark.slow
def test_runs_of_merging_methods(toy, tmp_path):
    options = {**toy.options, "runs": tmp_path}
    ensemble = rib.finetune({"output_ensemble": {"ingredients": ["pretrained", "finetune"]}}, **options)
    with pytest.raises(rib.RibError, match="is a run of output_ensemble, whose weights cannot be used: it has pred"):
        ensemble.model()
    with pytest.raises(rib.RibError, match="has no weights of its own: its method, output_ensemble, combines pred"):
        ensemble.weights()
    curve = rib.finetune({"wise_ft": {"curve": [0.5, 1.0]}}, **options)
    assert curve.figure("curve").axes and "wise_ft" in repr(curve)
    assert curve.command.startswith("python -m rib.train +method=wise_ft") and "steps=4" in curve.command
    with pytest.raises(rib.RibError, match="this run has no figure 'loss'; it has change, curve"):
        curve.figure("loss")


@pytest.mark.slow
def test_what_cannot_be_built_is_said(toy, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(toy.root, store)
    copied = rib.load(toy.plain.key, runs=store)
    with copied.run.weights_file.open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"abcd")
    with pytest.raises(rib.RibError, match=r"is damaged .*make it again with python -m rib.train .*force=true"):
        copied.model()
    copied.run.weights_file.unlink()
    with pytest.raises(rib.RibError, match=r"has no weights.* make it again with python -m rib.train"):
        copied.weights()
    predictions = next((copied.folder / "predictions").glob("imagenet_r.*"))
    predictions.write_bytes(b"damaged")
    with pytest.raises(rib.RibError, match=r"score its run again with python -m rib.evaluate runs=.*force=true"):
        copied.predictions("imagenet_r")
    shutil.rmtree(copied.before.folder)
    with pytest.raises(rib.RibError, match=r"is gone; make it again with python -m rib.train \+method=pretrained"):
        rib.load(toy.plain.key, runs=store).before  # noqa: B018
    assert rib.load(toy.plain.key, runs=store)._repr_html_()  # what needs nothing else still shows


def test_its_pretrained_run_is_the_baseline_of_its_accuracies(toy):
    before = toy.plain.before
    assert before.metrics["method"] == "pretrained" and before.before is None
    assert before == toy.ewc.before
    for name, entry in toy.plain.metrics["accuracy"].items():
        assert before.predictions(name).accuracy == entry["before"], name
        assert toy.plain.predictions(name).accuracy == entry["after"], name


def test_its_table_is_its_metrics(toy):
    table, metrics = toy.plain.table(), toy.plain.metrics
    assert list(table.index) == list(metrics["accuracy"])
    assert table.columns.tolist() == ["role", "images", "before", "after", "change", "low", "high"]
    assert set(table.index[table["role"] == "target"]) == set(metrics["robustness_improvement"]["targets"])
    assert table.index[table["role"] == "source"].tolist() == ["imagenet_a"]
    assert np.allclose(table["after"] - table["before"], table["change"])
    assert np.isclose(table[table["role"] == "target"]["change"].mean(), toy.plain.ri.value)
    assert (toy.plain.ri.low, toy.plain.ri.high) == tuple(
        metrics["robustness_improvement"][end] for end in ("low", "high")
    )


def test_its_images_are_files_with_classes_in_english(toy):
    images = toy.plain.images("imagenet_r")
    first = images.iloc[0]
    assert images.index[0] in first["file"] and first["label"] == "goldfish"
    assert np.array_equal(images["correct"], images["label"] == images["predicted"])
    assert images["correct"].mean() == toy.plain.metrics["accuracy"]["imagenet_r"]["after"]
    with pytest.raises(rib.RibError, match=r"was not scored on imagenet_rr; did you mean imagenet_r\?"):
        toy.plain.predictions("imagenet_rr")
    with pytest.raises(rib.RibError, match="was not scored on imagenet_c"):
        toy.plain.images("imagenet_c")


def test_its_figures_show_in_a_notebook(toy):
    for kind in ("change", "loss"):
        figure = toy.plain.figure(kind)
        assert isinstance(figure, Figure)
        picture, shown = figure._repr_png_()
        assert picture[:4] == b"\x89PNG" and shown["width"] == round(96 * figure.get_figwidth())
    assert toy.plain.figure(width=3.3).get_figwidth() == 3.3
    with pytest.raises(rib.RibError, match=r"width: expected inches from 2.5 to 20, such as 3.3, or None; got 0"):
        toy.plain.figure(width=0)
    assert toy.plain.figure(title=False, width=3.3).get_suptitle() == "toy data (mini)"
    with pytest.raises(rib.RibError, match="this run has no figure 'curve'; it has change, loss"):
        toy.plain.figure("curve")


def test_it_shows_as_a_table_that_says_what_it_is_of(toy, monkeypatch):
    page = Cells(toy.plain._repr_html_())
    text = " ".join(text for _, text in page.texts)
    for said in (
        "mini_tiny, finetune on",
        "RI ",
        "mini",
        "at most 40 images",
        toy.plain.key,
        "(source)",
        "(not in RI)",
    ):
        assert said in text, said
    rows = [text for tag, text in page.texts if tag == "td"]
    assert len(rows) == 5 * len(toy.plain.metrics["accuracy"])
    pretrained = Cells(toy.plain.before._repr_html_())
    assert "RI" not in " ".join(text for _, text in pretrained.texts)
    monkeypatch.setitem(toy.plain.metrics, "model", "<b>mine</b>")
    assert "&lt;b&gt;mine&lt;/b&gt;, finetune" in toy.plain._repr_html_()


def test_in_text_it_is_one_line(toy):
    assert repr(toy.ewc).startswith(f"<FinishedRun {toy.ewc.key}: mini_tiny, ewc on ")
    assert ", RI " in repr(toy.ewc) and "\n" not in repr(toy.ewc)
    assert isinstance(toy.ewc.run, Run)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert toy.ewc != toy.plain and toy.ewc == rib.load(toy.ewc.folder)
