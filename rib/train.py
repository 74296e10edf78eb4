"""``python -m rib.train``: fine-tune a model on one dataset and report what that did to all the others.

One run, from the command to the number:

1. ``rib/config/composition.py`` turns the command into a checked `Config`.
2. ``rib/pipeline.py`` makes the run, or finds it finished. Read this one first; it calls the rest in order:
3. ``rib/runs/resolve.py`` finds images and weights and settles open options: a
4. ``rib/runs/spec.py``, whose keys name weights and scores.
5. ``rib/runs/store.py`` looks the keys up, locks the run's folder, and publishes it in the end.
6. ``rib/training/fit.py`` builds Lightning's Trainer with
7. ``rib/runs/images.py``, the images as a `RIBDataModule`,
8. ``rib/training/module.py``, the loss, to which
9. ``rib/methods/base.py`` adds each method's penalty (``rib/methods/ewc.py`` and so on).
10. ``rib/scoring/one_pass.py`` scores the fine-tuned model on every dataset.
11. ``rib/reporting/publish.py`` writes metrics.json and the figures, from
12. ``rib/runs/measure.py``, which compares predictions with the pretrained model's, and
13. ``rib/metrics/robustness.py``, which computes RI.
"""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from rib.config.composition import check_command
from rib.config.launch import launch, quietly
from rib.config.schema import Config
from rib.config.shipped import conf_dir
from rib.runs.run import Run
from rib.runtime.console import rank
from rib.sweeps.multirun import needs_own_process, record_job, run_in_own_process


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="train")
@record_job
@quietly
def _main(cfg: DictConfig) -> Run:
    config = check_command(cfg, Config)
    from rib.pipeline import find_finished, finetune

    if needs_own_process(config) and find_finished(config) is None:
        return run_in_own_process()
    run = finetune(config)
    if rank() == 0:
        print(run.folder.resolve())
    return run


def main() -> None:
    """Entry point of ``rib-train``."""
    launch(_main)


if __name__ == "__main__":
    main()
