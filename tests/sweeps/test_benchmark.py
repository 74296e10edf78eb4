"""Grids through the command: made once, shared by processes, resumed after failures."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import time

import pytest

from rib.pipeline import finetune
from rib.runs.store import RunStore
from tests.support import grids
from tests.support.schemas import validate

pytestmark = pytest.mark.usefixtures("no_progress")

FOUR = ("sources=[imagenet_a]", "methods=[finetune,ewc,wise_ft]")


@pytest.fixture(scope="module")
def made(tmp_path_factory, cache):
    """A finished grid and what it said."""
    store = tmp_path_factory.mktemp("made") / "runs"
    done = grids.run(store, cache, *FOUR)
    assert done.returncode == 0, done.stderr
    return store, done


@pytest.mark.slow
def test_a_grid_makes_every_cell_once_and_shows_its_table(made):
    store, done = made
    assert set(grids.made(store).values()) == {1}
    assert {run.folder.parent.name for run in RunStore(store).finished()} == {
        "pretrained",
        "finetune",
        "ewc",
        "wise_ft",
    }
    assert "needed by several cells, made once: 1 pretrained, 1 Fisher" in done.stdout
    assert "mRI" in done.stdout
    assert list((store / "grids").glob("*/summary.csv"))
    assert grids.unfinished(store) == []


@pytest.mark.slow
def test_a_cell_is_what_train_makes(made, cache, ask_for):
    store, _ = made
    quick = [o for o in grids.QUICK if not o.startswith(("models", "trainer", "data.root"))]
    alone = finetune(ask_for(*quick, "model=mini_small", "dataset=imagenet_a", "+method=ewc"))
    in_grid = RunStore(store).one(method="ewc")
    assert in_grid.key == alone.key
    for ours, theirs in zip(in_grid.metrics().items(), alone.metrics().items(), strict=True):
        assert ours == theirs or ours[0] == "seconds"


@pytest.mark.slow
def test_the_same_again_makes_nothing(made, cache):
    store, _ = made
    before = grids.made(store)
    again = grids.run(store, cache, *FOUR)
    assert again.returncode == 0, again.stderr
    assert grids.made(store) == before
    status = grids.run(store, cache, *FOUR, "action=status", "format=json")
    report = json.loads(status.stdout)
    validate(report, "status")
    assert report["counts"] == {"done": 3, "running": 0, "failed": 0, "refused": 0, "missing": 0}


@pytest.mark.slow
def test_a_failed_cell_is_recorded_and_takes_what_needs_it_along_and_nothing_else(store, cache):
    axes = "axes={optimizer.lr:[0.001,1e30]}"
    done = grids.run(store, cache, "sources=[imagenet_a]", "methods=[finetune,wise_ft]", axes)
    assert done.returncode == 1
    assert "2 of 4 cells have no result" in done.stderr
    assert re.search(r"failed: .*optimizer.lr=1e\+30: .*try a smaller optimizer.lr", done.stderr)
    assert "it needs mini_small, finetune on mini A, seed 0" in done.stderr
    assert len(RunStore(store).finished()) == 3
    assert "try a smaller optimizer.lr" in grids.failures(store)[0]
    again = grids.run(store, cache, "sources=[imagenet_a]", "methods=[finetune,wise_ft]", axes)
    assert again.returncode == 1
    assert "failed before; retry=1 tries again" in again.stderr


@pytest.mark.slow
def test_what_is_not_trained_is_a_cell_and_no_row(made, cache):
    store, _ = made
    done = grids.run(store, cache, "sources=[imagenet_a]", "methods=[pretrained,finetune]")
    assert done.returncode == 0, done.stderr
    table = next(file for file in (store / "grids").glob("*/summary.csv") if "ewc" not in file.read_text())
    assert "pretrained" not in table.read_text()
    alone = grids.run(store, cache, "methods=[pretrained]")
    assert alone.returncode == 0, alone.stderr


@pytest.mark.slow
def test_a_command_line_without_a_grid_is_one_sentence(store, cache):
    done = grids.run(store, cache, "methods=[ewcc]")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("rib: methods: expected a run folder or a method, got 'ewcc'")


@pytest.mark.slow
def test_a_plan_is_json_for_other_programs(store, cache):
    done = grids.run(
        store, cache, "sources=[imagenet_a,objectnet]", "methods=[wise_ft]", "plan_only=true", "format=json"
    )
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    validate(plan, "plan")
    start, end, merged, *rest = plan["cells"]
    assert [cell["label"].split(", ")[1] for cell in (start, end, merged)] == [
        "pretrained",
        "finetune on mini A",
        "wise_ft on mini A",
    ]
    assert (start["wanted"], end["needs"], merged["needs"]) == (False, [start["id"]], [start["id"], end["id"]])
    assert {cell["state"] for cell in plan["cells"]} == {"missing"}
    assert merged["folder"].startswith(str(store))
    assert len(rest) == 2  # mini's ObjectNet may be trained on
    assert plan["shared"] == {"pretrained": 1, "finetune": 2}
    assert plan["seconds"] > 0 and plan["num_bytes"] > 0
    assert not RunStore(store).finished()


@pytest.mark.slow
def test_export_and_import_move_results_without_weights(made, tmp_path, cache):
    store, _ = made
    tar, elsewhere = tmp_path / "grid.tar.gz", tmp_path / "elsewhere"
    assert grids.run(store, cache, "action=export", f"file={tar}").returncode == 0
    taken = grids.run(elsewhere, cache, "action=import", f"file={tar}")
    assert "4 runs imported\n" in taken.stderr
    assert {k: v[0] for k, v in grids.results(elsewhere).items()} == {k: v[0] for k, v in grids.results(store).items()}
    assert not list(elsewhere.rglob("*.safetensors"))
    status = grids.run(elsewhere, cache, *FOUR, "action=status", "format=json")
    assert json.loads(status.stdout)["counts"]["done"] == 3
    run = RunStore(elsewhere).one(method="ewc")
    metrics = run.metrics()
    metrics["accuracy"]["imagenet_r"]["after"] += 0.5
    run.write_json("metrics.json", metrics)
    clash = grids.run(elsewhere, cache, "action=import", f"file={tar}")
    assert clash.returncode == 1
    assert (
        "already in the store with other numbers, and not imported: 1 run: mini/mini_small/imagenet_a/ewc"
        in clash.stderr
    )
    assert run.metrics() == metrics


@pytest.mark.slow
def test_prune_removes_what_nobody_goes_on_with(store, cache):
    left = store / "mini" / "mini_small" / "imagenet_a" / "ewc" / "0123456789abcdef.gone.1.2"
    left.mkdir(parents=True)
    (left / "last.ckpt").write_bytes(b"x" * 2_000_000)
    said = grids.run(store, cache, "action=prune", "plan_only=true")
    assert "1 unfinished run or temporary file would be removed, 2.0 MB" in said.stderr
    assert left.is_dir()
    grids.run(store, cache, "action=prune")
    assert not left.exists()


@pytest.mark.slow
def test_two_grids_at_once_share_the_work(store, cache):
    wide = ("sources=[imagenet_a,imagenet_r,imagenet_v2]", "methods=[finetune,ewc,wise_ft]", "jobs=1")
    line = grids.command(store, cache, *wide)
    both = [subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for grid in both:
        _, err = grid.communicate(timeout=250)
        assert grid.returncode == 0, err
    assert set(grids.made(store).values()) == {1}
    assert len(grids.made(store)) == len(RunStore(store).finished()) == 10


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_grid_survives_kills_a_full_disk_and_damaged_files(store, cache, tmp_path):
    wide = ("sources=[imagenet_a,imagenet_r]", "methods=[finetune,ewc,wise_ft]")
    undisturbed = tmp_path / "undisturbed"
    assert grids.run(undisturbed, cache, *wide).returncode == 0
    full = grids.run(store, cache, *wide, preexec_fn=grids.with_small_files(200_000))
    assert full.returncode == 1
    assert "cannot write" in full.stderr
    assert "finished results are not affected" in full.stderr
    dice = random.Random(0)
    for _ in range(4):
        grid = grids.start(store, cache, *wide, "retry=1")
        time.sleep(dice.uniform(3, 9))
        grids.kill_one_of(dice, grid)
        grids.end(grid)
    assert grids.run(store, cache, *wide, "retry=1").returncode == 0
    grids.damage_metrics(RunStore(store).one(method="ewc", source="imagenet_a"))
    grids.damage_weights(RunStore(store).one(method="finetune", source="imagenet_a"))
    merged = RunStore(store).one(method="wise_ft", source="imagenet_a").folder
    subprocess.run(["rm", "-r", str(merged)], check=True)
    done = grids.run(store, cache, *wide, "retry=1")
    assert done.returncode == 0, done.stderr
    assert grids.differences(store, undisturbed) == []
    assert grids.unfinished(store) == []


@pytest.mark.slow
def test_cells_go_to_a_cluster_in_dependency_order(store, cache):
    """Through submitit's local executor, which is what its SLURM one is but for sbatch."""
    done = grids.run(
        store, cache, "sources=[imagenet_a]", "methods=[finetune,wise_ft]", "hydra/launcher=submitit_local"
    )
    assert done.returncode == 0, done.stderr
    assert len(RunStore(store).finished()) == 3
    logs = [log.read_text() for log in (store / "submitit").glob("*/*_log.err")]
    assert sum("saved " in log for log in logs) == 3


@pytest.mark.slow
def test_the_server_imports_and_reads_what_cells_need():
    """Cells are forked with all of it; a name that is missing would only make each of them slower."""
    code = (
        "import sys, rib.sweeps.preload as p; from rib.config.defaults import default_options as d; "
        "print([m for m in p.MODULES if m not in sys.modules], d.cache_info().currsize)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout == "[] 1\n"
    assert "leak" not in done.stderr
