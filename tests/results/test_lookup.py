"""A run is found by folder or key; whatever is no finished run is named in one sentence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import rib
from rib.results.lookup import find_store
from rib.runs.run import Run


def test_a_run_is_found_however_it_is_given(toy, monkeypatch):
    folder, key = toy.ewc.folder, toy.ewc.key
    monkeypatch.setenv("HOME", str(toy.root.parent))
    monkeypatch.chdir(toy.root.parent)
    ways = [
        *(folder, str(folder), f"{folder}/", f"{folder}\n", str(folder.relative_to(toy.root.parent))),
        *(f"~/{folder.relative_to(toy.root.parent)}", folder / "metrics.json", str(folder / "weights.safetensors")),
        *(Run(folder), toy.ewc, key, key[:6], key.upper(), f" {key} "),
    ]
    for way in ways:
        assert rib.load(way) == toy.ewc, way
    assert rib.load(key, runs="~/runs") == rib.load(key, runs=toy.root) == toy.ewc


@pytest.mark.slow
def test_what_is_no_finished_run_is_one_sentence(toy, tmp_path, monkeypatch):
    store = tmp_path / "store"
    shutil.copytree(toy.root, store)
    ewc = store / toy.ewc.folder.relative_to(toy.root)
    working = ewc.with_name(f"{ewc.name}.abc123")
    ewc.rename(working)
    (working / "metrics.json").rename(working / "later.json")
    (tmp_path / "empty").mkdir()
    twin = toy.plain.folder.with_name("f" * 16)
    shutil.copytree(toy.plain.folder, store / twin.relative_to(toy.root))
    shutil.copytree(toy.plain.folder, store / twin.relative_to(toy.root).with_name(f"{'f' * 15}0"))
    missing = ewc.with_name("0" * 16)
    cases = [
        (working, r"is not finished; finish it with python -m rib.train \+method=ewc .*steps=4"),
        (toy.ewc.key, r"is not finished; finish it with python -m rib.train"),
        (store, r"is a run store; list its runs with rib.find_runs\(runs="),
        (toy.plain.folder.parent, f"is no finished run, .*did you mean {toy.plain.folder.parent}/[0-9a-f]+.$"),
        (tmp_path / "empty", "is no finished run, which has a metrics.json$"),
        (missing, "there is no folder .*expected that of a finished run"),
        (str(toy.plain.folder)[:-1] + "x", f"did you mean {toy.plain.key}"),
        ("ffff", "2 runs of .* have keys that begin so: f+0? .mini_tiny/imagenet_a/finetune"),
        ("0123456789", r"no run of .* has a key that begins so; rib.find_runs\(runs=.*runs=FOLDER"),
        ("ewc", "expected a run's folder or the first digits of its key"),
        ("zzz", r"rib.find_runs\(runs='/.*'\) lists the runs of the store in which keys are looked up"),
        ("", "expected a run's folder or the first digits of its key"),
        (3, "expected a run, its folder or its key, got int"),
        (None, "got NoneType"),
    ]
    for given, sentence in cases:
        with pytest.raises(rib.RibError, match=sentence) as caught:
            rib.load(given, runs=store)
        assert "\n" not in str(caught.value)


def test_a_store_that_does_not_exist_names_the_nearest(toy):
    with pytest.raises(rib.RibError, match=r"there is no folder .*run; did you mean runs\?; expected a run store"):
        rib.load("abc", runs=toy.root.with_name("run"))
    with pytest.raises(rib.RibError, match="there is no folder nowhere"):
        rib.find_runs(runs="nowhere")
    assert find_store(Path(toy.root)).root == toy.root


def test_a_run_outside_a_store_is_read_as_far_as_it_goes(toy, tmp_path):
    shutil.copytree(toy.plain.folder, tmp_path / "copied")
    copied = rib.load(tmp_path / "copied")
    assert copied.metrics == toy.plain.metrics and copied.ri == toy.plain.ri
    copied.model()
    for use in (lambda: copied.before, lambda: copied.images("imagenet_r")):
        with pytest.raises(rib.RibError, match="does not lie in a run store"):
            use()
