"""Files that change while a run is made: its result is discarded; damaged files are never used."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from rib import pipeline
from rib.config import user_code
from rib.config.command_schema import ReportConfig
from rib.config.schema import PathsConfig
from rib.errors import RibError
from rib.models.weights import load_cached, save_cached, save_weights
from rib.pipeline import finetune
from rib.reporting.report import report
from rib.runs.fields import fisher_key
from rib.runs.freshness import metrics_if_current, out_of_date_in
from rib.runs.resolve import resolve
from rib.runs.run import Run
from rib.runs.store import RunStore
from rib.runtime.files import file_digest
from rib.training.fit import _is_whole

QUICK = ("model=mini_tiny", "data.limit=60", "epochs=1")
MINI = Path(__file__).resolve().parents[2] / "rib" / "models" / "mini_weights" / "mini_tiny.safetensors"


@pytest.fixture
def spec(ask_for):
    return lambda *overrides: resolve(ask_for(*QUICK, *overrides))


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A folder for the user's modules; nothing of it is left imported."""
    folder = tmp_path / "code"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    # Only the user's: extension modules such as Triton's cannot be imported twice.
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]
    user_code._seen.clear()


def forget(*names: str) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in names]:
        del sys.modules[name]
    user_code._seen.clear()


OPTIMIZER = """import torch

class FileSGD(torch.optim.SGD):
    def __init__(self, params, lr, file):
        super().__init__(params, lr=lr * float(open(file).read()))
"""

METHOD = """from rib.methods.base import Method

class Mine(Method):
    def __init__(self, lr=1.0, table=""):
        self.lr = lr
"""


def test_a_file_in_an_option_of_the_users_optimizer_is_told_by_its_content(spec, code, tmp_path):
    (code / "myopt.py").write_text(OPTIMIZER)
    file = tmp_path / "scale.txt"
    said = ("~optimizer", "+optimizer._target_=myopt.FileSGD", f"+optimizer.file={file}")
    keys = []
    for text in ("1.0", "10.0"):
        file.write_text(text)
        keys.append(spec(*said).training_key)
    assert keys[0] != keys[1]


def test_files_that_a_pattern_matches_are_told_by_their_content(spec, code, tmp_path):
    (code / "mymeth.py").write_text(METHOD)
    keys = []
    for text in ("1", "2"):
        (tmp_path / "v1.txt").write_text(text)
        keys.append(spec("+method.m._target_=mymeth.Mine", f"+method.m.table='{tmp_path}/v*.txt'").training_key)
    assert keys[0] != keys[1]


@pytest.mark.parametrize(
    "line",
    [
        'import importlib; h = importlib.import_module(".helper", package="pk")',
        'import importlib; h = importlib.import_module(".helper", "pk")',
        "from importlib import import_module as im; h = im('pk.helper')",
        "h = __import__('pk.helper')",
    ],
)
def test_imports_whose_names_are_written_out_are_followed(spec, code, line):
    (code / "pk").mkdir()
    (code / "pk" / "__init__.py").write_text("")
    (code / "pk" / "mod.py").write_text(f"{line}\n{METHOD}")
    keys = []
    for text in ("S = 0", "S = 5"):
        (code / "pk" / "helper.py").write_text(text)
        forget("pk")
        keys.append(spec("+method.m._target_=pk.mod.Mine").training_key)
    assert keys[0] != keys[1]


