"""``python -m rib.pretrain pretrain=mini_large``: pretrain one of the small models for the built-in data again.

The four models share one architecture, one recipe (AdamW, cosine schedule, random flips and shifts) and one seed. They
differ only in their pretraining data: how many images, and how many visual styles. The files in ``conf/pretrain`` list
the cost and the accuracy of each.
"""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from rib.config.check import check_config
from rib.config.command_schema import PretrainConfig
from rib.config.launch import launch, one_sentence_errors
from rib.config.shipped import conf_dir
from rib.models.pretraining import pretrain


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="pretrain")
@one_sentence_errors
def _main(cfg: DictConfig) -> None:
    print(pretrain(check_config(cfg, PretrainConfig)).resolve())


def main() -> None:
    """Entry point of ``rib-pretrain``."""
    launch(_main, "pretrain")


if __name__ == "__main__":
    main()
