"""Pairs of commands that must have the same key, or different ones: order, paths, environment, content, processes."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from rib.config import user_code
from rib.data.catalog import Catalog, real
from rib.errors import RibError
from rib.methods.base import Method
from rib.pipeline import finetune
from rib.runs.fields import fisher_key
from rib.runs.freshness import metrics_if_current
from rib.runs.method_stack import LEAVE_THE_START
from rib.runs.resolve import resolve
from rib.runs.spec import RunSpec
from rib.runs.store import RunStore
from rib.runtime.weights_file import weights_file_digest
from tests.data.trees import few, fill

QUICK = ("model=mini_tiny", "data.limit=60", "epochs=1")

METHOD = """\"\"\"A method of the user's.\"\"\"
import helper
from rib.methods.base import Method

class Mine(Method):
    def __init__(self, strength=1.0, table="", version=None):
        self.strength = strength

    def after_step(self, module):
        for p in module.parameters():
            p.data.mul_(1 - helper.SHARE * self.strength)
"""


@pytest.fixture
def spec(ask_for):
    return lambda *overrides: resolve(ask_for(*QUICK, *overrides))


@pytest.fixture
def key(spec):
    """The training key as a new process would find it, which has imported nothing of the user's."""

    def find(*overrides: str) -> str:
        forget()
        return spec(*overrides).training_key

    return find


def forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("my_methods", "helper", "pack")]:
        del sys.modules[name]
    user_code._seen.clear()


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder with the user's own method, and the overrides that name it."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "my_methods.py").write_text(METHOD)
    (tmp_path / "code" / "helper.py").write_text("SHARE = 0.001\n")
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    forget()
    yield tmp_path / "code"
    forget()


MINE = "+method.mine._target_=my_methods.Mine"


@pytest.mark.slow
def test_methods_have_one_order_whatever_the_order_of_the_command(key, mine):
    assert key("+method=[spd,ftp]") == key("+method=[ftp,spd]")
    assert key("+method=[lwf,ewc,ema]") == key("+method=[ema,lwf,ewc]")
    assert key("+method=[ewc,wise_ft]") == key("+method=[wise_ft,ewc]")
    assert key("+method=spd", MINE) == key(MINE, "+method=spd")
    assert key("+method=[spd,ftp]") != key("+method=spd")


@pytest.mark.slow
@pytest.mark.parametrize("names", ["spd,ftp", "lora,lp_ft", "other_start,lora", "ema,freeze_embed"])
def test_both_orders_train_the_same_weights(ask_for, tmp_path, names):
    weights = []
    for number, order in enumerate((names, ",".join(reversed(names.split(","))))):
        config = ask_for(*QUICK, f"+method=[{order}]", f"paths.runs={tmp_path / str(number)}")
        weights.append(weights_file_digest(finetune(config).weights_file))  # of the tensors alone
    assert weights[0] == weights[1]


def test_the_order_of_options_does_not_matter(key):
    assert key("seed=1", "clip=1.0") == key("clip=1.0", "seed=1")


def test_what_leaves_the_start_alone_is_told_by_its_class():
    import rib.methods as methods
    from rib.config.shipped import shipped_nodes

    assert methods is not None
    from hydra.utils import get_object

    for name, node in shipped_nodes("method").items():
        if "_target_" in node and "ingredients" not in node:
            method = get_object(node["_target_"])
            assert issubclass(method, Method)
            assert (method.order > 0) == (name in LEAVE_THE_START), name


def test_an_edit_of_a_users_method_is_another_run_and_a_comment_is_none(key, mine):
    before = key(MINE)
    file = mine / "my_methods.py"
    file.write_text(METHOD.replace('of the user\'s."""', 'of mine."""') + "# a comment\n\n")
    assert key(MINE) == before
    file.write_text(METHOD.replace("1 - helper", "1 + helper"))
    assert key(MINE) != before
    file.write_text(METHOD)
    assert key(MINE) == before


