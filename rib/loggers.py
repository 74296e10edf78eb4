"""Where a run is shown besides its own folder, which always keeps log/metrics.csv: Weights & Biases, TensorBoard.

A dashboard is a view. It is in no key, a run answered from the store is not shown again, and one that fails at the end
takes nothing from a finished run. What leaves the machine are the question without its places, the results, and what
env.json lists; whatever W&B would collect by itself (host, user, git, packages, program, console) is switched off.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, ClassVar

from rib.asking import cache_dir
from rib.config import instantiate
from rib.errors import RibError
from rib.launch import rank, say
from rib.question import Question
from rib.store import Run, view_of

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
"""W&B's settings (0.31); ``tests/test_loggers.py`` looks at what is written and sent under them."""

SECONDS_TO_FINISH = 60.0
"""How long the end of a run may wait for W&B to take what is left; all of it is on disk too."""


@dataclass(frozen=True)
class Exhibit:
    """What is shown of finished runs besides themselves: a grid's table, an analysis.

    Attributes:
        kind: ``report``, ``cka``: W&B's job type.
        group: W&B's group.
        name: For people.
        tags: Besides the dashboard's own.
        facts: What it is of.
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
    facts: Mapping[str, Any]
    tables: Mapping[str, DataFrame]
    figures: Sequence[Path]
    numbers: Mapping[str, float]
    folder: Path
    cache: str | None


def show(logger: Mapping[str, Any], exhibit: Exhibit) -> None:
    """Show an exhibit where a config's ``logger`` asks; a dashboard that fails takes nothing from what is finished."""
    if "_target_" not in logger:
        return
    try:
        instantiate(logger).show(exhibit)
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

    def open(self, question: Question, run: Run) -> None:
        """Begin, before training; the run's folder has its env.json."""

    def publish(self, metrics: Mapping[str, Any], figures: Sequence[Path]) -> None:
        """Show what metrics.json holds, and the figures."""

    def close(self, failed: bool) -> None:
        """End; ``failed`` where the run was not finished."""

    def show(self, exhibit: Exhibit) -> None:
        """Show something about finished runs, from its beginning to its end."""


@contextmanager
def shown(question: Question, run: Run) -> Iterator[list[Logger]]:
    """Show a run while it is being made, and its results when it is; yields loggers for the Trainer."""
    node = question.config.logger
    dashboard = instantiate(node) if rank() == 0 and "_target_" in node else Dashboard()
    dashboard.open(question, run)
    try:
        yield [dashboard.logger] if dashboard.logger else []
    except BaseException:
        dashboard.close(failed=True)
        raise
    try:
        if metrics := view_of(run, question):
            dashboard.publish(metrics, sorted((run.folder / "figures").glob("*.png")))
        dashboard.close(failed=False)
    except Exception as error:  # of whatever kind: the run is finished, its view is not worth losing that
        say(f"the run is finished, but {type(dashboard).__name__} does not show all of it: {error}")


class WandB(Dashboard):
    """Weights & Biases; offline, with a line about it, where there is no key or no service.

    Args:
        project: W&B's project.
        entity: User or team; None for the key's default.
        offline: True writes to the run's folder only, False insists on the service, None decides.
        tags: Besides those that every run gets: the kind of data and the suite.
        timeout: Seconds that the service has to accept a run.
    """

    unreachable: ClassVar[str] = ""
    """Why this process has given up on the service; it is waited for once, not at every run of a sweep."""

    def __init__(
        self, project: str, entity: str | None, offline: bool | None, tags: Sequence[str], timeout: float
    ) -> None:
        if offline not in (True, False, None):
            raise RibError(f"logger.offline: expected true, false or null, got {offline!r}")
        self.offline, self.timeout = offline, timeout
        self.about: dict[str, Any] = {"project": project, "entity": entity}
        self.tags = tags

    def open(self, question: Question, run: Run) -> None:
        """Begin a W&B run in the run's folder, or go on with one that a killed process left on the service."""
        _quieten(question.config.paths.cache)
        from lightning.pytorch.loggers import WandbLogger

        seed = f" seed {question.config.seed}" if question.source is not None else ""
        self.about |= {
            "group": f"{question.start.name}/{question.source_name}",
            "job_type": question.method,
            "name": f"{question.method}{seed} {run.key[:6]}",
            "tags": [*self.tags, question.catalog.kind, question.suite],
            "config": facts(question, run),
            "dir": str(run.folder),
        }
        self.run = self._begin(run.folder.with_name(run.key))
        self.run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        self.logger = WandbLogger(experiment=self.run)

    def _begin(self, place: Path) -> Any:
        import wandb

        def begin(mode: str, resume: Any = None) -> Any:
            settings = {**PRIVATE, "mode": mode, "init_timeout": self.timeout, "finish_timeout": SECONDS_TO_FINISH}
            return wandb.init(**self.about, resume=resume, reinit="create_new", settings=wandb.Settings(**settings))

        mode, reason = wandb.setup().settings.mode, "as told"  # WANDB_MODE
        if self.offline is not None:
            mode = "offline" if self.offline else "online"
        if mode == "online":
            try:
                if WandB.unreachable:
                    raise wandb.errors.CommError(WandB.unreachable)
                begun = begin("online", resume="auto")
            except wandb.Error as error:
                mode, reason = "offline", " ".join(str(error).split())
                if self.offline is False:
                    raise RibError(f"logger.offline=false, but W&B cannot be used: {reason}") from error
                if type(error) is wandb.errors.CommError:
                    WandB.unreachable = reason
            else:
                say(f"W&B: {begun.url}")
                return begun
        if mode != "disabled":
            send = f"WANDB_PROGRAM=rib.train wandb sync {place / 'wandb'}/offline-run-*"  # else it tells its own path
            say(f"W&B: offline ({reason}); to send it: {send}")
        return begin(mode)

    def publish(self, metrics: Mapping[str, Any], figures: Sequence[Path]) -> None:
        """RI and accuracies into the summary; a table, accuracies in percent; the figures as images."""
        columns = ["dataset", "role", "images", "before %", "after %", "change", "low", "high"]
        rows = []
        counted = (metrics["robustness_improvement"] or {"targets": []})["targets"]
        for name, entry in metrics["accuracy"].items():
            role = "source" if name == metrics["source"] else "target" if name in counted else "reported"
            change = [entry["change"][key] for key in ("value", "low", "high")]
            rows.append([name, role, entry["num_images"], 100 * entry["before"], 100 * entry["after"], *change])
        self._show("datasets", columns, rows, figures)
        self.run.summary.update(summary(metrics))

    def show(self, exhibit: Exhibit) -> None:
        """A W&B run of its own in the exhibit's folder: tables, figures, the main numbers in the summary."""
        _quieten(exhibit.cache)
        self.about |= {
            "group": exhibit.group,
            "job_type": exhibit.kind,
            "name": exhibit.name,
            "tags": [*self.tags, *exhibit.tags],
            "config": shareable(exhibit.facts),
            "dir": str(exhibit.folder),
        }
        self.run = self._begin(exhibit.folder)
        for number, (name, table) in enumerate(exhibit.tables.items()):
            rows = table.astype(object).where(table.notna(), None).to_numpy().tolist()
            self._show(name, list(table.columns), rows, [] if number else exhibit.figures)
        self.run.summary.update(dict(exhibit.numbers))
        self.close(failed=False)

    def _show(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], figures: Sequence[Path]) -> None:
        import wandb

        table: Any = wandb.Table(list(columns), list(rows))
        # Bound before it is logged it is a file of the run; else W&B makes an artifact of it, staged elsewhere on this
        # machine, under a path that is then in the run's record.
        table.bind_to_run(self.run, name.replace("/", "_"), "summary")
        self.run.log({name: table, **{f"figures/{file.stem}": wandb.Image(str(file)) for file in figures}})

    def close(self, failed: bool) -> None:
        """Hand over what is left, for at most a minute."""
        self.run.finish(exit_code=int(failed))


