"""``python -m rib.train``: fine-tune a model on one dataset and report what that did to all the others.

Six hops from command to number: this main, `rib.pipeline.finetune`, `rib.module.FineTuner` (training),
`rib.scoring.score` (predictions), `rib.results.measure` (accuracy and RI), `rib.tables` (what is printed).
"""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from rib.config import asked, conf_dir
from rib.launch import launch, quietly, rank
from rib.schema import Config
from rib.store import Run
from rib.sweep import in_own_process, needs_own_process, recorded


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
