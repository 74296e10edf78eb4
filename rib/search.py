"""``python -m rib.search``: choose the learning rate and a method's strength on held-out images of the source."""

from __future__ import annotations

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from rib.config.command_schema import SearchConfig
from rib.config.composition import check_command
from rib.config.launch import launch, one_sentence_errors
from rib.config.shipped import conf_dir
from rib.runtime.console import rank


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="search")
@one_sentence_errors
def _main(cfg: DictConfig) -> None:
    config = check_command(cfg, SearchConfig)
    from rib.sweeps.search import search

    folder = search(config, list(HydraConfig.get().overrides.task))
    if rank() == 0:
        print(folder.resolve())


def main() -> None:
    """Entry point of ``rib-search``."""
    launch(_main, "search")


if __name__ == "__main__":
    main()
