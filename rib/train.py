"""``python -m rib.train``: fine-tune a model on one dataset and report what that did to all the others.

Six hops from command to number: this main, `rib.pipeline.finetune`, `rib.training.module.FineTuner` (training),
`rib.scoring.score` (predictions), `rib.runs.measure` (accuracy and RI), `rib.reporting.run_view` (what is printed).
"""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from rib.config.composition import asked
from rib.config.launch import launch, quietly
from rib.config.schema import Config
from rib.config.shipped import conf_dir
from rib.runs.run import Run
from rib.runtime.console import rank
from rib.sweeps.multirun import in_own_process, needs_own_process, recorded


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="train")
@recorded
@quietly
def _main(cfg: DictConfig) -> Run:
    config = asked(cfg, Config)
    from rib.pipeline import finetune, stored

    if needs_own_process(config) and stored(config) is None:
        return in_own_process()
    run = finetune(config)
    if rank() == 0:
        print(run.folder.resolve())
    return run


def main() -> None:
    """Entry point of ``rib-train``."""
    launch(_main)


if __name__ == "__main__":
    main()
