"""The documentation: its commands run or compose, its generated parts are complete, its numbers are the scripts'."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from latex2mathml.converter import convert

from benchmarks import gpu_networks, which_method
from rib.config import check_config, compose_node
from rib.config.command_schema import (
    AnalyzeConfig,
    BenchmarkConfig,
    CKAConfig,
    DataCommandConfig,
    EvaluateConfig,
    PretrainConfig,
    ReportConfig,
    SearchConfig,
)
from rib.config.schema import Config
from rib.config.shipped import options, shipped_nodes
from rib.config.slips import tidy
from rib.data import catalog
from rib.errors import RibError
from tests.methods import test_regularizers
from tests.support.pages import DOCS, PAGES, ROOT, blocks, commands, documented_commands
from tests.support.suites import suite_document

sys.path.append(str(DOCS / "_ext"))

import method_pages

SCHEMAS = {
    "train": Config,
    "benchmark": BenchmarkConfig,
    "search": SearchConfig,
    "evaluate": EvaluateConfig,
    "report": ReportConfig,
    "data": DataCommandConfig,
    "pretrain": PretrainConfig,
}
NOTES = tomllib.loads((DOCS / "methods" / "notes.toml").read_text())
RUN = [page for page in PAGES if any(block.runnable for block in blocks(page))]


def compose_command(command: list[str]) -> list[object]:
    """Compose each job of a command, and check it as the command itself would.

    Args:
        command: The module and its arguments.
    """
    name = command[0].removeprefix("rib.")
    jobs: list[list[str]] = [[]]
    for argument in [word for word in tidy(name, command[1:]) if word != "-m"]:
        (override,) = OverridesParser.create().parse_overrides([argument])
        values = override.sweep_string_iterator() if override.is_sweep_override() else None
        key = argument.partition("=")[0]
        texts = [argument] if values is None else [f"{key}={value}" for value in values]
        # Of a sweep's product each value once is enough.
        jobs = [[*jobs[0], text] for text in texts] + [[*job, texts[0]] for job in jobs[1:]]
    found = []
    for job in jobs:
        cfg = compose_node(name, *job)
        schema = SCHEMAS.get(name) or (CKAConfig if cfg.analysis == "cka" else AnalyzeConfig)
        found.append(check_config(cfg, schema))
    return found


@pytest.mark.parametrize("command", documented_commands(), ids=" ".join)
def test_a_documented_command_composes(command, monkeypatch, tmp_path):
    monkeypatch.setenv("RUN", "runs")
    monkeypatch.chdir(tmp_path)
    write_suites(command)
    assert compose_command(command)


def write_suites(command: list[str]) -> None:
    """Write the files of the suites that a command names: the one that its page shows, or one with its domains."""
    (shown,) = [block.text for block in blocks(DOCS / "howto" / "own_data.md") if block.language == "yaml"]
    roles = [word for word in command if re.match(r"dataset=|sources=|suite\.", word)]
    for word in command:
        if word.endswith((".yaml", ".yml")):
            named = [role.partition("=")[2].strip("[]").split(",") for role in roles]
            domains = dict.fromkeys(["photo", "sketch", "paint", *(name for names in named for name in names)])
            file = Path(word.partition("=")[2] or word)
            file.parent.mkdir(parents=True, exist_ok=True)
            made = yaml.safe_dump({**suite_document([*domains]), "name": file.stem}, sort_keys=False)
            file.write_text(shown if file == Path("pets/pets.yaml") else made)


@pytest.mark.slow
def test_a_wrong_command_would_be_noticed():
    with pytest.raises(RibError, match="did you mean"):
        compose_command(["rib.train", "+method=ewc", "+method.ewc.strenght=3"])
    jobs = compose_command(["rib.train", "-m", "+method=finetune,ewc", "seed=0,1,2"])
    assert {(*job.method, job.seed) for job in jobs} == {("finetune", 0), ("ewc", 0), ("finetune", 1), ("finetune", 2)}
    assert commands("RUN=$(python -m rib.train a=1 | tail -n 1)\npython -m rib.report \\\n b=2  # c") == [
        ["rib.train", "a=1"],
        ["rib.report", "b=2"],
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder in which all pages run, so that they share a store."""
    return tmp_path_factory.mktemp("docs")


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_the_runnable_blocks_of_a_page_run(page, folder, cache):
    (folder / "bin").mkdir(exist_ok=True)
    python = folder / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if k not in ("RIB_DATA", "RIB_RUNS")}
    environment |= {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "RIB_CACHE": str(cache),
    }
    for block in blocks(page):
        if block.runnable:
            command = ["bash", "-euo", "pipefail", "-c"] if block.language == "bash" else [sys.executable, "-c"]
            done = subprocess.run(
                [*command, block.text], cwd=folder, env=environment, capture_output=True, text=True, timeout=240
            )
            assert done.returncode == 0, f"{block.text}\n{done.stderr}"


