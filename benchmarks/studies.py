"""Results of the studies on the built-in data: run each, and put its paragraph and figures into the documentation.

    python -m benchmarks.studies [RUNS [PAGE]]

RUNS is the store (default: runs); runs that it holds are not made again. From an empty store it takes 20 minutes on two
CPU cores. PAGE is studies.md or paper.md (default: both). Everything between the pages' markers is generated; the
sentences about the paper come from ``STUDIES`` below.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
FIGURES = DOCS / "studies"
BEGIN, END = "<!-- written by benchmarks/studies.py -->", "<!-- end of what benchmarks/studies.py writes -->"

STUDIES = {
    "negative_controls": (
        "Do the numbers mean anything?",
        "The paper has no controls.",
    ),
    "pretraining_scale": (
        "Do models pretrained on more lose more?",
        "The paper: models pretrained on more start more robust and lose more: mRI +1.3 for ImageNet-1k with AugReg, "
        "-0.1 for ImageNet-21k, -5.5 for ImageNet-21k with AugReg, -38 for OpenAI's and LAION-2B's CLIP (ViT-B/16, "
        "one seed).",
    ),
    "cka_study": (
        "Does the shift of representations predict the loss?",
        "The paper: CKA with the start falls most in LAION-2B's and OpenAI's models, in block 6's `mlp.fc2` above all; "
        "estimator, images and intervals are not given.",
    ),
    "size_study": (
        "Are small fine-tuning sets the cause?",
        "The paper: the size of the fine-tuning set is the main determinant: CLIP models fine-tuned on subsets of "
        "ImageNet lose more the smaller the subset, those pretrained on less keep what they had. Its sizes are not "
        "published.",
    ),
    "pretraining_by_finetuning": (
        "Pretraining by fine-tuning: where is nothing lost?",
        "The paper names this map as a next step.",
    ),
    "ewc_study": (
        "What does EWC buy, and could interpolation buy it cheaper?",
        "The paper: EWC, LwF and soups help and do not fully compensate; its EWC has no Fisher and one strength.",
    ),
    "lr_study": (
        "Is one learning rate for all the cause?",
        "The paper trains every model at one rate, 1e-3; its reviewers suspected that to be the cause.",
    ),
}
"""By study: its question, and what the paper says about it."""

PAGES = {
    "studies.md": STUDIES,
    "paper.md": {
        "paper_errata": (
            "What does each error cost?",
            "The same cells with and without each error, one switch at a time.",
        ),
    },
}
"""By page of the documentation: its studies."""


def run_study(study: str, runs: str) -> Path:
    """Run a study and return the folder of its table, paragraph and figures."""
    command = [sys.executable, "-m", "rib.benchmark", f"study={study}", f"paths.runs={runs}", "data.root=null"]
    subprocess.run(command, check=True)
    return Path(runs) / "studies" / study


def section(study: str, folder: Path) -> str:
    """Copy a study's figures into docs/studies and return its section in Markdown."""
    question, paper = next(page[study] for page in PAGES.values() if study in page)
    about, *lines = (folder / "summary.md").read_text().splitlines()
    points = "\n".join(re.sub(r"^( *)", r"\1- ", line) for line in lines)
    figures = []
    for file in sorted(folder.glob("*.png")):
        target = FIGURES / f"{study}_{file.name}"
        shutil.copyfile(file, target)
        figures.append(f'<img src="studies/{target.name}" width="440" alt="{study}: {file.stem}">')
    return (
        f"## {question}\n\n`python -m rib.benchmark study={study}`. {paper}\n\n"
        f"{about}\n\n{points}\n\n{chr(10).join(figures)}\n"
    )


def main() -> None:
    """Run the studies of each page and rewrite the page's part."""
    runs = sys.argv[1] if len(sys.argv) > 1 else "runs"
    FIGURES.mkdir(parents=True, exist_ok=True)
    for page in sys.argv[2:] or PAGES:
        for study in PAGES[page]:
            for file in FIGURES.glob(f"{study}_*.png"):
                file.unlink()
        text = "\n".join(section(study, run_study(study, runs)) for study in PAGES[page])
        file = DOCS / page
        before, rest = file.read_text().split(BEGIN)
        file.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
