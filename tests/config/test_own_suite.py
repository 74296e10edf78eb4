"""``suite=FILE.yaml`` on the command line: what it stands for, and what is said where it cannot be meant."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from rib.api import find_runs
from rib.config import compose
from rib.config.command_schema import (
    AnalyzeConfig,
    BenchmarkConfig,
    DataCommandConfig,
    EvaluateConfig,
    ReportConfig,
    SearchConfig,
)
from rib.config.composition import compose_command
from rib.config.composition import override as changed
from rib.config.defaults import flat_changes
from rib.config.keywords import overrides_of
from rib.config.own_suite import restore_suite
from rib.config.slips import tidy
from rib.errors import RibError
from rib.runtime.command_line import command_line, rewrite_arguments
from tests.support.suites import DOMAINS, work_among_suites


@pytest.fixture
def here(tmp_path, monkeypatch):
    return work_among_suites(tmp_path, monkeypatch)


def refusal(command: str, *arguments: str) -> str:
    with pytest.raises(RibError) as error:
        tidy(command, arguments)
    sentence = str(error.value)
    assert "\n" not in sentence
    return sentence


def test_a_file_stands_for_root_roles_and_first_source(here):
    config = compose("suite=pets.yaml", "+method=ewc")
    assert (config.data.suite, config.data.root) == (str(here / "pets.yaml"), str(here))
    assert config.suite.name == "pets"
    assert (config.suite.sources, config.suite.targets, config.suite.reported) == ([*DOMAINS], [*DOMAINS[:3]], ["toy"])
    assert config.dataset.name == "photo"
    assert "ewc" in config.method


@pytest.mark.parametrize("folder", ["my dätä", "./my dätä", "../{}/my dätä", "{absolute}/my dätä", "~/my dätä"])
def test_any_path_is_found(here, monkeypatch, folder):
    monkeypatch.setenv("HOME", str(here))
    folder = folder.format(here.name, absolute=here)
    written = tidy("train", [f"suite={folder}/own.yaml"])
    assert written[:2] == [f'data.suite="{here}/my dätä/own.yaml"', f'data.root="{here}/my dätä"']
    assert tidy("train", [f'suite="{folder}/own.yaml"']) == written  # as Python spells it


def test_the_ending_may_be_yml(here):
    (here / "pets.yaml").rename(here / "pets.yml")
    assert compose("suite=pets.yml").data.suite == str(here / "pets.yml")


def test_what_is_given_is_kept(here):
    given = ("data.root=/x", "dataset=sketch", "suite.reported=[]", "suite.targets=[photo,sketch]")
    config = compose("suite=pets.yaml", *given)
    assert (config.data.root, config.dataset.name) == ("/x", "sketch")
    assert (config.suite.targets, config.suite.reported) == (["photo", "sketch"], [])
    assert config.suite.name == "pets*"  # as seven* with other targets
    assert compose("suite=pets.yaml", "suite.targets=[paint,sketch,photo]").suite.name == "pets"


def test_the_data_root_of_the_environment_is_not_the_suites(here, monkeypatch):
    monkeypatch.setenv("RIB_DATA", "/imagenet")
    assert compose("suite=pets.yaml").data.root == str(here)


def test_a_name_stays_the_choice_of_a_file_of_conf(here):
    assert tidy("train", ["suite=paper", "dataset=imagenet_a"]) == ["suite=paper", "dataset=imagenet_a"]


def test_data_suite_alone_means_the_same(here):
    assert tidy("train", ["data.suite=pets.yaml"]) == tidy("train", ["suite=pets.yaml"])
    written = tidy("train", ["suite=pets.yaml", "dataset=sketch"])
    assert tidy("train", written) == written  # a job of a sweep gets what was written for it


@pytest.mark.parametrize("given", ["", "dataset=sketch seed=1", "suite.targets=[photo] data.root=/x", "seed=0"])
def test_what_it_stands_for_is_shown_as_it_was(here, given):
    said = [f"suite={here}/pets.yaml", *given.split()]
    shown = restore_suite(tidy("train", said))
    assert [word for word in shown if word != "dataset=photo"] == said
    assert sorted(tidy("train", shown)) == sorted(tidy("train", said))
    assert restore_suite(["seed=1"]) == ["seed=1"]


def test_a_command_is_recorded_as_it_was_typed(here, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["rib-train", "suite=pets.yaml", "seed=1"])
    rewrite_arguments(tidy("train", sys.argv[1:]))
    assert sys.argv[1].startswith("data.suite=")
    assert command_line() == "rib-train suite=pets.yaml seed=1"
    monkeypatch.setattr(sys, "argv", ["rib-train", "seed=2"])
    assert command_line() == "rib-train seed=2"


def test_a_flag_may_stand_behind_options(here):
    assert tidy("train", ["model=mini_tiny", "-m", "seed=0,1"]) == ["-m", "model=mini_tiny", "seed=0,1"]


def test_a_sweep_over_sources_is_one(here):
    assert "dataset.name=photo,sketch" in tidy("train", ["-m", "suite=pets.yaml", "dataset=photo,sketch"])
    assert tidy("train", ["dataset=photo,sketch", "suite=pets.yaml", "-m"])[:2] == ["-m", "dataset.name=photo,sketch"]


@pytest.mark.parametrize(
    ("command", "schema", "arguments", "source"),
    [
        ("search", SearchConfig, ["+method=ewc"], "photo"),
        ("evaluate", EvaluateConfig, ["weights=x.pt"], "none"),
        ("evaluate", EvaluateConfig, ["weights=x.pt", "dataset=toy"], "toy"),
        ("benchmark", BenchmarkConfig, ["sources=[toy]"], "imagenet_r"),
    ],
)
def test_every_command_with_runs_takes_it(here, command, schema, arguments, source):
    config = compose_command(command, schema, [*arguments, "suite=pets.yaml"])
    assert (config.suite.sources, config.dataset.name) == ([*DOMAINS], source)
    assert config.data.suite == str(here / "pets.yaml")


def test_commands_without_runs_take_it(here):
    data = compose_command("data", DataCommandConfig, ["check", "pets.yaml"])
    assert (data.action, data.data.suite, data.data.root) == ("check", str(here / "pets.yaml"), str(here))
    analysis = compose_command("analyze", AnalyzeConfig, ["run=x", "analysis=drift", "suite=pets.yaml"])
    assert (analysis.data.suite, analysis.data.root) == (str(here / "pets.yaml"), str(here))
    assert compose_command("report", ReportConfig, ["suite=pets.yaml"]).suites == ["pets"]
    assert compose_command("report", ReportConfig, ["suite=pets"]).suites == "pets"


def test_the_place_of_the_file_is_no_option_of_a_result(here):
    assert flat_changes(compose("suite=pets.yaml")) == {}


def test_python_takes_it(here):
    words = overrides_of("ewc", (), {"suite": Path("pets.yaml"), "dataset": "sketch", "head": {"reference": "photo"}})
    config = compose(*words)
    assert (config.suite.name, config.dataset.name, config.head.reference) == ("pets", "sketch", "photo")
    with pytest.raises(RibError, match=r"did you mean suite=pets\.yaml"):
        find_runs(suite="pats.yaml", runs=here)


def test_an_ingredient_may_be_on_another_domain(here):
    assert changed(compose("suite=pets.yaml"), ["dataset=paint", "seed=1"], "here").dataset.name == "paint"


@pytest.mark.parametrize(
    ("command", "arguments", "told"),
    [
        ("train", "suite=pts.yaml", "suite=pts.yaml: there is no such file; did you mean suite=pets.yaml?"),
        ("train", "suite=zebra_crossing.yaml", "; the suites there are pets.yaml"),
        ("train", "suite=nowhere/pets.yaml", "there is no folder"),
        ("train", "suite=seven.yaml", "did you mean suite=seven, a suite of rib's?"),
        ("train", "suite=.", "expected the file of a suite, got a folder; did you mean suite=pets.yaml?"),
        ("train", "suite=photo/", "expected the file of a suite, got a folder; rib data init photo writes one for it"),
        ("train", "-m suite=pets.yaml,b.yaml", "run one command for each, with suite=pets.yaml and with suite=b.yaml"),
        ("train", "suite=pets.yaml suite=seven", "expected one suite, got 2"),
        ("train", "suite=pets.yaml dataset=fotos", "no domain fotos in the suite pets; did you mean dataset=photo?"),
        ("train", "suite=pets.yaml dataset=Photo", "did you mean dataset=photo?"),
        ("train", "suite=pets.yaml dataset=qqqqq", "; it has photo, sketch, paint, toy"),
        ("train", "suite=pets.yaml -m dataset=photo,sketsh", "did you mean dataset=photo,sketch?"),
        ("train", "suite=pets.yaml dataset=photo,sketch", "; -m dataset=photo,sketch runs one after the other"),
        ("train", "suite=pets.yaml dataset=all", "; -m dataset=photo,sketch,paint,toy runs one after the other"),
        ("train", "suite=pets.yaml suite.targets=[foto,skech]", "did you mean 'suite.targets=[photo,sketch]'?"),
        ("train", "suite=pets.yaml head.reference=foto", "did you mean head.reference=photo?"),
        ("benchmark", "suite=pets.yaml sources=[foto]", "did you mean 'sources=[photo]'?"),
        ("benchmark", "suite=pets.yaml dataset=sketch", "a grid sets dataset in each cell and reads sources; did you"),
        ("benchmark", "suite=pets.yaml dataset=sketch", "did you mean 'sources=[sketch]'?"),
        ("analyze", "run=x suite=pets.yaml datasets=[skech]", "did you mean 'datasets=[sketch]'?"),
        # the domains are known, in whatever form the suite is named, and no dataset of ImageNet is suggested
        ("train", "--suite pets.yaml --dataset sketch", "did you mean suite=pets.yaml dataset=sketch?"),
        ("train", "suite pets.yaml sketch", "did you mean suite=pets.yaml dataset=sketch?"),
        ("train", "pets.yaml", "did you mean suite=pets.yaml?"),
        ("train", "suite: pets.yaml", "did you mean suite=pets.yaml?"),
        ("train", "suite=my pets.yaml", "did you mean 'suite=my pets.yaml'?"),
        ("train", "suite=pets.yaml --reference photo", "did you mean head.reference=photo?"),
        ("train", "suite=pets.yaml --head prob", "did you mean head=probe?"),
        ("data", "check .", "expected the file of a suite, got a folder; did you mean rib data check pets.yaml?"),
        ("data", "sheet my pets", "expected one file or folder after sheet, got 2; a name with spaces needs quotes"),
        ("data", "chek", "did you mean action=check?"),
        ("data", "check pts.yaml", "there is no such file; did you mean suite=pets.yaml?"),
    ],
)
def test_what_cannot_be_meant_is_answered(here, command, arguments, told):
    (here / "folder.yaml").mkdir()
    (here / "gone.yaml").symlink_to("nowhere")
    assert told in refusal(command, *shlex.split(arguments))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("suite=pets", "suite=pets: expected the file of a suite of your own; did you mean suite=pets.yaml?"),
        (
            "suite=mine",
            "known: paper, seven, and FILE.yaml of your own (`rib data init DIR` writes one)",
        ),
        ("suite=pets.yaml source=sketsh", "did you mean dataset=sketch?"),
        ("suite=pets.yaml head=prob", "did you mean head=probe?"),
        ("suite=pets.yaml head=linear", "did you mean head=probe?"),
        ("suite=pets.yaml reference=photo", "did you mean head.reference=photo?"),
        ("suites=pets.yaml", "did you mean suite=pets.yaml?"),
        ("'suite = pets.yaml'", "write suite=pets.yaml"),
    ],
)
def test_what_hydra_refuses_is_answered(here, arguments, told):
    with pytest.raises(RibError) as error:
        compose(*shlex.split(arguments))
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("init photo", "action=init folder=photo"),
        ("init 'my dätä'", "action=init 'folder=\"my dätä\"'"),
        ("check", "action=check"),
        ("Check /data", "action=check data.root=/data"),
        ("check photo/ data.rescan=true", "action=check data.root=photo/ data.rescan=true"),
        ("look photo", "action=look data.root=photo"),
        ("photo", "data.root=photo"),
    ],
)
def test_words_of_rib_data_need_no_names(here, words, options):
    assert tidy("data", shlex.split(words)) == shlex.split(options)


def test_no_yaml_is_read_without_a_suite():
    code = (
        "import sys; from rib.config.slips import tidy; tidy('train', ['+method=ewc', 'model=mini_tiny']); "
        "print([name for name in sys.modules if name in ('torch', 'rib.data.suites.suite_file')])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
