"""``python -m rib.benchmark``: plan a grid of runs, execute those that are missing, and show a table of all.

`rib.sweeps.plan` lists the runs and their dependencies, `rib.sweeps.scheduler` starts those that are missing through
`rib.sweeps.executors`, and `rib.reporting` makes the table.
"""

from __future__ import annotations

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from rib.config.command_schema import BenchmarkConfig
from rib.config.composition import check_command
from rib.config.launch import launch, one_sentence_errors
from rib.config.shipped import conf_dir


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="benchmark")
@one_sentence_errors
def _main(cfg: DictConfig) -> None:
    config = check_command(cfg, BenchmarkConfig)
    from rib.studies.benchmark_actions import act

    launcher = OmegaConf.to_container(HydraConfig.get().launcher, resolve=True)
    assert isinstance(launcher, dict), "Hydra's launcher config is a mapping"
    act(config, {str(k): v for k, v in launcher.items()})


def main() -> None:
    """Entry point of ``rib-benchmark``."""
    launch(_main, "benchmark")


if __name__ == "__main__":
    main()