def test_enough_is_run():
    assert {page.stem for page in RUN} >= {"README", "get_started", "commands", "sweep", "report", "data", "inside"}


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_every_method_has_a_note_that_can_be_shown():
    assert set(NOTES) == set(options("method"))
    assert {note["kind"] for note in NOTES.values()} <= set(method_pages.KINDS)
    for name, note in NOTES.items():
        assert "<math" in convert(note["formula"]), name
        assert note["when"].endswith(".") and note["summary"].endswith("."), name
    readme = (ROOT / "README.md").read_text()
    assert not [name for name in NOTES if f"`{name}`" not in readme]
    assert f"with {sum(note['kind'] != 'control' for note in NOTES.values())} methods" in readme


STRENGTHS = {"strength", "alpha", "decay", "lr", "rate", "power", "first", "keep"}


def test_a_method_with_a_strength_says_on_what_data_its_default_was_chosen():
    have = {name for name, node in shipped_nodes("method").items() if STRENGTHS & set(node)}
    assert {name for name, note in NOTES.items() if "defaults" in note} == have
    for name in have:
        text = method_pages.page(DOCS, name, NOTES[name])
        assert re.search(rf"^{re.escape(NOTES[name]['defaults'])} For your own model and data, ", text, re.MULTILINE)


@pytest.mark.parametrize("name", options("method"))
def test_a_methods_page_has_its_options_cost_and_commands(name):
    text = method_pages.page(DOCS, name, NOTES[name])
    node = shipped_nodes("method")[name]
    rows = dict(re.findall(rf"^\| `method\.{name}\.(\w+)` \| `.*?` \| (.*) \|$", text, re.MULTILINE))
    assert set(rows) == set(node) - {"_target_"}
    assert all(rows.values()), rows
    assert f"python -m rib.train +method={name}" in text
    clashes = {other for pair in method_pages.CLASHES if name in pair for other in pair - {name}}
    assert clashes == set(re.findall(r"^- `(\w+)`: ", text, re.MULTILINE))
    assert re.search(r"## Cost\n\n\w", text)


def test_numbers_of_the_comparison_are_those_of_its_script():
    text = which_method.PAGE.read_text().split(which_method.BEGIN)[1].split(which_method.END)[0]
    rows = which_method.read()
    assert text.strip() == which_method.section(rows)
    assert {row.method for row in rows} <= set(NOTES)
    assert len(rows) == 2 * len({row.method for row in rows})


def test_gpu_hours_are_computed_from_the_measured_rates():
    text = (DOCS / "howto" / "cost.md").read_text()
    hours, methods = re.findall(r"<!-- gpu .*? -->\n(.*?)<!-- end -->", text, re.DOTALL)
    assert hours == gpu_networks.hours_table()
    assert methods == gpu_networks.methods_table()
    train, score, _, before, *_, drawing, _ = re.search(r"^\| ViT-L/14 \| (.*) \|$", hours, re.MULTILINE)[1].split(
        " | "
    )
    scored = 10_000 + 7_500 + 30_000 + 50_889 + 18_574 + 3 * 50_000
    assert float(before) == pytest.approx(scored / float(score) / 3600, abs=0.005)
    assert float(drawing) == pytest.approx(500_000 / float(train) / 3600 + scored / float(score) / 3600, abs=0.005)