def test_an_edit_of_what_a_users_method_imports_is_another_run(key, mine):
    before = key(MINE)
    (mine / "helper.py").write_text("SHARE = 0.002\n")
    assert key(MINE) != before


def test_imports_are_followed_through_packages_and_relative_names(key, mine):
    package = mine / "pack" / "inner"
    package.mkdir(parents=True)
    (mine / "pack" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("from . import other\n")
    (package / "other.py").write_text("X = 1\n")
    (package / "methods.py").write_text("from ..base import Mine\n")
    (mine / "pack" / "base.py").write_text(METHOD)
    before = key("+method.mine._target_=pack.inner.methods.Mine")
    for file, text in ((package / "other.py", "X = 2\n"), (mine / "pack" / "base.py", METHOD + "Y = 1\n")):
        file.write_text(text)
        now = key("+method.mine._target_=pack.inner.methods.Mine")
        assert now != before, file
        before = now


def test_a_module_of_the_same_name_elsewhere_on_the_path_is_other_code(key, mine, tmp_path, monkeypatch):
    before = key(MINE)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "my_methods.py").write_text(METHOD.replace("0.001", "0.1").replace("1 - ", "1 + "))
    monkeypatch.syspath_prepend(str(tmp_path / "other"))
    assert key(MINE) != before


def test_the_users_code_wherever_it_lies_is_the_same_run(key, mine, tmp_path, monkeypatch):
    before = key(MINE)
    shutil.copytree(mine, tmp_path / "moved")
    monkeypatch.syspath_prepend(str(tmp_path / "moved"))
    assert key(MINE) == before


def test_a_version_tells_apart_what_imports_cannot(key, mine):
    keys = {key(MINE), key(MINE, "+method.mine.version=1"), key(MINE, "+method.mine.version=2")}
    assert len(keys) == 3


def test_a_version_goes_with_rib_s_own_methods_too(spec):
    assert spec("+method=ewc", "+method.ewc.version=a").training_key != spec("+method=ewc").training_key


def test_files_named_in_options_are_told_by_content(key, mine, tmp_path):
    file, moved = tmp_path / "table.csv", tmp_path / "moved.csv"
    file.write_text("1,2\n")
    before = key(MINE, f"+method.mine.table={file}")
    moved.write_text("1,2\n")
    assert key(MINE, f"+method.mine.table={moved}") == before
    file.write_text("1,3\n")
    assert key(MINE, f"+method.mine.table={file}") != before


def test_a_class_of_a_script_or_notebook_is_one_sentence(spec):
    with pytest.raises(RibError, match=r"save it in a \.py file"):
        spec("+method.mine._target_=__main__.Mine")


@pytest.mark.slow
def test_code_edited_after_it_was_imported_is_refused(spec, ask_for, mine):
    finetune(ask_for(*QUICK, MINE))
    (mine / "my_methods.py").write_text(METHOD.replace("1 - helper", "1 + helper"))
    with pytest.raises(RibError, match="was changed after this process had imported it"):
        spec(MINE)


@pytest.mark.slow
def test_a_run_keeps_the_users_code_and_says_it(ask_for, mine):
    run = finetune(ask_for(*QUICK, MINE))
    assert (run.folder / "code" / "my_methods.py").read_text() == METHOD
    assert (run.folder / "code" / "helper.py").is_file()
    assert len(run.metrics()["options"]["method.mine.code"]) == 16
    assert run.read_json("env.json")["versions"]["torch"] == metadata.version("torch")


def test_a_class_is_known_by_its_registered_name(key):
    own = ("+method.mine._target_=rib.methods.ewc.EWC", "+method.mine.strength=1.0")
    assert key(*own) == key("+method=ewc")