def _quieten(cache: str | None) -> None:
    """Keep W&B out of the home folder, and silent: it then asks for no key either, but raises without one."""
    folder = str(cache_dir(cache) / "wandb")
    quiet = {"CACHE_DIR": folder, "DATA_DIR": folder, "ERROR_REPORTING": "false", "SILENT": "true"}
    for name, value in quiet.items():
        os.environ.setdefault(f"WANDB_{name}", value)


class TensorBoard(Dashboard):
    """TensorBoard's event files in the run's own folder; ``tensorboard --logdir runs`` shows all runs."""

    def open(self, question: Question, run: Run) -> None:
        """Begin, or go on where a killed process stopped."""
        self._begin(run.folder)
        self.logger, self.facts = self.board, facts(question, run)

    def _begin(self, folder: Path) -> None:
        from lightning.pytorch.loggers import TensorBoardLogger

        try:
            self.board = TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False)
        except ModuleNotFoundError as error:
            raise RibError("logger=tensorboard needs a package that is not there: pip install tensorboard") from error

    def publish(self, metrics: Mapping[str, Any], figures: Sequence[Path]) -> None:
        """RI and accuracies as scalars beside the config (HPARAMS); the figures as images."""
        self.board.log_hyperparams(self.facts, summary(metrics))
        self._add_images(figures)

    def _add_images(self, figures: Sequence[Path]) -> None:
        import numpy as np
        from PIL import Image

        for file in figures:
            self.board.experiment.add_image(f"figures/{file.stem}", np.asarray(Image.open(file)), dataformats="HWC")

    def close(self, failed: bool) -> None:
        """Write what is left."""
        self.board.finalize("failed" if failed else "success")

    def show(self, exhibit: Exhibit) -> None:
        """Figures and main numbers, in ``tensorboard`` in the exhibit's folder."""
        self._begin(exhibit.folder)
        self.board.log_metrics(dict(exhibit.numbers))
        self._add_images(exhibit.figures)
        self.close(failed=False)


def facts(question: Question, run: Run) -> dict[str, Any]:
    """What is asked, what its nulls came to, and what env.json lists, as a dashboard may know it."""
    config = asdict(question.config)
    for name in ("paths", "logger", "recipe", "force"):
        del config[name]
    del config["data"]["root"]
    settled = {"protocol": question.protocol, "fingerprint": run.key, "environment": run.read_json("env.json")}
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


def summary(metrics: Mapping[str, Any]) -> dict[str, float]:
    """A run's main numbers as metrics.json has them: RI and changes in percentage points, accuracies as fractions."""
    improvement = metrics["robustness_improvement"]
    keys = {"RI": "value", "RI_low": "low", "RI_high": "high"}
    numbers: dict[str, float] = {name: improvement[key] for name, key in keys.items()} if improvement else {}
    for name, entry in metrics["accuracy"].items():
        values = {"before": entry["before"], "after": entry["after"], "change": entry["change"]["value"]}
        numbers |= {f"accuracy/{name}/{key}": value for key, value in values.items()}
    return numbers
