"""``python -m rib.pretrain pretrain=mini_large``: remake the weights of one of mini's models.

The ladder of pretraining scale is one architecture, one recipe (AdamW, cosine, flips and shifts) and one seed; what
differs is the world: how many pictures, how many looks. The files in ``conf/pretrain`` say what each costs and gives.
"""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from rib.config.check import check_config
from rib.config.command_schema import PretrainConfig
from rib.config.launch import launch, quietly
from rib.config.shipped import conf_dir
from rib.models.pretraining import pretrain


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="pretrain")
@quietly
def _main(cfg: DictConfig) -> None:
    print(pretrain(check_config(cfg, PretrainConfig)).resolve())


def main() -> None:
    """Entry point of ``rib-pretrain``."""
    launch(_main)


if __name__ == "__main__":
    main()
