"""``python -m rib.train``: fine-tune a model on one dataset and report how its accuracy changes on the others.

The path from the command to the number (RI, in metrics.json), file by file:

1. ``rib/config/composition.py`` turns the command line into a checked `Config`.
2. ``rib/pipeline.py`` returns the finished run or makes it. Read this file first; it calls the others in this order:
3. ``rib/runs/resolve.py`` finds images and weights and fills in the options left open, which gives a
4. ``rib/runs/spec.py``: a `RunSpec`, with the hash keys of its weights and scores.
5. ``rib/runs/store.py`` looks for a run with these keys, locks its folder, and publishes it at the end.
6. ``rib/training/fit.py`` builds Lightning's Trainer and fits with
7. ``rib/runs/images.py``, which makes the `RIBDataModule`, and
8. ``rib/training/module.py``, which computes the loss;
9. ``rib/methods/base.py`` adds the penalty of each method (``rib/methods/ewc.py`` and so on).
10. ``rib/scoring/one_pass.py`` scores the fine-tuned model on every dataset.
11. ``rib/reporting/publish.py`` writes metrics.json and the figures;
12. ``rib/runs/measure.py`` compares the predictions with the pretrained model's, and
13. ``rib/metrics/robustness.py`` computes RI.
"""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from rib.config.composition import check_command
from rib.config.launch import launch, one_sentence_errors
from rib.config.schema import Config
from rib.config.shipped import conf_dir
from rib.runs.run import Run
from rib.runtime.console import rank
from rib.sweeps.multirun import (
    is_job,
    needs_own_process,
    print_folder,
    record_job,
    run_in_own_process,
    show_jobs_after,
)


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="train")
@record_job
@one_sentence_errors
def _main(cfg: DictConfig) -> Run:
    config = check_command(cfg, Config)
    from rib.pipeline import find_finished, finetune, finish

    # A job of a multirun cannot start ranks of its own: Lightning would give them the whole sweep's command.
    if needs_own_process(config) and find_finished(config) is None:
        run = run_in_own_process()
        print_folder(run)
        return run
    run = finish(config)[0] if is_job() else finetune(config)
    if rank() == 0:
        print_folder(run)
    return run


def main() -> None:
    """Entry point of ``rib-train``."""
    launch(show_jobs_after(_main), "train")


if __name__ == "__main__":
    main()
