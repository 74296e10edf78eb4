"""``python -m rib.train``: fine-tune a model on one dataset and report what that did to all the others.

Six hops from command to number: this main, `rib.pipeline.finetune`, `rib.module.FineTuner` (training),
`rib.scoring.score` (predictions), `rib.results.measure` (accuracy and RI), `rib.tables` (what is printed).
"""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from rib.config import checked, conf_dir
from rib.launch import launch, quietly, rank
from rib.schema import Config


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="train")
@quietly
def _main(cfg: DictConfig) -> None:
    config = checked(cfg, Config)
    from rib.pipeline import finetune

    run = finetune(config)
    if rank() == 0:
        print(run.folder.resolve())


def main() -> None:
    """Entry point of ``rib-train``."""
    launch(_main)


if __name__ == "__main__":
    main()