def test_bytecode_of_another_text_of_equal_size_and_time_is_not_run(spec, code, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = code / "mymeth.py"
    file.write_text(METHOD.replace("lr=1.0", "lr=2.0"))
    os.utime(file, ns=(10**18, 10**18))
    spec("+method.m._target_=mymeth.Mine")
    assert Path(importlib.util.cache_from_source(str(file))).is_file()
    forget("mymeth")
    file.write_text(METHOD.replace("lr=1.0", "lr=3.0"))
    os.utime(file, ns=(10**18, 10**18))
    spec("+method.m._target_=mymeth.Mine")
    assert sys.modules["mymeth"].Mine().lr == 3.0


def test_an_argument_called_lr_of_the_users_class_is_the_classs(spec, code):
    (code / "mymeth.py").write_text(METHOD)
    said = ("+method.m._target_=mymeth.Mine", "+method.m.lr=0.25")
    asked = spec(*said)
    from rib.runs.method_stack import build_method

    assert build_method(asked.config, "m").lr == 0.25
    assert asked.recipe.lr == spec().recipe.lr
    assert asked.training_key != spec(said[0], "+method.m.lr=0.5").training_key
    # Rib's own methods have rates of their own there.
    assert spec("+method=lora", "method.lora.lr=0.25").recipe.lr == 0.25


def test_a_fisher_beside_a_users_method_is_of_that_run_alone(spec, code):
    (code / "mymeth.py").write_text(METHOD)
    mine = ("+method=ewc", "+method.m._target_=mymeth.Mine")
    assert fisher_key(spec(*mine), None) != fisher_key(spec(*mine, "seed=1"), None)
    assert fisher_key(spec("+method=ewc"), None) == fisher_key(spec("+method=ewc", "seed=1"), None)


@pytest.mark.parametrize("over", ["wise_ft", "soup", "output_ensemble"])
def test_a_rib_soup_is_no_ingredient(spec, over):
    with pytest.raises(
        RibError, match="rib_soup cannot be an ingredient: it scores each target with a model of its own"
    ):
        spec(f"+method={over}", f"method.{over}.ingredients=[rib_soup]")


def test_a_method_under_another_name_clashes_as_under_its_own(spec):
    with pytest.raises(RibError, match="cannot be stacked"):
        spec("+method=lora", "+method.mine._target_=rib.methods.linear_probe.LinearProbe")


def shake(run: Run) -> None:
    """Change a run's weights as if it had been made again elsewhere under its key."""
    save_weights({name: tensor * 0.5 for name, tensor in run.weights().items()}, run.weights_file)
    run.write_json("fit.json", {**run.read_json("fit.json"), "weights": file_digest(run.weights_file)})


@pytest.mark.slow
def test_what_is_two_levels_up_is_out_of_date_too(ask_for, store, tmp_path, capsys):
    config = ask_for(*QUICK, "+method=soup", "method.soup.ingredients=[pretrained,wise_ft]")
    run = finetune(config)
    before = run.metrics()["accuracy"]
    shake(RunStore(store).one(method="finetune"))
    assert metrics_if_current(run, resolve(config)) is None
    assert out_of_date_in(RunStore(store)) == {run.key, RunStore(store).one(method="wise_ft").key}
    capsys.readouterr()
    report(ReportConfig(PathsConfig(str(store), None), {"name": "none"}, str(tmp_path / "out"), None))
    assert "left out of the report: 2 runs made from runs whose weights have changed since" in capsys.readouterr().err
    assert finetune(config).metrics()["accuracy"] != before
    assert out_of_date_in(RunStore(store)) == set()


@pytest.mark.slow
def test_weights_replaced_while_a_run_is_made_leave_no_result(ask_for, store, tmp_path, monkeypatch):
    file = tmp_path / "cur.safetensors"
    shutil.copy(MINI, file)
    config = ask_for(*QUICK, f"model.weights={file}")
    fit = pipeline.fit

    def replaced(spec, run, *more):
        fit(spec, run, *more)
        if spec.source is not None:
            file.write_bytes(file.read_bytes())  # the same bytes: what was read in between may have been others

    monkeypatch.setattr(pipeline, "fit", replaced)
    with pytest.raises(RibError, match="changed while it ran, so its result was deleted"):
        finetune(config)
    assert RunStore(store).finished(method="finetune") == []
    assert not list((store / "mini" / "mini_tiny" / "imagenet_r" / "finetune").glob("*/fit.json"))
    monkeypatch.undo()
    assert finetune(config).metrics()


@pytest.mark.slow
def test_weights_replaced_between_key_and_training_are_noticed(ask_for, store, tmp_path, monkeypatch):
    file = tmp_path / "cur.safetensors"
    shutil.copy(MINI, file)
    publish = pipeline.publish

    def replaced(spec, *more):
        publish(spec, *more)
        shutil.copy(MINI.with_name("mini_small.safetensors"), file)  # the pretrained run is made, training comes next

    monkeypatch.setattr(pipeline, "publish", replaced)
    with pytest.raises(RibError, match="changed after the command began"):
        finetune(ask_for(*QUICK, f"model.weights={file}"))
    assert RunStore(store).finished(method="finetune") == []


def test_tensors_that_were_kept_are_whole_or_not_there(tmp_path):
    file = tmp_path / "fisher.safetensors"
    state = {"a": torch.arange(6.0).view(2, 3), "n": torch.tensor(3)}
    assert load_cached(file) is None
    save_cached(state, file)
    assert all(torch.equal(tensor, load_cached(file)[name]) for name, tensor in state.items())
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)
    assert load_cached(file) is None


@pytest.mark.slow
def test_a_damaged_fisher_is_estimated_anew(ask_for, store):
    ewc = ("+method=ewc", "optimizer.lr=0.02")
    true = finetune(ask_for(*QUICK, *ewc, "method.ewc.strength=3.0")).weights_file.read_bytes()
    shutil.rmtree(store / "mini" / "mini_tiny" / "imagenet_r")
    (memo,) = (store / "memo").glob("fisher-*.safetensors")
    content = bytearray(memo.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    memo.write_bytes(content)
    assert finetune(ask_for(*QUICK, *ewc, "method.ewc.strength=3.0")).weights_file.read_bytes() == true


def test_a_checkpoint_with_a_damaged_part_is_not_whole(tmp_path):
    file = tmp_path / "last.ckpt"
    torch.save({"state": torch.randn(1000)}, file)
    assert _is_whole(file)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    assert not _is_whole(file)