@pytest.mark.slow
def test_a_folder_of_images_is_told_by_its_content_wherever_the_command_is_given(key, tmp_path, monkeypatch):
    for place, number in (("one", 0), ("two", 1), ("three", 0)):
        fill(
            tmp_path / place / "extra", ["a"], write=lambda file, n, number=number: file.write_bytes(bytes(9 + number))
        )
    found = {}
    for place in ("one", "two", "three"):
        monkeypatch.chdir(tmp_path / place)
        found[place] = key("+method=lwf", "method.lwf.inputs=extra")
        assert found[place] == key("+method=lwf", f"method.lwf.inputs={tmp_path / place / 'extra'}")
    assert found["one"] == found["three"] != found["two"]


def test_a_word_of_rib_s_is_no_folder_that_happens_to_be_there(key, tmp_path, monkeypatch):
    before = key("+method=lwf"), key("+method=ewc")
    fill(tmp_path / "source", ["a"])
    fill(tmp_path / "diagonal", ["a"])
    monkeypatch.chdir(tmp_path)
    assert (key("+method=lwf"), key("+method=ewc")) == before


def test_weights_are_told_by_their_content(key, tmp_path, monkeypatch):
    mini = Path(__file__).resolve().parents[2] / "rib" / "models" / "mini_weights"
    for place, name in (("one", "mini_tiny"), ("two", "mini_small")):
        (tmp_path / place).mkdir()
        shutil.copy(mini / f"{name}.safetensors", tmp_path / place / "mine.safetensors")
    found = []
    for place in ("one", "two"):
        monkeypatch.chdir(tmp_path / place)
        found.append(key("model.weights=mine.safetensors"))
    assert found[0] == key() != found[1]


def test_paper_switches_leave_alone_what_the_command_says(spec):
    switched = spec("+method=ewc", "paper.ewc=identity")
    held = spec("+method=ewc", "paper.ewc=identity", "method.ewc.strength=1.0")
    assert switched.config.method["ewc"]["strength"] == 2.0
    assert held.config.method["ewc"]["strength"] == 1.0
    assert held.options["method.ewc.strength"] == 1.0
    assert switched.training_key != held.training_key
    # Read again from a run's config.yaml it is the same.
    assert resolve(held.config).config.method == held.config.method
    rule = spec("dataset=objectnet", "paper.objectnet=authors", "data.label_rule=max")
    assert str(rule.config.data.label_rule) == "max"
    assert rule.options["data.label_rule"] == "max"
    for text, strength in (("ewc", 2.0), ("ewc method.ewc.strength=1.0", 1.0)):
        (part,) = spec("+method=soup", "paper.ewc=identity", f"method.soup.ingredients=['{text}']").ingredients
        assert part.spec.config.method["ewc"]["strength"] == strength


def test_precision_is_the_one_that_runs(spec):
    asked = spec("precision=16-mixed")
    assert asked.protocol["precision"] == "bf16-mixed"
    assert asked.training_key == spec("precision=bf16-mixed").training_key
    assert spec("precision=32").training_key == spec().training_key


def test_a_suite_is_its_datasets_and_not_its_name(spec):
    plain, fewer = spec(), spec("suite.targets=[imagenet_v2,imagenet_a]")
    assert (plain.suite, fewer.suite) == ("seven", "seven*")
    assert spec("suite.targets=[imagenet_a,imagenet_v2]").protocol == fewer.protocol


