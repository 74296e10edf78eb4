"""``python -m rib.report``: write tables, mRI and figures for all finished runs in the run store.

Runs with different data, suites or protocols never share a table: each group gets its own, with a note of what differs.
"""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from rib.config.check import check_config
from rib.config.command_schema import ReportConfig
from rib.config.launch import launch, one_sentence_errors
from rib.config.shipped import conf_dir
from rib.reporting.report import report


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="report")
@one_sentence_errors
def _main(cfg: DictConfig) -> None:
    report(check_config(cfg, ReportConfig))


def main() -> None:
    """Entry point of ``rib-report``."""
    launch(_main, "report")


if __name__ == "__main__":
    main()
