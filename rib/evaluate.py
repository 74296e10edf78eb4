"""``python -m rib.evaluate``: score finished runs, or weights that were trained outside rib; nothing is trained."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from rib.config.command_schema import EvaluateConfig
from rib.config.composition import check_command
from rib.config.launch import launch, one_sentence_errors
from rib.config.shipped import conf_dir
from rib.runtime.console import rank, say


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="evaluate")
@one_sentence_errors
def _main(cfg: DictConfig) -> None:
    config = check_command(cfg, EvaluateConfig)
    from rib.runs.limits import check_results, describe_passed
    from rib.sweeps.rescore import evaluate_results

    results = evaluate_results(config)
    if rank() == 0:
        for run, _ in results:
            print(run.folder.resolve(), flush=True)  # also where the check below ends the command
        if config.fail_below is not None:
            check_results(results, config.fail_below, config.fail_on)
            say(describe_passed(results, config.fail_below, config.fail_on))


def main() -> None:
    """Entry point of ``rib-evaluate``."""
    launch(_main, "evaluate")


if __name__ == "__main__":
    main()