@pytest.mark.slow
def test_a_changed_suite_is_measured_for_itself(ask_for):
    """On one run: RI over six targets, over two of them, and over six again."""
    rest = "[imagenet_val,imagenet_r,imagenet_sketch,objectnet,imagenet_cartoon,imagenet_drawing]"
    fewer = ("suite.targets=[imagenet_v2,imagenet_a]", f"suite.reported={rest}")
    run = finetune(ask_for(*QUICK))
    six = run.metrics()
    assert finetune(ask_for(*QUICK, *fewer)) == run
    two = metrics_if_current(run, resolve(ask_for(*QUICK, *fewer)))
    assert two["robustness_improvement"]["targets"] == ["imagenet_v2", "imagenet_a"]
    assert two["suite"] == "seven*"
    entries = [two["accuracy"][name] for name in ("imagenet_v2", "imagenet_a")]
    changes = [100 * (entry["after"] - entry["before"]) for entry in entries]
    assert two["robustness_improvement"]["value"] == pytest.approx(sum(changes) / 2)
    assert metrics_if_current(run, resolve(ask_for(*QUICK))) == six
    # Two changed suites of one name lie beside one another.
    finetune(ask_for(*QUICK, "suite.targets=[imagenet_v2]"))
    assert len(run.all_metrics()) == 3


def real_data(monkeypatch, tmp_path) -> tuple[str, ...]:
    specs = {name: few(name) for name in ("imagenet_a", "imagenet_r")}
    monkeypatch.setattr("rib.data.catalog.real", lambda: Catalog("user", real().outputs, specs))
    for spec in specs.values():
        fill(tmp_path / "data" / spec.folders[0], spec.classes)
    (tmp_path / "weights.pth").write_bytes(b"told by its digest")
    suite = ("suite.targets=[imagenet_a,imagenet_r]", "suite.reported=[]", "data.limit=null")
    return (f"data.root={tmp_path / 'data'}", *suite, f"model.weights={tmp_path / 'weights.pth'}")


@pytest.mark.parametrize(
    ("model", "more", "same"),
    [
        ("resnet10t", (), False),  # each process moves statistics of its own
        ("resnet10t", ("batch_norm=frozen",), True),
        ("resnet10t", ("trainer.sync_batchnorm=true",), True),
        ("vit_tiny_patch16_224", (), True),
        ("swin_tiny_patch4_window7_224", (), False),  # stochastic depth by default, drawn by each process
    ],
)
def test_processes_are_in_the_key_where_they_matter(key, tmp_path, monkeypatch, model, more, same):
    data = real_data(monkeypatch, tmp_path)
    common = (*data, f"model=timm model.name={model}".split()[0], f"model.name={model}", *more)
    two = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    assert (key(*common) == key(*common, *two)) == same