def test_gpu_hours_cover_every_network_of_timm_in_conf():
    networks = {node["architecture"] for node in shipped_nodes("model").values() if node["library"] == "timm"}
    # a CLIP network of timm, and MIIL's, have the layers of the plain one
    plain = {name.replace("patch16_clip", "patch16").replace("patch32_clip", "patch32") for name in networks - {None}}
    plain = {name.replace("patch16_siglip", "patch16").removesuffix("_miil") for name in plain}
    not_measured = {"vit_small_patch14_dinov2", "vit_base_patch14_dinov2"}
    assert plain - not_measured == set(gpu_networks.NETWORKS.values())


def test_best_compromises_are_those_that_nothing_beats():
    def row(name, mri, gain):
        return which_method.Row(name, "m", mri, mri, mri, mri, mri, 10.0, 10.0 + gain, 1.0)

    rows = [row("a", -1, 1), row("b", -2, 2), row("c", -2, 1.5), row("d", -3, 0.5), row("e", -1, 0)]
    assert [found.method for found in which_method.best_compromises(rows)] == ["a", "b"]


def test_the_worked_example_of_a_method_passes_its_own_test():
    (method,) = [block.text for block in blocks(DOCS / "howto" / "method.md") if block.language == "python"]
    (check,) = re.findall(r"```python\n(   @pytest.*?)```", (DOCS / "contributing.md").read_text(), re.DOTALL)
    namespace = dict(vars(test_regularizers))
    exec(method, namespace)
    exec(textwrap.dedent(check), namespace)
    for net in test_regularizers.NETS:
        namespace["test_l1sp_is_a_loop_with_the_sum_of_distances"](net)
    with pytest.raises(AssertionError):  # the test sees another strength
        exec(textwrap.dedent(check).replace("L1SP(0.01)", "L1SP(0.02)"), namespace)
        namespace["test_l1sp_is_a_loop_with_the_sum_of_distances"]("vit")


def test_the_worked_example_of_a_dataset_is_an_entry_of_the_catalog():
    text = (DOCS / "contributing.md").read_text().partition("## Add a dataset")[2].partition("\n## ")[0]
    (entry,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    paintings = eval(textwrap.dedent(entry), dict(vars(catalog)))
    assert (paintings.name, paintings.num_images, len(paintings.classes)) == ("imagenet_paintings", 12_000, 200)
    derived = entry.replace("12_000)", '12_000, derived_from="imagenet_val", may_train=False)')
    assert not eval(textwrap.dedent(derived), dict(vars(catalog))).may_train


def test_the_worked_examples_of_contributing_compose(tmp_path):
    text = (DOCS / "contributing.md").read_text()
    examples = re.findall(r"`conf/((?:method|dataset|study)/\w+\.yaml)`.*?```yaml\n(.*?)```", text, re.DOTALL)
    assert [name for name, _ in examples] == [
        "method/l1sp.yaml",
        "dataset/imagenet_paintings.yaml",
        "study/decay_study.yaml",
    ]
    search = f"hydra.searchpath=[file://{tmp_path}]"
    for name, content in examples:
        file = tmp_path / name
        file.parent.mkdir()
        file.write_text("\n".join(line.removeprefix("   ") for line in content.splitlines()))
        assert yaml.safe_load(file.read_text())
    (study,) = compose_command(["rib.benchmark", search, "study=decay_study"])
    assert study.axes == {"optimizer.weight_decay": [0.0, 0.001, 0.01, 0.1]}
    (paintings,) = compose_command(["rib.train", search, "dataset=imagenet_paintings"])
    assert paintings.dataset.name == "imagenet_paintings"
