"""The suite that a finished run is scored on again: the command's, or the run's own if it is a user's suite."""

from __future__ import annotations

from dataclasses import replace

from rib.config.command_schema import EvaluateConfig
from rib.config.schema import Config, SuiteConfig
from rib.errors import RibError
from rib.runs.own_suite import suite_file
from rib.schemas.metrics import Metrics

ROLES = ("sources", "targets", "reported")
"""Options of a suite besides its name."""


def suite_of(config: EvaluateConfig, saved: Config, metrics: Metrics) -> tuple[str | None, SuiteConfig]:
    """Return the file of the suite that a finished run is scored on, None for rib's own datasets, and its roles.

    Args:
        config: Of `rib.evaluate`, with or without a suite.
        saved: The run's own config.
        metrics: The run's metrics.

    Raises:
        RibError: If the command's suite is of other data than the run, or the run's suite has no file any more.
    """
    kind = metrics["data"]["kind"]
    file = suite_file(kind, config.data.suite, saved)
    if file is None or config.data.suite is not None:
        return file, config.suite
    given = {name.removeprefix("suite.") for name in config.given if name.startswith("suite.")}
    if "suite" in config.given:
        raise RibError(f"suite={config.suite.name}: this run is on the suite {kind}; give suite={kind}.yaml, its file")
    changes = {name: getattr(config.suite, name) for name in ROLES if name in given}
    name = f"{kind}*" if changes.keys() - {"sources"} else saved.suite.name
    return file, replace(saved.suite, name=name, **changes)
