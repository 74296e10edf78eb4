"""Scoring eight models on all sets in float32: rib in one pass, against one model and one set after the other.

    python -m benchmarks.scoring

The first row is PIL in a DataLoader with two workers, without rib. Top-1 must be equal and log-probabilities within
1e-4 where rib reads with PIL too, which is checked; the ratio is that of rib's default. The second row is rib, one
model at a time, which must give the same bits. Both begin with an empty cache.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks import photographs
from benchmarks.problem import read_problem, resolved, write_problem
from benchmarks.side_by_side import SMALL, Taken, clocks, command, compare, heading, say_taken

MODELS = 2 if SMALL else 8
IMAGES = 4 if SMALL else 12
"""Photographs of each of the eight sets."""


def make_weights(pretrained: Path, folder: Path) -> None:
    """Write weights that are the pretrained ones with a little noise."""
    import torch
    from safetensors.torch import load_file, save_file

    state = load_file(pretrained)
    for number in range(MODELS):
        torch.manual_seed(number)
        noisy = {k: t + 1e-4 * torch.randn_like(t) if t.is_floating_point() else t for k, t in state.items()}
        save_file(noisy, folder / f"model-{number}.safetensors")


def without_rib(problem: Path, out: Path) -> None:
    """Score all models one by one, and write top-1 and the log-probability of every image's label."""
    import torch
    from safetensors.torch import load_file

    naive, _ = read_problem(problem)
    begun = clocks()
    with torch.no_grad():
        for number in range(MODELS):
            model = naive.model(load_file(problem.parent / f"model-{number}.safetensors")).eval()
            for name, domain in naive.domains.items():
                top, log_p = [], []
                for images, labels in naive.loader(domain, batch_size=256):
                    logits = domain.classes(model(images)).log_softmax(1)
                    top.append(logits.argmax(1))
                    log_p.append(logits.gather(1, labels[:, None])[:, 0])
                np.savez(out / f"{number}-{name}.npz", top=torch.cat(top).numpy(), log_p=torch.cat(log_p).numpy())
    say_taken(begun)


def with_rib(weights: Path, out: Path, at_a_time: int, options: Sequence[str]) -> None:
    """Score the models with rib, some at a time, and write the same as `without_rib`."""
    import torchvision.transforms.v2  # noqa: F401 - imports are not timed

    from rib.runs.images import data_of
    from rib.runs.run import Run
    from rib.runtime.processes import launch_processes
    from rib.scoring.one_pass import LoadedRun, score_together

    spec = resolved(*options)
    fabric = launch_processes(spec.config)
    runs = [Run(out / f"run-{number}") for number in range(MODELS)]
    begun = clocks()
    for first in range(0, MODELS, at_a_time):
        entries = []
        for number in range(first, min(first + at_a_time, MODELS)):
            runs[number].folder.mkdir(parents=True)
            shutil.copyfile(weights / f"model-{number}.safetensors", runs[number].weights_file)
            entries.append(LoadedRun.load(spec, runs[number], list(spec.scored), data_of(spec), fabric))
        score_together(entries, fabric, "scoring")
    ended = clocks()
    for number, run in enumerate(runs):
        for file in run.folder.glob("predictions/*.npz"):
            found = np.load(file)
            np.savez(
                out / f"{number}-{file.name.partition('.')[0]}.npz", top=found["top5"][:, 0], log_p=found["log_prob"]
            )
    say_taken((clocks()[0] - ended[0] + begun[0], clocks()[1] - ended[1] + begun[1]))


def differences(one: Path, other: Path) -> tuple[int, int, float]:
    """Return the images, those whose top-1 differs, and the largest difference of a log-probability."""
    files = sorted(file.name for file in one.glob("*.npz"))
    assert files and files == sorted(file.name for file in other.glob("*.npz")), "expected the same predictions"
    pairs = [(np.load(one / name), np.load(other / name)) for name in files]
    images = sum(len(a["top"]) for a, _ in pairs)
    flips = sum(int((a["top"] != b["top"]).sum()) for a, b in pairs)
    return images, flips, max(float(np.abs(a["log_p"] - b["log_p"]).max()) for a, b in pairs)


def main() -> None:
    """Print the table, and how far the predictions of the ways are from each other."""
    heading(f"Scoring {MODELS} models of EfficientNet-lite0 on 8 sets of {IMAGES} photographs, float32")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = photographs.build(folder / "data", IMAGES)
        options = [
            *("model=efficientnet_lite0", "dataset=imagenet_v2", f"data.root={root}", "data.allow_incomplete=true"),
            *("trainer=cpu", f"paths.cache={folder}/cache", f"paths.runs={folder}/runs"),
        ]
        spec = resolved(*options)
        problem = write_problem(spec, folder, scored="all")
        make_weights(folder / "pretrained.safetensors", folder)

        def fresh(way: str) -> Path:
            shutil.rmtree(folder / "cache", ignore_errors=True)
            shutil.rmtree(folder / way, ignore_errors=True)
            (folder / way).mkdir()
            return folder / way

        def rib(way: str, at_a_time: int, *more: str) -> Callable[[], Taken]:
            line = ("-m", "benchmarks.scoring", "rib", folder, folder / way, at_a_time, *options, *more)
            return command(*line, before=lambda: fresh(way))

        naive = command("-m", "benchmarks.scoring", "naive", problem, folder / "naive", before=lambda: fresh("naive"))

        def same_bits(one: Taken, together: Taken) -> None:
            _, flips, apart = differences(folder / "one", folder / "together")
            assert flips == 0 and apart == 0, f"{flips} images differ, log p by {apart}"

        def limit(taken: Taken) -> str:
            from benchmarks.limits import limit_of_passes

            return limit_of_passes(spec, MODELS * sum(map(len, spec.scored.values())), taken.wall)

        together = rib("together", MODELS)
        compare("scoring", ("without rib", naive), ("rib", together), at_least=1.3, usual_rounds=2, limit=limit)
        rib("pil", MODELS, "data.image_backend=pil")()
        images, flips, apart = differences(folder / "naive", folder / "pil")
        compare("scoring", ("rib, one by one", rib("one", 1)), ("rib", together), usual_rounds=1, check=same_bits)
        print(
            f"\nwith PIL, rib against without rib: {flips} of {images} top-1 differ, log p by at most {apart:.1e}; "
            "rib together against one by one: the same bits"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["naive"]:
        without_rib(Path(sys.argv[2]), Path(sys.argv[3]))
    elif sys.argv[1:2] == ["rib"]:
        with_rib(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
    else:
        main()
