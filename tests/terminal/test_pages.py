"""The pages of ``rib``: its help, options, methods, models and versions, at several widths and in a pipe."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hydra.utils import get_class

import rib
from rib.__main__ import main
from rib.config.conf_comments import COMMANDS, examples, group_options, header, options_of
from rib.config.help_page import MAIN, help_page
from rib.config.shipped import conf_dir, options, shipped_nodes
from rib.errors import RibError
from rib.methods.base import Method
from rib.methods.merge import Merge
from rib.terminal.method_list import KINDS, methods_page, stage_of
from rib.terminal.model_list import models_page
from rib.terminal.option_keys import keys_of
from rib.terminal.option_list import options_page
from rib.terminal.pages import PAGES, overview, page
from rib.terminal.versions import versions_page

pytestmark = pytest.mark.usefixtures("no_progress")

ROOT = Path(rib.__file__).parents[1]
WIDTHS = (40, 60, 80, 100)


def too_wide(text: str, columns: int) -> list[str]:
    """Lines that are wider, without those that cannot be divided: one word, and its indentation."""
    return [line for line in text.splitlines() if len(line) > columns and len(line.split()) > 2]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_a_command_has_a_meaning_and_a_default(command):
    for option in options_of(command).values():
        assert option.meaning.strip(), option
        assert option.default.strip() or option.name == "", option


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_a_page_that_fits(command, columns):
    text = help_page(command, f"rib {command}", columns)
    assert text.startswith(f"rib {command}:")
    for word in ("Examples", "Main options", "rib options", "--cfg job"):
        assert word in text
    assert not too_wide(text, columns)
    assert all(options_of(command)[name].argument in text for name in MAIN[command])
    assert len(examples(Path(conf_dir(), f"{command}.yaml"))) >= 3
    assert text.count(f"rib {command}") >= 4  # title and three examples


def test_main_options_hold_the_filters_of_a_report_and_the_check_of_a_script():
    report, evaluate = help_page("report", "rib report", 80), help_page("evaluate", "rib evaluate", 80)
    assert not [name for name in ("methods=", "models=", "seeds=", "where=", "sort=") if f"\n  {name}" not in report]
    assert not [name for name in ("weights=", "fail_below=") if f"\n  {name}" not in evaluate]


def test_help_names_only_the_groups_of_its_command():
    report = help_page("report", "rib report", 80)
    assert "logger=" in report
    assert not [group for group in ("model=", "optimizer=", "study=", "analysis=", "+method=") if group in report]
    assert "study=" in help_page("benchmark", "rib benchmark", 80)


@pytest.mark.parametrize("columns", WIDTHS)
def test_lists_fit(columns):
    for text in (
        overview(columns),
        methods_page([], columns),
        models_page([], columns),
        *(options_page(arguments, columns) for arguments in ([], ["ewc"], ["data.*"], ["optimizer.lr"], ["report"])),
    ):
        assert not too_wide(text, columns)


def test_the_overview_has_every_command_and_page():
    text = overview(80)
    assert all(f"  {name} " in text for name in (*COMMANDS, *PAGES))


def test_a_methods_options_are_told_with_default_and_key():
    text = options_page(["ewc"], 80)
    assert "method.ewc.strength=   factor of the penalty" in text
    words = " ".join(text.split())
    assert "strength / mean(F), 210 for 1.0 where mean(F) is 0.0048" in words
    assert "0 is plain fine-tuning, bit for bit (default 1.0; training key)" in words
    assert words.count("; training key)") == len(shipped_nodes("method")["ewc"]) - 1
    assert options_page(["+method=ewc"], 80) == options_page(["method.ewc"], 80) == text


def test_one_option_is_told_in_full():
    text = options_page(["data.root"], 200)
    assert "$RIB_DATA, else null" in text
    assert "rib train, benchmark, evaluate, search and data" in text
    assert "the folder that the run's own images came from" in text.partition("commands")[2]  # of rib analyze
    assert "training and score keys (as source.images and the images of each score key, by content)" in text
    assert "no key (folders on the disk)" in options_page(["paths.runs"], 80)
    assert "1.0e-5 with optimizer=adamw" in options_page(["optimizer.lr"], 80)
    assert "no key of a run" in options_page(["jobs"], 80)


def test_a_name_of_a_command_and_a_group_shows_both():
    data, pretrain = options_page(["data"], 80), options_page(["pretrain"], 80)
    assert data.startswith("Options of rib data") and "\n\nOptions of the group data" in data
    assert pretrain.startswith("Options of rib pretrain") and "Names: mini_large" in pretrain
    assert "training key" not in pretrain  # it makes no run
    assert "action=" in data and "folder=" in data


def test_suites_and_heads_of_your_own_are_told():
    words = {name: " ".join(options_page([name], 80).split()) for name in ("suite", "head", "data.suite", "head.l2")}
    assert "FILE.yaml with domains of your own" in words["suite"]
    assert (
        "head= head of a model with other outputs" in words["head"] and "Names: default probe subset" in words["head"]
    )
    assert "set by suite=FILE.yaml" in words["data.suite"] and "if it has moved since the run" in words["data.suite"]
    assert "strengths of the probe's L2 penalty" in words["head.l2"] and "training key" in words["head.l2"]
    for command in ("train", "benchmark"):
        assert "suite=pets.yaml" in help_page(command, f"rib {command}", 80)
    assert "needs head=probe" in " ".join(models_page(["dino_b16"], 80).split())
    assert "needs head=probe" not in models_page(["in21k_augreg_b32"], 80)


@pytest.mark.parametrize("argument", ["strength", "adamw", "ddp", "cka", "lr_grid", "model", "*.seed", "search", "lr"])
def test_what_else_can_be_asked_for(argument):
    assert "=" in options_page([argument], 80)


@pytest.mark.parametrize("argument", ["ewc", "epochs", "data.*", "train"])
def test_pages_with_keys_explain_them(argument):
    text = " ".join(options_page([argument], 80).split())
    assert text.count("training key: another value makes a new run; score key: another value scores the same") == 1
    assert "no key;" not in text
    assert "default null;" not in text or argument != "epochs"


def test_pages_without_keys_do_not_mention_them():
    assert "training key" not in options_page(["report"], 80)


def test_the_recipes_numbers_are_told_where_the_default_is_null():
    assert "null: 10 on real data, 5 on toy data" in options_page(["epochs"], 80)
    assert "null: 1.0e-3 on real data, 5.0e-3 on toy data" in options_page(["optimizer.lr"], 80)
    assert "null: 196 on real data, a tenth of all steps on toy data" in options_page(["optimizer.warmup_steps"], 200)
    assert "(default null: 10 on real data, 5 on toy data)" in " ".join(help_page("train", "rib train", 80).split())


def test_an_option_with_another_default_elsewhere_is_told_for_each_command():
    benchmark, report = options_page(["seeds"], 80).split("\n\n")
    assert "[0]" in benchmark
    assert "rib benchmark" in benchmark
    assert "null" in report
    assert "rib report" in report


def test_a_word_inside_another_finds_no_model():
    assert "in1k_sam" not in models_page(["mini"], 80)
    assert "zeroshot_laion2b" in models_page(["clip"], 80)
    assert "in21k_augreg" in models_page(["vit_base"], 80)


def test_another_name_leads_to_the_option():
    assert options_page(["batchsize"], 80) == options_page(["batch_size"], 80)
    assert options_page(["--lr=0.1"], 80).startswith("optimizer.lr=")


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("options", ["optimizr"], "optimizr: there is no such option, command or method; did you mean optimizer?"),
        ("methods", ["ewcc"], "ewcc: there is no such method; did you mean ewc?"),
        ("models", ["mini_lagre"], "mini_lagre: no model in conf/model matches; did you mean mini_large?"),
        ("options", ["lerning_rate"], "did you mean optimizer.lr?"),
        ("models", ["vit_bse"], "vit_bse: no model in conf/model matches; did you mean rib models vit_base?"),
        ("models", ["zzz"], "search timm and open_clip with rib models zzz --all"),
        ("models", ["--all"], "expected a pattern to search for"),
        ("trian", [], "trian: there is no such command; did you mean rib train?"),
        ("Options", [], "Options: there is no such command; did you mean rib options?"),
        ("epochs=3", [], "epochs=3: expected a command first; did you mean rib train epochs=3?"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_nearest(name, arguments, sentence):
    with pytest.raises(RibError) as error:
        page(name, arguments)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("option", "training", "score"),
    [
        *[("batch_size", True, False), ("optimizer.lr", True, False), ("seed", True, False), ("epochs", True, False)],
        *[("evaluation.precision", False, True), ("evaluation.batch_size", False, False)],
        *[("predictions.logits", False, True), ("data.root", True, True), ("data.limit", True, True)],
        *[("data.augment", True, False), ("data.image_backend", True, True), ("data.holdout", True, False)],
        *[("data.workers", False, False), ("model.weights", True, True), ("model.pretraining.images", False, False)],
        *[("method.ewc.strength", True, False), ("paths.runs", False, False), ("trainer.devices", False, False)],
        *[("trainer.sync_batchnorm", True, False), ("suite", False, False), ("dataset", True, False)],
        *[("logger.project", False, False), ("paper.objectnet", True, True), ("batch_norm", True, False)],
    ],
)
def test_keys_of_an_option(option, training, score):
    keys = keys_of(option)
    assert (keys.training, keys.score) == (training, score)


def test_every_method_has_a_kind_and_its_stage_is_its_class():
    names = [name for members in KINDS.values() for name in members]
    assert sorted(names) == options("method")
    readme = (ROOT / "README.md").read_text()
    for kind, members in KINDS.items():
        assert f"| {kind} | {' '.join(f'`{name}`' for name in members)} |" in readme
    stages = {-1: "before training", 0: "choice of the weights that train", 1: "during training", 2: "during training"}
    for name, node in shipped_nodes("method").items():
        if target := node.get("_target_"):
            method = get_class(target)
            after = issubclass(method, Merge) or name == "output_ensemble"
            order = method.order if issubclass(method, Method) else 1
            assert stage_of(name) == ("after training" if after else stages[order]), name
        assert group_options("method") or name


def test_models_are_told_with_network_pretraining_and_size():
    text = " ".join(models_page(["clip_laion2b"], 80).split())
    for part in ("vit_base_patch16_clip_224.laion2b_ft_in1k", "86.6 M parameters", "pretrained on 2 B", "val 85.5 %"):
        assert part in text
    for name in {*options("model")} - {"timm", "open_clip"}:
        assert "parameters" in " ".join(header(Path(conf_dir(), "model", f"{name}.yaml")))


def test_versions_name_rib_torch_and_the_device():
    text = versions_page()
    for name in ("rib", "python", "torch", "lightning", "timm", "open_clip_torch", "device"):
        assert f"\n{name} " in f"\n{text}"
    assert rib.__version__ in text


def test_rib_alone_shows_its_help(monkeypatch, capsys):
    for arguments in ([], ["help"], ["--help"], ["-h"]):
        monkeypatch.setattr(sys, "argv", ["rib", *arguments])
        main()
        assert capsys.readouterr().out == f"{overview(80)}\n"
    monkeypatch.setattr(sys, "argv", ["rib", "help", "train"])
    main()
    assert capsys.readouterr().out.startswith("rib train:")


def run(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", line.replace("PY", sys.executable)], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    "line", ["rib --help", "rib options", "rib.train --help", "rib.train --cfg job", "rib.train --info defaults"]
)
def test_a_closed_pipe_ends_quietly(line):
    done = run(f"PY -m {line} | head -n 1")
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1


def test_pages_need_neither_torch_nor_hydra():
    code = (
        "import sys; from rib.__main__ import main; main(); print([*{'torch', 'hydra', 'timm'} & sys.modules.keys()])"
    )
    for arguments in ("--help", "options ewc", "train --help", "methods", "models"):
        done = run(f'PY -c "{code}" {arguments}')
        assert done.stdout.endswith("\n[]\n"), done.stderr
