"""From `rib data init` to the report, as commands: images in folders, a manifest, tar shards or a Python module."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import rib
from tests.support.suites import CLASSES, DOMAINS, make_photo_suite

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MODULE = """
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parent / "images"


class Photographs:
    version = "1"

    def __init__(self, domain):
        self.files = sorted((ROOT / domain).glob("*/*.jpg"))
        self.ids = [f"{file.parent.name}-{file.stem}" for file in self.files]
        self.labels = [file.parent.name for file in self.files]

    def image(self, i):
        return np.asarray(Image.open(self.files[i]))


"""


@dataclass(frozen=True)
class Outcome:
    """What the commands on one form of data left.

    Attributes:
        file: The suite's file.
        said: What each command printed, by its name.
        store: The run store.
    """

    file: Path
    said: dict[str, str]
    store: Path

    @property
    def suite(self) -> dict[str, Any]:
        return yaml.safe_load(self.file.read_text())

    def runs(self) -> list[rib.results.finished_run.FinishedRun]:
        return list(rib.find_runs(runs=self.store))


def folders(root: Path) -> None:
    """(a) A folder for each domain with a folder for each class, and what else lies about."""
    make_photo_suite(root).unlink()
    (root / "notes.txt").write_text("not an image")


def gaps(root: Path) -> None:
    """(b) 65 classes, of which all domains but toy lack some."""
    names = [f"class_{i:02}" for i in range(65)]
    lacks = {"photo": names[:3], "sketch": names[10:30], "paint": names[-1:]}
    make_photo_suite(root, classes=65, per_class=3, lacks=lacks).unlink()


def described(root: Path, **domains: dict[str, Any]) -> None:
    titled = {name: {"title": f"Domain {name}", **domain} for name, domain in domains.items()}
    document = {"name": "described", "title": "Photographs told of", "classes": list(CLASSES), "domains": titled}
    (root / "described.yaml").write_text(yaml.safe_dump(document, sort_keys=False))


def manifest(root: Path) -> None:
    """(c) A table of paths, labels and domains."""
    make_photo_suite(root).unlink()
    files = sorted(root.glob("*/*/*.jpg"))
    rows = [f"{file.relative_to(root)},{file.parts[-2]},{file.parts[-3]}" for file in files]
    (root / "table.csv").write_text("\n".join(["path,label,domain", *rows]))
    described(root, **{name: {"manifest": "table.csv", "domain": name} for name in DOMAINS})


def shards(root: Path) -> None:
    """(d) Two tar files a domain, each with some of the classes."""
    make_photo_suite(root / "images")
    for domain in DOMAINS:
        for number, classes in enumerate((CLASSES[:3], CLASSES[3:])):
            with tarfile.open(root / f"{domain}-{number}.tar", "w") as archive:
                for file in sorted((root / "images" / domain).glob("*/*.jpg")):
                    if file.parent.name in classes:
                        for ending, content in (("jpg", file.read_bytes()), ("cls", file.parent.name.encode())):
                            member = tarfile.TarInfo(f"{file.parent.name}-{file.stem}.{ending}")
                            member.size = len(content)
                            archive.addfile(member, io.BytesIO(content))
    shutil.rmtree(root / "images")
    described(root, **{name: {"shards": f"{name}-*.tar"} for name in DOMAINS})


def python(root: Path) -> None:
    """(e) A function for each domain, which gives arrays."""
    make_photo_suite(root / "images")
    functions = "".join(f"def {name}():\n    return Photographs({name!r})\n\n\n" for name in DOMAINS)
    (root / "my_photographs.py").write_text(MODULE + functions)
    described(root, **{name: {"python": f"my_photographs:{name}"} for name in DOMAINS})


FORMS: dict[str, Callable[[Path], None]] = {
    "folders": folders,
    "gaps": gaps,
    "manifest": manifest,
    "shards": shards,
    "python": python,
}
SAME = ("folders", "manifest", "shards", "python")
"""Forms that hold the same images in the same order."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, cache) -> dict[str, Outcome]:
    return {name: made(tmp_path_factory.mktemp(name), make) for name, make in FORMS.items()}


