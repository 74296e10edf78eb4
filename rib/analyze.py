"""``python -m rib.analyze``: compare the layers of a fine-tuned model with those of its pretrained model.

``analysis=cka`` compares representations, ``analysis=drift`` compares weights.
"""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from rib.config.check import check_config
from rib.config.command_schema import AnalyzeConfig, CKAConfig
from rib.config.launch import launch, one_sentence_errors
from rib.config.shipped import conf_dir


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="analyze")
@one_sentence_errors
def _main(cfg: DictConfig) -> None:
    config = check_config(cfg, CKAConfig if cfg.analysis == "cka" else AnalyzeConfig)
    from rib.analysis import analyze

    print(analyze(config).resolve())


def main() -> None:
    """Entry point of ``rib-analyze``."""
    launch(_main, "analyze")


if __name__ == "__main__":
    main()
