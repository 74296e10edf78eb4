"""Base class of dashboards (Weights & Biases, TensorBoard), which show runs; log/metrics.csv is always written too.

A dashboard is part of no key. A run that is already in the store is not shown again, and a dashboard that fails at the
end does not make the run fail. Only these leave the machine: the config without local paths, the results, and the
content of env.json. Everything that W&B collects by itself (host, user, git, packages, program, console) is switched
off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from rib.data.worlds import describe_kind, logged_name
from rib.errors import RibError
from rib.methods.build import build_object
from rib.runs.freshness import metrics_if_current
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
"""Settings of W&B (0.31) for privacy; ``tests/loggers/test_loggers.py`` checks what is written and sent with them."""


@dataclass(frozen=True)
class DashboardPage:
    """Content of a dashboard's page about several finished runs: the table of a benchmark, or an analysis.

    Attributes:
        kind: ``report`` or ``cka``; W&B's job type.
        group: W&B's group.
        name: Title.
        tags: Tags besides those of ``logger.tags``.
        metadata: Settings behind the results.
        tables: Tables by name.
        figures: PNG files.
        numbers: Main numbers by name, as W&B's summary shows them.
        folder: Folder for the dashboard's own files.
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


NOT_SENT = ("command", "git")
"""Entries of env.json that stay on this machine: the command may hold paths, and commits say what one works on."""


def show_page(logger: Mapping[str, Any], page: DashboardPage) -> None:
    """Show a page of results on the dashboard that a config's ``logger`` option names; do nothing if it names none.

    Args:
        logger: The config's node; a dashboard if it has a ``_target_``.
        page: What to show.

    Raises:
        RibError: If the dashboard's options are wrong. Other errors are only printed: the results are on disk.
    """
    if "_target_" not in logger:
        return
    try:
        build_object(logger).show(page)
    except RibError:
        raise
    except Exception as error:
        say(f"the {page.kind} is finished, but the dashboard does not show all of it: {error}")


class Dashboard:
    """Base class of dashboards; ``logger._target_`` names a subclass. Its methods are called on rank zero only.

    The base class itself shows nothing.

    Attributes:
        logger: Lightning logger that gets the training metrics; None for no logging.
    """

    logger: Logger | None = None

    def open(self, spec: RunSpec, run: Run) -> None:
        """Start showing a run, before training.

        Args:
            spec: The run.
            run: Its folder, which has env.json already.
        """

    def publish(self, metrics: Metrics, figures: Sequence[Path]) -> None:
        """Show the results of a finished run.

        Args:
            metrics: Content of metrics.json.
            figures: PNG files.
        """

    def close(self, failed: bool) -> None:
        """Stop showing a run.

        Args:
            failed: True if the run did not finish.
        """

    def show(self, page: DashboardPage) -> None:
        """Show a page about finished runs; opens and closes the dashboard itself.

        Args:
            page: What to show.
        """


@contextmanager
def log_run(spec: RunSpec, run: Run) -> Iterator[list[Logger]]:
    """Show a run on its dashboard: training as it goes, and the results at the end of the block.

    Args:
        spec: The run; its config names the dashboard.
        run: Its folder.

    Yields:
        Loggers for the Trainer, one or none.

    Raises:
        RibError: If the dashboard's options are wrong.
    """
    node = spec.config.logger
    dashboard = build_object(node) if rank() == 0 and "_target_" in node else Dashboard()
    dashboard.open(spec, run)
    try:
        yield [dashboard.logger] if dashboard.logger else []
    except BaseException:  # an interrupt, too: the dashboard must not show the run as running for ever
        dashboard.close(failed=True)
        raise
    try:
        if metrics := metrics_if_current(run, spec):
            dashboard.publish(metrics, sorted((run.folder / "figures").glob("*.png")))
        dashboard.close(failed=False)
    except Exception as error:  # of any kind: a dashboard must not make a finished run fail
        say(f"the run is finished, but {type(dashboard).__name__} does not show all of it: {error}")


def describe_run(spec: RunSpec, run: Run) -> dict[str, Any]:
    """Describe a run for a dashboard: its protocol, training key, environment, data, and config without paths.

    Args:
        spec: The run.
        run: Its folder, which has env.json.
    """
    config = asdict(spec.config)
    for name in ("paths", "logger", "recipe", "force"):
        del config[name]
    del config["data"]["root"]
    env = {name: value for name, value in (run.read_json("env.json") or {}).items() if name not in NOT_SENT}
    resolved = {"protocol": spec.protocol, "fingerprint": run.key, "environment": env}
    resolved["images"] = describe_kind(spec.catalog.kind)
    return {name: shorten_paths(value) for name, value in {**config, **resolved}.items()}


def shorten_paths(value: Any) -> Any:
    """Replace every absolute path in nested values by its last part, so that no local folder name is sent.

    Args:
        value: Dictionaries, lists, texts, numbers.
    """
    if isinstance(value, Mapping):
        return {key: shorten_paths(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [shorten_paths(child) for child in value]
    if not isinstance(value, str):
        return value
    absolute = value.startswith("~") or PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute()
    return PureWindowsPath(value).name if absolute else str(value)


def summary(metrics: Metrics) -> dict[str, float]:
    """Return a run's main numbers: RI and changes in percentage points, accuracies as fractions.

    Args:
        metrics: Content of metrics.json.
    """
    kind, improvement = metrics["data"]["kind"], metrics["robustness_improvement"]
    numbers: dict[str, float] = {}
    if improvement:
        numbers = {"RI": improvement["value"], "RI_low": improvement["low"], "RI_high": improvement["high"]}
    for name, entry in metrics["accuracy"].items():
        values = {"before": entry["before"], "after": entry["after"], "change": entry["change"]["value"]}
        numbers |= {f"accuracy/{logged_name(name, kind)}/{key}": value for key, value in values.items()}
    return numbers