def made(folder: Path, make: Callable[[Path], None]) -> Outcome:
    """Give a user's commands in a folder, from the images to the report."""
    make(folder / "photos")
    said = {}

    def command(*arguments: str) -> None:
        environment = {k: v for k, v in os.environ.items() if k not in ("RIB_DATA", "RIB_RUNS", "RIB_CACHE")}
        environment |= {"RIB_CACHE": str(folder / "cache"), "PYTHONPATH": str(Path(__file__).parents[1])}
        line = [sys.executable, "-m", "rib", *arguments]
        done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
        said[" ".join(word for word in arguments[:2] if re.fullmatch("[a-z]+", word))] = done.stdout + done.stderr
        assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout}\n{done.stderr}"

    begins = not list((folder / "photos").glob("*.yaml"))
    if begins:
        command("data", "init", "photos")
    (file,) = (folder / "photos").glob("*.yaml")
    name = str(file.relative_to(folder))
    command("data", "check", name)
    options = (f"suite={name}", "head=probe", "head.reference=toy", "epochs=1", "batch_size=8", "optimizer.lr=0.01")
    options = (*options, "trainer=cpu", "data.image_backend=pil", "figures.format=png")
    if begins:
        command("data", "sheet", name)
        command("benchmark", *options, "models=[mini_tiny]", "methods=[finetune,wise_ft]", "sources=[photo]")
    else:  # as one process, which takes a third of the time
        command("train", "-m", *options, "model=mini_tiny", "+method=finetune,wise_ft", "dataset=photo")
    command("report", f"suite={name}", "figures.format=png")
    return Outcome(file, said, folder / "runs")


@pytest.mark.parametrize("form", FORMS)
def test_ri_is_recomputed_from_the_predictions(outcomes, form):
    runs = [run for run in outcomes[form].runs() if run.metrics["method"] != "pretrained"]
    assert {run.metrics["method"] for run in runs} == {"finetune", "wise_ft"}
    for run in runs:
        assert run.metrics["robustness_improvement"]["targets"] == [
            name for name in outcomes[form].suite["domains"] if name in ("paint", "sketch")
        ]
        changes = {}
        for name, entry in run.metrics["accuracy"].items():
            after, before = run.predictions(name), run.before.predictions(name)
            assert entry["num_images"] == len(after)
            assert entry["before"] == pytest.approx(before.correct.mean(), abs=1e-12)
            assert entry["after"] == pytest.approx(after.correct.mean(), abs=1e-12)
            changes[name] = 100 * (entry["after"] - entry["before"])
        assert run.ri.value == pytest.approx(np.mean([changes["sketch"], changes["paint"]]), abs=1e-9)
        assert run.metrics["protocol"]["head"] == "reference:toy"
        assert str(outcomes[form].store.parent) not in json.dumps(run.metrics)
        assert run.metrics["data"]["kind"] == outcomes[form].suite["name"]


@pytest.mark.parametrize("form", FORMS)
def test_the_table_names_the_suite_and_its_domains(outcomes, form):
    outcome = outcomes[form]
    text = (outcome.store / "report" / "summary.md").read_text()
    assert outcome.suite["title"] in text
    assert outcome.suite["domains"]["photo"].get("title", "photo") in text
    assert "imagenet" not in text.lower()


def test_the_same_images_give_the_same_numbers_in_every_form(outcomes):
    def numbers(form):
        runs = [run for run in outcomes[form].runs() if run.metrics["method"] != "pretrained"]
        return {
            run.metrics["method"]: {n: (e["before"], e["after"]) for n, e in run.metrics["accuracy"].items()}
            for run in runs
        }

    first = numbers("folders")
    assert all(numbers(form) == first for form in SAME)
    assert len({before for before, _ in first["finetune"].values()}) > 1


def test_init_and_check_say_what_a_domain_lacks(outcomes):
    said = outcomes["gaps"].said
    assert "class_00" in said["data init"] + said["data check"]
    assert len(outcomes["gaps"].suite["classes"]) == 65


def test_what_init_ignores_is_said(outcomes):
    assert "notes.txt" in outcomes["folders"].said["data init"]
