"""What each method that trains adds to a step, and to memory: a ViT-tiny at 224 px, batch 16, on the CPU.

    python benchmarks/methods.py [NAME ...]     # about 20 seconds a method and repeat on two cores

Each measurement is a process of its own, through `rib.train`'s own pipeline; plain fine-tuning takes its turn in every
round, and a ratio is that of a round, so that a noisy machine hurts both alike. Peak memory is the process's, scoring
of 96 images included.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from rib.config import compose, options, shipped_nodes
from rib.methods.base import Method

ROUNDS = 3
SKIPPED = 2
BATCH = 16
IMAGES = 96


class Clock(Method):
    """Prints the seconds of each step."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin."""
        self.ends = [time.perf_counter()]

    def on_train_batch_end(self, *_: Any) -> None:
        """One more."""
        self.ends.append(time.perf_counter())

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Report the median step in seconds."""
        steps = [b - a for a, b in zip(self.ends, self.ends[1:], strict=False)][SKIPPED:]
        print(json.dumps({"seconds": median(steps)}), flush=True)


def measure(name: str, folder: Path) -> None:
    """One process: a fine-tuning of six steps with one method."""
    from rib.pipeline import finetune

    finetune(
        compose(
            f"+method={name}",
            "+method.clock._target_=methods.Clock",
            *("model=timm", "model.name=vit_tiny_patch16_224", f"model.weights={folder / 'weights.safetensors'}"),
            *("dataset=imagenet_r", "suite.targets=[imagenet_a]", "suite.reported=[]", "data.root=null"),
            *(f"data.limit={IMAGES}", "epochs=1", f"batch_size={BATCH}", "evaluation.batch_size=16", "trainer=cpu"),
            *(f"paths.runs={folder / 'runs'}", "optimizer.lr=0.0001"),
        )
    )
    print(json.dumps({"peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}), flush=True)


def main() -> None:
    """Print a line a method: step time against plain fine-tuning's, and peak memory."""
    if sys.argv[1:2] == ["measure"]:
        measure(sys.argv[2], Path(sys.argv[3]))
        return
    import timm
    import torch

    from rib.weights import save_weights

    nodes = shipped_nodes("method")
    trains = [n for n in options("method") if n not in ("pretrained", "finetune") and "ingredients" not in nodes[n]]
    names = ["finetune", *(sys.argv[1:] or trains)]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        save_weights(timm.create_model("vit_tiny_patch16_224").state_dict(), folder / "weights.safetensors")
        for _ in range(ROUNDS):
            for method in names:
                line = [sys.executable, __file__, "measure", method, str(folder)]
                done = subprocess.run(line, capture_output=True, text=True, check=True)
                facts = [json.loads(text) for text in done.stdout.splitlines() if text.startswith("{")]
                found[method].append({k: v for fact in facts for k, v in fact.items()})
                for run in (folder / "runs").glob("*/*/imagenet_r/*/*/metrics.json"):
                    run.unlink()  # the next round trains again; `pretrained` stays
                    (run.parent / "fit.json").unlink()
                print(f"{method}: {found[method][-1]}", file=sys.stderr, flush=True)
    plain = [f["seconds"] for f in found["finetune"]]
    memory = median(f["peak_gb"] for f in found["finetune"])
    print(f"vit_tiny_patch16_224, batch {BATCH}: plain fine-tuning {median(plain):.2f} s a step, {memory:.2f} GB")
    for method in names[1:]:
        ratio = median(f["seconds"] / p for f, p in zip(found[method], plain, strict=True))
        peak = median(f["peak_gb"] for f in found[method])
        print(f"{method}: {ratio:.2f} x a step, {peak:.2f} GB")


if __name__ == "__main__":
    main()
