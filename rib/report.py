"""``python -m rib.report``: the table, mRI and figures of everything in the run store.

Results made on other data, suites or protocols never share a table: each kind gets its own, and what differs is said.
"""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from rib.config.check import check_config
from rib.config.command_schema import ReportConfig
from rib.config.launch import launch, quietly
from rib.config.shipped import conf_dir
from rib.reporting.report import report


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="report")
@quietly
def _main(cfg: DictConfig) -> None:
    report(check_config(cfg, ReportConfig))


def main() -> None:
    """Entry point of ``rib-report``."""
    launch(_main)


if __name__ == "__main__":
    main()