def test_a_users_method_on_two_processes_is_another_run(key, mine):
    assert key(MINE) != key(MINE, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")


@pytest.mark.slow
def test_what_chooses_by_scores_depends_on_their_precision(key):
    half = "evaluation.precision=bf16-mixed"
    choose = ("+method=wise_ft", "method.wise_ft.choose=true", "data.holdout=0.3", "data.limit=120")
    greedy = ("+method=soup", "method.soup.choice=greedy", "data.holdout=0.3", "data.limit=120")
    for command, same in ((("+method=wise_ft",), True), (choose, False), (greedy, False)):
        assert (key(*command) == key(*command, half)) == same


@pytest.mark.slow
def test_a_fisher_is_of_classes_and_cropping_as_well(spec):
    def fisher(*overrides: str) -> str:
        return fisher_key(spec("+method=ewc", *overrides), None)

    objectnet = ("dataset=objectnet",)
    assert fisher(*objectnet) != fisher(*objectnet, "data.label_rule=authors")
    assert fisher(*objectnet) != fisher(*objectnet, "paper.objectnet_loss=unrestricted")
    c = ("dataset=imagenet_c", "suite=paper")
    assert fisher(*c) != fisher(*c, "paper.resize_imagenet_c=true")
    assert fisher() == fisher("seed=1", "optimizer.lr=0.1", "epochs=2", "method.ewc.strength=3.0")
    assert fisher() != fisher_key(spec("+method=[ewc,freeze_embed]"), None)


def test_the_environment_is_told_by_what_it_leads_to(spec, tmp_path, monkeypatch):
    before = spec().training_key
    monkeypatch.setenv("RIB_CACHE", str(tmp_path / "other"))
    monkeypatch.setenv("RIB_DATA", "")
    assert spec().training_key == before


@pytest.mark.slow
def test_a_copied_touched_or_moved_data_set_is_the_same_run(spec, tmp_path, monkeypatch):
    data = real_data(monkeypatch, tmp_path)
    common = ("model=timm", "model.name=vit_tiny_patch16_224", *data)
    before = spec(*common)
    shutil.copytree(tmp_path / "data", tmp_path / "copied")
    for file in (tmp_path / "data").rglob("*.JPEG"):
        os.utime(file)
    for root in ("data", "copied"):
        now = spec(*common, f"data.root={tmp_path / root}")
        assert (now.training_key, now.score_keys) == (before.training_key, before.score_keys)


@pytest.mark.slow
def test_a_merged_run_follows_its_ingredients(ask_for, capsys):
    """An ingredient made again with other weights under its key: the merged run says so and is made again."""
    soup = ask_for(*QUICK, "+method=wise_ft")
    run = finetune(soup)
    store = RunStore(soup.paths.runs)
    part = store.one(method="finetune")
    used = run.metrics()["ingredients"][0]["weights"]
    assert used == part.read_json("fit.json")["weights"]
    before = run.metrics()["accuracy"]

    state = {name: tensor * 0.5 for name, tensor in part.weights().items()}
    from rib.models.weights import save_weights
    from rib.runtime.files import file_digest

    save_weights(state, part.weights_file)
    part.write_json("fit.json", {**part.read_json("fit.json"), "weights": file_digest(part.weights_file)})
    assert metrics_if_current(run, resolve(soup)) is None
    capsys.readouterr()
    again = finetune(soup)
    assert "is out of date: the weights of a run it was made from have changed (finetune)" in capsys.readouterr().err
    assert again.metrics()["ingredients"][0]["weights"] == file_digest(part.weights_file)
    assert again.metrics()["accuracy"] != before
    # One that is gone is accepted.
    shutil.rmtree(part.folder)
    assert metrics_if_current(run, resolve(soup)) is not None


@pytest.mark.slow
def test_what_was_begun_from_other_weights_is_not_gone_on_with(ask_for, store):
    """lp_ft killed in mid-training, its probe made again meanwhile: the checkpoint is of another start."""
    config = ask_for(*QUICK, "+method=lp_ft")
    spec = resolve(config)
    finetune(spec.probe.spec.config)
    work = RunStore(store).run_of(spec).folder.with_name(f"{spec.training_key}.host.1.0")
    work.mkdir(parents=True)
    (work / "made_from.json").write_text(json.dumps({"weights": ["of another probe"]}))
    (work / "last.ckpt").write_bytes(b"no checkpoint: reading it would fail")
    probe = finetune(config).metrics()["probe"]
    assert probe["weights"] == RunStore(store).one(method="linear_probe").read_json("fit.json")["weights"]


def test_an_unread_option_of_the_pretrained_run_is_in_no_key_of_it(spec):
    first = spec("+method=pretrained")
    other = spec("+method=pretrained", "seed=3", "batch_size=7", "dataset=imagenet_a", "optimizer=adamw")
    assert (first.training_key, first.score_keys) == (other.training_key, other.score_keys)
    assert replace(first).of_pretrained().training_key == spec("+method=ewc").of_pretrained().training_key


def test_before_is_scored_as_after_is(spec):
    """A run and its `pretrained` run agree in every score key, whatever is trained."""
    trained = ("+method=ewc", "accumulate=2", "clip=1.0", "data.augment=flip", "data.image_backend=pil")
    for asked in (spec(*trained), spec("+method=wise_ft"), spec("data.holdout=0.3", "data.limit=120")):
        assert isinstance(asked, RunSpec)
        before = asked.of_pretrained()
        assert {n: before.score_keys[n] for n in asked.scored} == {n: asked.score_keys[n] for n in asked.scored}
