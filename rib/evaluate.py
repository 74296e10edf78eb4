"""``python -m rib.evaluate``: score finished runs, or weights from elsewhere, without training anything."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from rib.config import asked, conf_dir
from rib.launch import launch, quietly, rank
from rib.schema import EvaluateConfig


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="evaluate")
@quietly
def _main(cfg: DictConfig) -> None:
    config = asked(cfg, EvaluateConfig)
    from rib.rescoring import evaluate

    runs = evaluate(config)
    if rank() == 0:
        for run in runs:
            print(run.folder.resolve())


def main() -> None:
    """Entry point of ``rib-evaluate``."""
    launch(_main)


if __name__ == "__main__":
    main()
