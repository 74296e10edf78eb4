"""Where a run is shown besides its own folder, which always keeps log/metrics.csv: Weights & Biases, TensorBoard.

A dashboard is a view. It is in no key, a run answered from the store is not shown again, and one that fails at the end
takes nothing from a finished run. What leaves the machine are the question without its places, the results, and what
env.json lists; whatever W&B would collect by itself (host, user, git, packages, program, console) is switched off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import rib.config
from rib.errors import RibError
from rib.runs.freshness import find_metrics
from rib.runs.run import Run
from rib.runs.spec import RunSpec
from rib.runtime.console import rank, say
from rib.schemas.metrics import Metrics

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger
    from pandas import DataFrame

PRIVATE: dict[str, Any] = {
    **dict.fromkeys(("disable_code", "disable_git", "disable_job_creation", "label_disable", "silent"), True),
    **dict.fromkeys(("x_disable_machine_info", "x_disable_meta", "x_disable_stats"), True),
    **dict.fromkeys(("save_code", "symlink", "x_save_requirements"), False),
    "console": "off",
    "host": "",
    "program": "rib.train",
}
"""W&B's settings (0.31); ``tests/loggers/test_loggers.py`` looks at what is written and sent under them."""


@dataclass(frozen=True)
class DashboardPage:
    """What is shown of finished runs besides themselves: a grid's table, an analysis.

    Attributes:
        kind: ``report``, ``cka``: W&B's job type.
        group: W&B's group.
        name: For people.
        tags: Besides the dashboard's own.
        metadata: Key fields and settings that it is of.
        tables: Rows by name.
        figures: PNG files.
        numbers: Those that are compared.
        folder: Where the dashboard's own files go.
        cache: ``paths.cache``.
    """

    kind: str
    group: str
    name: str
    tags: Sequence[str]
    metadata: Mapping[str, Any]
    tables: Mapping[str, DataFrame]
    figures: Sequence[Path]
    numbers: Mapping[str, float]
    folder: Path
    cache: str | None


def show_page(logger: Mapping[str, Any], exhibit: DashboardPage) -> None:
    """Show an exhibit where a config's ``logger`` asks; a dashboard that fails takes nothing from what is finished."""
    if "_target_" not in logger:
        return
    try:
        rib.config.instantiate(logger).show(exhibit)
    except RibError:
        raise
    except Exception as error:
        say(f"the {exhibit.kind} is finished, but the dashboard does not show all of it: {error}")


class Dashboard:
    """Shows one run; the base of what ``logger._target_`` may name, and itself shows nothing. On rank zero alone.

    Attributes:
        logger: What training metrics go to while fitting; None for nowhere.
    """

    logger: Logger | None = None

    def open(self, spec: RunSpec, run: Run) -> None:
        """Begin, before training; the run's folder has its env.json."""

    def publish(self, metrics: Metrics, figures: Sequence[Path]) -> None:
        """Show what metrics.json holds, and the figures."""

    def close(self, failed: bool) -> None:
        """End; ``failed`` where the run was not finished."""

    def show(self, exhibit: DashboardPage) -> None:
        """Show something about finished runs, from its beginning to its end."""


@contextmanager
def log_run(spec: RunSpec, run: Run) -> Iterator[list[Logger]]:
    """Show a run while it is being made, and its results when it is; yields loggers for the Trainer."""
    node = spec.config.logger
    dashboard = rib.config.instantiate(node) if rank() == 0 and "_target_" in node else Dashboard()
    dashboard.open(spec, run)
    try:
        yield [dashboard.logger] if dashboard.logger else []
    except BaseException:
        dashboard.close(failed=True)
        raise
    try:
        if metrics := find_metrics(run, spec):
            dashboard.publish(metrics, sorted((run.folder / "figures").glob("*.png")))
        dashboard.close(failed=False)
    except Exception as error:  # of whatever kind: the run is finished, its view is not worth losing that
        say(f"the run is finished, but {type(dashboard).__name__} does not show all of it: {error}")


def describe_run(spec: RunSpec, run: Run) -> dict[str, Any]:
    """What is asked, what its nulls came to, and what env.json lists, as a dashboard may know it."""
    config = asdict(spec.config)
    for name in ("paths", "logger", "recipe", "force"):
        del config[name]
    del config["data"]["root"]
    settled = {"protocol": spec.protocol, "fingerprint": run.key, "environment": run.read_json("env.json")}
    return {name: shareable(value) for name, value in {**config, **settled}.items()}


def shareable(value: Any) -> Any:
    """The same without this machine's places: of an absolute path the last part is left."""
    if isinstance(value, Mapping):
        return {key: shareable(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [shareable(child) for child in value]
    if not isinstance(value, str):
        return value
    absolute = value.startswith("~") or PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute()
    return PureWindowsPath(value).name if absolute else str(value)


def summary(metrics: Metrics) -> dict[str, float]:
    """A run's main numbers as metrics.json has them: RI and changes in percentage points, accuracies as fractions."""
    improvement = metrics["robustness_improvement"]
    numbers: dict[str, float] = {}
    if improvement:
        numbers = {"RI": improvement["value"], "RI_low": improvement["low"], "RI_high": improvement["high"]}
    for name, entry in metrics["accuracy"].items():
        values = {"before": entry["before"], "after": entry["after"], "change": entry["change"]["value"]}
        numbers |= {f"accuracy/{name}/{key}": value for key, value in values.items()}
    return numbers
