"""`rib.analyze` on a run of the built-in data: printed lines, files, cache and error messages."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from rib.analysis import analyze, layer_cka
from rib.analysis import cka as cka_module
from rib.analysis.cka import Pair
from rib.analysis.compare import compare as compare_models
from rib.analysis.figures import by_block, curve_figure
from rib.analysis.stir import invert, stir
from rib.analysis.subject import Subject
from rib.config import compose
from rib.config.check import check_config
from rib.config.command_schema import AnalyzeConfig, CKAConfig, InversionConfig
from rib.config.composition import load_config
from rib.config.schema import PathsConfig
from rib.config.shipped import options
from rib.config.unchecked import compose_node
from rib.data.identity import FileIdentity
from rib.errors import RibError
from rib.models.adapters import add_low_rank, merge_low_rank, plain_weights, sites
from rib.models.classifier import Classifier
from rib.models.mini import build_mini
from rib.models.weights import StoredWeights, equal
from rib.pipeline import finetune
from rib.runs.resolve import resolve
from rib.runs.run import Run
from rib.runtime import content
from rib.runtime.files import file_digest
from tests.support.nets import HALF, random_images, small_convnet, small_vit

pytestmark = pytest.mark.usefixtures("no_progress")

QUICK = ("model=mini_tiny", "epochs=2", "data.images_per_class=4", "suite.targets=[imagenet_a,imagenet_r]")
EPOCHS = "checkpoint.keep_epochs=true"


@pytest.fixture(scope="module")
def made(tmp_path_factory, cache) -> Run:
    """One run with the weights of its epochs; tests that write into it copy its store."""
    store = tmp_path_factory.mktemp("store") / "runs"
    places = (f"paths.runs={store}", f"paths.cache={cache}", "trainer=cpu", "data.root=null")
    return finetune(compose(*places, *QUICK, EPOCHS, "+method=finetune"))


@pytest.fixture
def run(made, tmp_path) -> Run:
    root = made.folder.parents[4]
    shutil.copytree(root, tmp_path / "runs")
    return Run(tmp_path / "runs" / made.folder.relative_to(root))


@pytest.fixture
def asked(run, cache):
    """The config of one question about the run."""

    def make(kind: type = CKAConfig, **given) -> CKAConfig:
        return kind(run=str(run.folder), device="cpu", paths=PathsConfig("runs", str(cache)), **given)

    return make


def mini(seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(build_mini(), HALF, HALF).eval()


def images(count: int, side: int = 48) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def between(one: Classifier, other: Classifier, side: int = 48, **how):
    batches = [(images(24, side), images(24, side)), (images(30, side), images(30, side))]
    return compare_models(one, other, batches, **{"tokens": ("mean", "mean"), "num_images": 54, **how})


@pytest.mark.slow
def test_a_run_against_its_start_leaves_table_figures_and_arrays(asked, run, capsys):
    file = analyze(asked(datasets=["imagenet_val", "imagenet_a"], images=100))
    assert file == run.folder / "analysis" / "cka.csv"
    table = pd.read_csv(file)
    assert list(table.columns) == ["layer", "cka", "low", "high", "note"]
    parts = [".attn.proj", ".mlp.fc1", ".mlp.fc2", ""]
    assert list(table["layer"]) == [f"blocks.{i}{part}" for i in range(4) for part in parts]
    assert ((table["low"] <= table["cka"]) & (table["cka"] <= table["high"]) & (table["high"] <= 1)).all()
    assert table["cka"].min() < 0.999
    front = {path.name for path in file.parent.iterdir() if path.is_file()}
    drawn = ("png", "pdf", "txt")
    ends = ("cka{}.csv", "cka{}.npz", *(f"cka_heatmap{{}}.{ending}" for ending in drawn))
    files = {end.format(s) for end in ends for s in ("", ".imagenet_a")}
    assert front == files | {f"cka.{ending}" for ending in drawn}
    with np.load(file.with_suffix(".npz")) as arrays:
        assert arrays["defined"].all()
        np.testing.assert_allclose(arrays["cka"].diagonal(), table["cka"], atol=1e-8)
        assert list(arrays["one"]) == list(arrays["other"]) == list(table["layer"])
    assert "mini val, 100 images in 4 batches, tokens cls/cls: mean CKA" in capsys.readouterr().out


def test_a_data_root_for_toy_data_is_refused(run):
    config = AnalyzeConfig(str(run.folder))
    config.data.root = "/data"
    with pytest.raises(RibError, match=r"data.root=/data: .* is a run on toy data \(mini\), .*; leave data.root out"):
        Subject.of(run.folder, config)


def test_its_own_weights_give_one_everywhere(asked, run):
    found = layer_cka(asked(against=str(run.folder), images=40))
    assert (found.table["cka"] == 1).all()
    assert found.mean == 1


@pytest.mark.slow
def test_the_same_question_is_answered_from_the_folder_without_torch(asked, run, cache):
    first = analyze(asked(images=40)).read_bytes()
    code = (
        "import sys; from rib.analyze import main; main(); "
        "sys.exit(any(m.split('.')[0] in ('torch', 'lightning') for m in sys.modules))"
    )
    arguments = [f"run={run.folder}", "images=40", f"paths.cache={cache}", "device=cpu"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(run.folder / "analysis" / "cka.csv")
    assert (run.folder / "analysis" / "cka.csv").read_bytes() == first
    analyze(asked(images=44))
    assert len(list((run.folder / "analysis" / "cka").iterdir())) == 2


def test_a_run_made_before_an_option_was_there_can_still_be_read(run):
    file = run.folder / "config.yaml"
    config = load_config(file)
    assert config.checkpoint.keep_epochs
    file.write_text(file.read_text().replace("  keep_epochs: true\n", ""))
    assert not load_config(file).checkpoint.keep_epochs
    assert load_config(file).model == config.model
    file.write_text("model: 3\n")
    with pytest.raises(RibError, match=r"config\.yaml cannot be read by this version of rib"):
        load_config(file)


def test_images_come_in_no_order_of_classes_and_no_batch_is_small(asked):
    pair = cka_module.Pair.of(asked(images=101, batch_size=32, seed=3))
    tree = pair.tree("imagenet_val")
    indices = pair.batch_indices(tree)
    assert [len(batch) for batch in indices] == [26, 25, 25, 25]
    assert all(len(set(tree.labels[batch])) > 5 for batch in indices)
    assert set(tree.sample(50, 3)) < set(tree.sample(101, 3)) != set(tree.sample(101, 4))
    few = cka_module.Pair.of(asked(images=10, batch_size=4))
    assert [len(batch) for batch in few.batch_indices(tree)] == [5, 5]


def test_noise_in_one_block_shows_there_first():
    one, other = mini(), mini()
    with torch.no_grad():
        weight = other.backbone.blocks[2].mlp.fc1.weight
        weight += 2 * weight.std() * torch.randn(weight.shape, generator=torch.Generator().manual_seed(5))
    found = between(one, other).layers
    names = list(found)
    changed = names.index("blocks.2.mlp.fc1")
    assert [found[name][0].value for name in names[:changed]] == pytest.approx([1.0] * changed, abs=1e-12)
    assert all(found[name][0].value < 0.98 for name in names[changed : changed + 2])


@pytest.mark.parametrize("estimator", ["minibatch", "exact"])
def test_constant_and_unused_layers_are_marked_and_nothing_is_nan(estimator, recwarn):
    one, other = mini(), mini(1)
    with torch.no_grad():
        other.backbone.blocks[1].attn.proj.weight.zero_()
    other.backbone.blocks[3].mlp.forward = lambda x: 0.5 * x
    found = between(one, other, estimator=estimator)
    notes = {name: note for name, (_, note) in found.layers.items() if note}
    assert notes == {
        "blocks.1.attn.proj": "constant",
        "blocks.3.mlp.fc1": "unused",
        "blocks.3.mlp.fc2": "unused",
    }
    assert np.isfinite(found.cka).all()
    assert (~found.defined).sum() == 3 * 16
    assert all((estimate is None) == bool(note) for estimate, note in found.layers.values())


def test_two_architectures_have_a_heat_map_and_the_names_they_share():
    found = between(small_vit(), small_convnet(), side=16)
    assert found.layers == {}
    assert found.cka.shape == (8, 2)
    assert found.defined.all()
    facts = {"dataset": "imagenet_val", "kind": "mini", "images": 54, "estimator": "minibatch"}
    empty = pd.DataFrame(columns=["layer", "cka", "low", "high", "note"])
    about = {**facts, "run_label": "a", "against_label": "b"}
    (axes,) = curve_figure([(empty, about)]).axes
    assert "share no layer name" in axes.texts[0].get_text()


def test_names_that_are_blocks_of_one_list():
    assert by_block(["blocks.0.mlp.fc1", "blocks.0", "blocks.1"]) == [
        (0, "mlp.fc1"),
        (0, "block output"),
        (1, "block output"),
    ]
    assert by_block(["layer1.0", "layer1", "layer2.0"]) is None
    assert by_block(["stages.0.blocks.0", "stages.0"]) is None


def test_exact_says_what_it_needs_and_refuses_beyond_the_machine(monkeypatch):
    monkeypatch.setattr(sys.modules["rib.analysis.compare"], "available_memory", lambda: 10**6)
    numbers = 2 * 2 * (24 + 96 + 24 + 24)
    with pytest.raises(RibError, match=rf"estimator=exact needs 0\.0 GB for {numbers} features of 3,000 images"):
        between(small_vit(), small_vit(1), side=16, estimator="exact", num_images=3000)


@pytest.mark.slow
def test_epochs_are_kept_and_followed(asked, made):
    kept = {int(file.stem): StoredWeights(file) for file in (made.folder / "epochs").iterdir()}
    assert sorted(kept) == [1, 2]
    assert equal(kept[2], StoredWeights(made.weights_file))
    assert not equal(kept[1], kept[2])
    analyze(asked(images=40, checkpoints=True))
    front = Path(asked().run) / "analysis"
    table = pd.read_csv(front / "cka_epochs.csv")
    assert list(table.columns) == ["epoch", "layer", "cka", "low", "high", "note"]
    last = table[table["epoch"] == 2].drop(columns="epoch").reset_index(drop=True)
    pd.testing.assert_frame_equal(last, pd.read_csv(front / "cka.csv"))
    means = table.groupby("epoch")["cka"].mean()
    assert means[2] < means[1] < 1


def test_keeping_epochs_is_in_no_key(ask_for):
    assert resolve(ask_for(*QUICK, EPOCHS)).training_key == resolve(ask_for(*QUICK)).training_key


def test_a_checkpoint_under_lora_has_the_updates_folded_in_and_leaves_them_as_they_are():
    net, generator = small_vit().backbone, torch.Generator().manual_seed(0)
    for target in ("q", "v", "mlp"):
        for site in sites(net)[target]:
            add_low_rank(site, 2, 0.5, generator)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith(".b"):
                parameter.normal_(generator=generator)
    names = set(net.state_dict())
    found = plain_weights(net)
    assert set(net.state_dict()) == names
    merge_low_rank(net)
    assert equal(found, net.state_dict())


def test_inversion_finds_what_a_model_cannot_tell_apart():
    model, given = small_vit(), random_images(12)
    how = InversionConfig(steps=80)
    found, residual = invert(model.requires_grad_(False), given, how, seed=0)
    _, at_first = invert(model, given, InversionConfig(steps=1), seed=0)
    assert residual < 0.2 * at_first
    assert found.aminmax().min >= 0
    assert found.aminmax().max <= 255
    assert (found - given).abs().mean() > 20, "another image than the given one"
    (itself, *_), _ = stir(model, model, given, how, 0, lambda *_: None)
    (stranger, *_), _ = stir(small_vit(7).requires_grad_(False), model, given, how, 0, lambda *_: None)
    print(f"STIR with itself {itself:.3f}, with other random weights {stranger:.3f}; residual {residual:.3f}")
    assert itself > 0.95
    assert stranger < itself - 0.2


@pytest.mark.slow
def test_stir_stands_beside_cka(asked):
    analyze(asked(images=40, stir=True, inversion=InversionConfig(images=12, steps=3)))
    table = pd.read_csv(Path(asked().run) / "analysis" / "stir.csv")
    assert list(table.columns) == ["model", "given", "stir", "low", "high", "cka", "residual", "images"]
    assert list(table["model"]) == list(table["given"])[::-1]
    assert table["cka"][0] == pytest.approx(table["cka"][1])


@pytest.mark.slow
def test_a_run_made_again_under_its_key_is_analysed_again(asked, run):
    """With ``force=true`` and another library, say; what it is compared with does not lie in its own folder."""
    (before,) = run.folder.parents[2].glob("none/pretrained/*")

    def analysed():
        return [pd.read_csv(analyze(config)) for config in (asked(images=40), asked(AnalyzeConfig))]

    first = analysed()
    weights = Run(before).weights()
    shaken = {n: t + 0.1 * torch.randn(t.shape, generator=torch.Generator().manual_seed(0)) for n, t in weights.items()}
    save_file(shaken, Run(before).weights_file)
    fit = {**Run(before).read_json("fit.json"), "weights": file_digest(Run(before).weights_file)}
    Run(before).write_json("fit.json", fit)
    assert not any(one.equals(other) for one, other in zip(first, analysed(), strict=True))


def test_an_analysis_reads_only_the_images_that_it_shows(asked, run, monkeypatch):
    tree = Subject.of(run.folder, asked()).tree("imagenet_val")
    real = replace(tree, drawn=None, file_identity=FileIdentity())
    read = []
    monkeypatch.setattr(Subject, "tree", lambda self, dataset: real)
    monkeypatch.setattr(content, "_digest", lambda file: read.append(file) or b"x" * 16)
    Pair.of(asked(images=40)).key_fields("imagenet_val")
    images = {file for file in read if file.suffix != ".safetensors"}
    assert images == {real.folder / real.paths[place] for place in real.sample(40, 0)}


def test_drift_is_the_distance_of_each_layers_weights(asked, run):
    table = pd.read_csv(analyze(asked(AnalyzeConfig))).set_index("layer")
    assert list(table.index) == ["embedding", *(f"blocks.{i}" for i in range(4)), "head"]
    (before,) = run.folder.parents[2].glob("none/pretrained/*")
    end, start = run.weights(), Run(before).weights()
    here = [name for name in end if name.startswith("blocks.1.")]
    after, at_first = (torch.cat([w[name].flatten().double() for name in here]) for w in (end, start))
    assert table.loc["blocks.1", "drift"] == pytest.approx(float((after - at_first).norm() / at_first.norm()), rel=1e-6)
    assert table["parameters"].sum() == sum(t.numel() for t in end.values())


def edited(run: Run, **changes) -> None:
    file = run.folder / "metrics.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("output_ensemble", "it has predictions and no weights"),
        ("lwf+visual_prompt", "its prompt is stored beside the weights"),
    ],
)
def test_runs_without_weights_of_their_own_are_refused_by_name(asked, run, method, reason):
    edited(run, method=method)
    for kind in (CKAConfig, AnalyzeConfig):
        with pytest.raises(
            RibError, match=f"is a run of {method.split('+')[-1]}, whose weights cannot be used: {reason}"
        ):
            analyze(asked(kind))


WRONG = [
    ({"datasets": ["imagenet_x"]}, r"datasets: there is no 'imagenet_x'; expected any of .*imagenet_val"),
    ({"datasets": []}, r"datasets: expected at least one"),
    ({"tokens": "class"}, r"tokens: expected one of null, cls, mean, all, got 'class'"),
    ({"estimator": "fast"}, r"estimator: expected one of minibatch, exact, got 'fast'"),
    ({"images": 3}, r"images: expected at least 4 images, which unbiased HSIC needs, got 3"),
    ({"against": "nowhere"}, r"against: expected the folder of a finished run, with metrics\.json, got nowhere"),
]


@pytest.mark.parametrize(("given", "sentence"), WRONG, ids=[str(g) for g, _ in WRONG])
def test_mistakes_are_one_sentence(asked, given, sentence):
    with pytest.raises(RibError, match=sentence):
        analyze(asked(**given))


@pytest.mark.slow
def test_what_is_gone_says_how_to_make_it(asked, run):
    shutil.rmtree(run.folder / "epochs")
    with pytest.raises(
        RibError, match=r"make it again with python -m rib\.train .*checkpoint\.keep_epochs=true .*force=true"
    ):
        analyze(asked(images=8, checkpoints=True))
    shutil.rmtree(run.folder.parents[2] / "none")
    with pytest.raises(RibError, match=r"make it again with python -m rib\.train \+method=pretrained model=mini_tiny"):
        analyze(asked())


@pytest.mark.parametrize("name", options("analysis"))
def test_every_analysis_of_conf_has_the_defaults_of_its_schema(name):
    config = check_config(
        compose_node("analyze", f"analysis={name}", "run=x"), CKAConfig if name == "cka" else AnalyzeConfig
    )
    default = {"cka": CKAConfig, "drift": AnalyzeConfig}[name](run="x")
    for unlike in ("paths", "logger"):
        assert asdict(config).keys() == asdict(default).keys()
        setattr(default, unlike, getattr(config, unlike))
    assert config == default


def test_a_run_is_named_or_it_is_one_sentence():
    done = subprocess.run([sys.executable, "-m", "rib.analyze"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "rib: run: this option has no default; add run=VALUE\n"
