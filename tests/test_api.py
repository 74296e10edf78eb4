"""The functions of ``import rib``: they are there whatever was imported, and mean what the command line means."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

import rib
import rib.pipeline
from rib.config.shipped import conf_dir


def functions():
    return [name for name in rib.__all__ if not name.startswith("_") and not name.endswith("Error")]


def test_after_every_module_is_imported_each_name_is_still_a_function(toy):
    """``rib.evaluate`` is a module once anything imports it, so no function may have such a name."""
    for module in pkgutil.walk_packages(rib.__path__, "rib."):
        importlib.import_module(module.name)
    calls = {
        "finetune": lambda: rib.finetune("ewc", **toy.options),
        "load": lambda: rib.load(toy.ewc.key, runs=toy.root),
        "find_runs": lambda: rib.find_runs(runs=toy.root),
        "compare": lambda: rib.compare(toy.ewc, toy.plain),
        "score": lambda: rib.score(toy.ewc.model().model, data="mini", limit=5, datasets=["imagenet_a"]),
    }
    assert set(calls) == set(functions()), "call the new function here, too"
    for name, call in calls.items():
        assert isinstance(getattr(rib, name), types.FunctionType), name
        assert type(call()).__module__.startswith(("rib.results", "rib.scoring")), name


def test_the_lazy_names_are_those_that_type_checkers_see():
    tree = ast.parse(Path(rib.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    seen = {node.names[0].name: node.module.rpartition(".")[2] for node in block.body}
    assert seen == rib._MODULES
    assert {*seen, "__version__"} == set(rib.__all__) == set(dir(rib))
    assert all(getattr(rib, name).__doc__ for name in functions())
    with pytest.raises(AttributeError, match="has no attribute 'fine_tune'") as caught:
        rib.fine_tune  # noqa: B018
    assert caught.value.name == "fine_tune" and caught.value.obj is rib  # Python adds "did you mean"


def test_import_rib_waits_for_nothing():
    code = (
        "import time; begun = time.process_time(); import rib; took = time.process_time() - begun; import sys; "
        "assert took < 0.3, took; "
        "assert not {'torch', 'hydra', 'numpy', 'pandas', 'rib.api'} & sys.modules.keys(), sorted(sys.modules); "
        "rib.load; assert not {'torch', 'hydra', 'pandas', 'matplotlib'} & sys.modules.keys(); rib.RibError"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_second_call_returns_the_stored_run_and_prints_nothing_to_stdout(toy, capfd):
    again = rib.finetune(["ewc"], "optimizer.lr=0.05", **{**toy.options, "optimizer": "sgd"})
    assert again == toy.ewc and hash(again) == hash(toy.ewc)
    assert capfd.readouterr() == ("", "")
    assert rib.finetune(method="ewc", **toy.options) == toy.ewc


@pytest.mark.slow
def test_a_suite_that_is_asked_for_is_the_one_that_is_returned(toy):
    of_r = rib.finetune("ewc", **toy.options, suite={"targets": ["imagenet_r"], "reported": []})
    assert of_r.folder == toy.ewc.folder and of_r != toy.ewc
    assert list(of_r.metrics["accuracy"]) == ["imagenet_r"] and of_r.metrics["suite"] == "seven*"
    assert rib.load(toy.ewc.key, runs=toy.root).metrics == toy.ewc.metrics
    assert rib.load(toy.ewc, suite="seven*").metrics == of_r.metrics
    with pytest.raises(rib.RibError, match=r"no metrics of suite paper \(scored on: seven, seven\*\); .* suite=paper"):
        rib.load(toy.ewc, suite="paper")
    comparison = rib.compare(of_r, toy.plain)
    assert comparison.datasets == comparison.targets == ["imagenet_r"]
    assert "scored in one of the runs only: imagenet_a" in comparison.notes[0]


def test_two_methods_are_refused():
    with pytest.raises(rib.RibError, match="method: expected one value, got 'ewc' and 'lwf'"):
        rib.finetune("ewc", method="lwf")


def test_a_program_that_uses_hydra_itself_keeps_its_state(toy):
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        mine = GlobalHydra.instance().hydra
        assert rib.finetune("ewc", **toy.options) == toy.ewc
        assert GlobalHydra.instance().hydra is mine
        assert compose("report").out is None


def test_an_interrupt_stays_an_interrupt(monkeypatch, toy):
    """Lightning turns Ctrl-C in a fit into exit(1), which a notebook would show as a SystemExit."""

    def interrupted(config):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)

    monkeypatch.setattr(rib.pipeline, "finish", interrupted)
    with pytest.raises(KeyboardInterrupt, match="the same call resumes"):
        rib.finetune("ewc", **toy.options)
    monkeypatch.setattr(rib.pipeline, "finish", lambda config: sys.exit(3))
    with pytest.raises(SystemExit, match="3"):
        rib.finetune("ewc", **toy.options)


@pytest.mark.slow
def test_an_interrupted_call_resumes(tmp_path, cache):
    code = f"""
import signal, rib
signal.signal(signal.SIGINT, signal.default_int_handler)
options = dict(model="mini_tiny", epochs=40, trainer="cpu", checkpoint=dict(every_minutes=0))
places = dict(runs={str(tmp_path)!r}, paths=dict(cache={str(cache)!r}))
try:
    rib.finetune(**options, **places)
except KeyboardInterrupt as interrupt:
    print("interrupted:", interrupt)
    print(rib.finetune(**options, **places))
"""
    environment = {k: v for k, v in os.environ.items() if k != "RIB_DATA"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    for _ in range(600):
        if list(tmp_path.glob("*/*/*/*/*/last.ckpt")):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=240)
    assert out.startswith("interrupted: interrupted; the same call resumes"), (out, error)
    assert "resuming at" in error and "<FinishedRun" in out, (out, error)
    # Progress is occasional lines, and never one a batch.
    assert len(error.splitlines()) < 20, error


@pytest.mark.slow
def test_each_process_of_a_script_gets_the_run(tmp_path, cache):
    script = tmp_path / "script.py"
    script.write_text(
        f"""
import rib

if __name__ == "__main__":
    two = ("trainer.devices=2", "trainer.accelerator=cpu")
    options = dict(trainer="ddp", model="mini_tiny", steps=2, paths=dict(cache={str(cache)!r}))
    run = rib.finetune(*two, **options, runs={str(tmp_path / "runs")!r})
    assert run == rib.finetune(*two, **options, runs={str(tmp_path / "runs")!r})
    print(run.key)
"""
    )
    environment = {k: v for k, v in os.environ.items() if k != "RIB_DATA"}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr
    key = rib.find_runs(method="finetune", runs=tmp_path / "runs")[0].key
    assert done.stdout.replace("\n", "") == 2 * key  # the two may write at the same time
