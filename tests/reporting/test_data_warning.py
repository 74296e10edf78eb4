"""A forgotten data root must not look like a result: names, titles and warnings of toy data."""

from __future__ import annotations

import pytest

import rib.config
from rib.data import catalog, mini
from rib.data.worlds import find_data, title_of
from rib.errors import RibError
from rib.models.mini_weights import weights_file
from rib.pipeline import finetune
from rib.reporting.data_warning import warn_before, warning_after
from rib.runs.resolve import resolve
from rib.runtime.console import say_once

pytestmark = pytest.mark.usefixtures("no_progress")

FAKE_REAL = ("model=mini_tiny", "model.name=my_vit", f"model.weights={weights_file('mini_tiny')}")
"""A model that is not one of mini's by name, but as fast."""


@pytest.fixture(autouse=True)
def _say_again():
    say_once.cache_clear()


def test_every_dataset_of_mini_says_so_and_none_of_the_real_ones_does():
    names = mini.catalog().specs
    assert list(names) == list(catalog.real().specs)
    for name in names:
        real = title_of(name)
        assert title_of(name, "mini") == f"mini {real.removeprefix('ImageNet').lstrip('- ')}"
        assert "mini" not in real


@pytest.mark.parametrize("given", ["data.root=mini", "data.root=null", "data.root="])
def test_mini_is_a_data_root_whatever_the_environment_says(ask_for, given, tmp_path, monkeypatch):
    before = resolve(ask_for("model=mini_tiny"))
    monkeypatch.setenv("RIB_DATA", str(tmp_path))
    after = resolve(ask_for("model=mini_tiny", given))
    assert (after.training_key, after.score_keys) == (before.training_key, before.score_keys)
    assert after.catalog.kind == "mini"


@pytest.mark.parametrize("value", ["", "mini"])
def test_an_empty_variable_is_unset(ask_for, value, monkeypatch):
    before = ask_for("model=mini_tiny")
    monkeypatch.setenv("RIB_DATA", value)
    assert ask_for("model=mini_tiny") == before
    assert rib.config.compose().data.root is None


def test_a_root_that_is_not_there_names_the_toy_data(ask_for, tmp_path):
    with pytest.raises(RibError, match=r"there is no folder .*/nothing; .* data\.root=mini$"):
        find_data(ask_for(f"data.root={tmp_path / 'nothing'}"))


@pytest.mark.slow
def test_a_real_model_on_toy_data_is_warned_of_before_and_after(ask_for, capsys):
    short = ("+method=pretrained", "data.limit=20", "suite.targets=[imagenet_a]")
    finetune(ask_for(*FAKE_REAL, *short))
    printed = capsys.readouterr()
    for text in (printed.err.splitlines()[0], " ".join(printed.out.split())):
        assert "warning: toy data (mini), small drawings" in text
        assert "the numbers mean nothing for my_vit, a real model; for real data give data.root=DIR or" in text
        assert "RIB_DATA" in text
    assert "mini A" in printed.out
    assert "ImageNet-A" not in printed.out
    assert " ".join(printed.out.split()).index("toy data (mini)") < printed.out.index("mini A")
    finetune(ask_for("model=mini_tiny", *short))
    printed = capsys.readouterr()
    assert "warning" not in printed.err + printed.out


def test_a_small_model_on_real_data_says_what_it_is(capsys, monkeypatch, tmp_path):
    root = str(tmp_path)
    warn_before(["mini_small"], root)
    said = capsys.readouterr().err
    assert said.startswith("warning: mini_small is a small model that rib ships for its toy data")
    assert f"for {root} choose a real one, such as model=clip_laion2b" in said
    assert "data.root=mini" not in said
    monkeypatch.setenv("RIB_DATA", root)
    say_once.cache_clear()
    warn_before(["mini_small"], root)
    assert "or run on the toy data with data.root=mini (RIB_DATA is set)" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_the_only_message(capsys, tmp_path):
    warn_before(["mini_small"], str(tmp_path / "nothing"))
    assert capsys.readouterr().err == ""


def test_models_that_belong_to_their_data_are_not_warned_of(capsys):
    warn_before(["mini_small", "mini_large"], None)
    warn_before(["clip_laion2b"], "/data")
    assert capsys.readouterr().err == ""
    assert warning_after(["mini_small"], "mini") is None
    assert warning_after(["clip_laion2b"], "user") is None
    assert "clip_laion2b, in21k, real models" in str(warning_after(["in21k", "clip_laion2b", "mini_tiny"], "mini"))
