"""Weights & Biases as a dashboard that shows runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from rib.data.worlds import cache_dir, logged_name, suffix_of
from rib.errors import RibError
from rib.loggers.base import PRIVATE, Dashboard, DashboardPage, describe_run, shorten_paths, summary
from rib.runs.run import Run
from rib.runs.spec import RunSpec
from rib.runtime.console import say
from rib.schemas.metrics import Metrics

SECONDS_TO_FINISH = 60.0
"""Seconds that the end of a run waits for W&B's upload; everything is on disk as well."""


class WandB(Dashboard):
    """Weights & Biases; without an API key or a connection it works offline and says so.

    Args:
        project: W&B project.
        entity: User or team; None for the default of the API key.
        offline: True only writes to the run's folder, False fails without W&B's server, None then goes offline.
        tags: Tags besides those of every run, the kind of data and the suite.
        timeout: Seconds to wait for the service when a run starts.

    Raises:
        RibError: If ``offline`` is none of these, or is False and the service cannot be used.
    """

    unreachable: ClassVar[str] = ""
    """Error that made this process go offline; the service is then not waited for at every run of a sweep."""

    def __init__(
        self, project: str, entity: str | None, offline: bool | None, tags: Sequence[str], timeout: float
    ) -> None:
        if offline not in (True, False, None):
            raise RibError(f"logger.offline: expected true, false or null, got {offline!r}")
        self.offline, self.timeout = offline, timeout
        self.settings: dict[str, Any] = {"project": project, "entity": entity}
        self.tags = tags

    def open(self, spec: RunSpec, run: Run) -> None:
        """Start a W&B run with its files in the run's folder, or resume the W&B run that a killed process began."""
        _silence(spec.config.paths.cache)
        from lightning.pytorch.loggers import WandbLogger

        seed = f" seed {spec.config.seed}" if spec.source is not None else ""
        self.settings |= {
            "group": f"{spec.start.name}/{logged_name(spec.source_name, spec.catalog.kind)}",
            "job_type": spec.method,
            "name": f"{spec.method}{seed} {run.key[:6]}{suffix_of(spec.catalog.kind)}",
            "tags": list(dict.fromkeys([*self.tags, spec.catalog.kind, spec.suite])),  # a suite may be both
            "config": describe_run(spec, run),
            "dir": str(run.folder),
        }
        # The folder's final name, for the command to upload later: `RunStore.publish` renames it at the end.
        self.run = self._begin(run.folder.with_name(run.key))
        # The history counts optimizer steps; W&B's own counter counts calls of `log`.
        self.run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        self.logger = WandbLogger(experiment=self.run)

    def _begin(self, folder: Path) -> Any:
        import wandb

        def begin(mode: str, resume: Any = None) -> Any:
            settings = {**PRIVATE, "mode": mode, "init_timeout": self.timeout, "finish_timeout": SECONDS_TO_FINISH}
            return wandb.init(**self.settings, resume=resume, reinit="create_new", settings=wandb.Settings(**settings))

        mode, reason = wandb.setup().settings.mode, "as requested"  # WANDB_MODE
        if self.offline is not None:
            mode = "offline" if self.offline else "online"
        if mode == "online":
            try:
                if WandB.unreachable:
                    raise wandb.errors.CommError(WandB.unreachable)
                started = begin("online", resume="auto")
            except wandb.Error as error:
                mode, reason = "offline", " ".join(str(error).split())
                if self.offline is False:
                    raise RibError(f"logger.offline=false, but W&B cannot be used: {reason}") from error
                if type(error) is wandb.errors.CommError:  # not its subclasses: a wrong key fails without waiting
                    WandB.unreachable = reason
            else:
                say(f"W&B: {started.url}")
                return started
        if mode != "disabled":
            # Without WANDB_PROGRAM `wandb sync` would send the path of its own script on this machine.
            command = f"WANDB_PROGRAM=rib.train wandb sync {folder / 'wandb'}/offline-run-*"
            say(f"W&B: offline ({reason}); upload later with: {command}")
        return begin(mode)

    def publish(self, metrics: Metrics, figures: Sequence[Path]) -> None:
        """Write RI and accuracies to the summary, a table with accuracies in percent, and the figures as images."""
        columns = ["dataset", "role", "images", "before %", "after %", "change", "low", "high"]
        rows = []
        improvement = metrics["robustness_improvement"]
        counted = improvement["targets"] if improvement else []
        for name, entry in metrics["accuracy"].items():
            role = "source" if name == metrics["source"] else "target" if name in counted else "reported"
            change = entry["change"]
            points = (change["value"], change["low"], change["high"])
            rows.append(
                [
                    logged_name(name, metrics["data"]["kind"]),
                    role,
                    entry["num_images"],
                    100 * entry["before"],
                    100 * entry["after"],
                    *points,
                ]
            )
        self._show("datasets", columns, rows, figures)
        self.run.summary.update(summary(metrics))

    def show(self, page: DashboardPage) -> None:
        """Write a page about several runs as a W&B run: tables, figures, and the main numbers in the summary."""
        _silence(page.cache)
        self.settings |= {
            "group": page.group,
            "job_type": page.kind,
            "name": page.name,
            "tags": list(dict.fromkeys([*self.tags, *page.tags])),
            "config": shorten_paths(page.metadata),
            "dir": str(page.folder),
        }
        self.run = self._begin(page.folder)
        for number, (name, table) in enumerate(page.tables.items()):
            rows = table.astype(object).where(table.notna(), None).to_numpy().tolist()
            self._show(name, list(table.columns), rows, [] if number else page.figures)
        self.run.summary.update(dict(page.numbers))
        self.close(failed=False)

    def _show(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], figures: Sequence[Path]) -> None:
        import wandb

        table: Any = wandb.Table(list(columns), list(rows))
        # A table bound to the run before it is logged becomes a file of the run. Otherwise W&B makes an artifact of it,
        # staged in another local folder, whose path then appears in the run's record.
        table.bind_to_run(self.run, name.replace("/", "_"), "summary")
        self.run.log({name: table, **{f"figures/{file.stem}": wandb.Image(str(file)) for file in figures}})

    def close(self, failed: bool) -> None:
        """Finish the W&B run, waiting at most `SECONDS_TO_FINISH` for its upload."""
        self.run.finish(exit_code=int(failed))


def _silence(cache: str | None) -> None:
    """Keep W&B's files in rib's cache, and W&B silent: it then raises without an API key instead of asking for one."""
    folder = str(cache_dir(cache) / "wandb")
    variables = {"CACHE_DIR": folder, "DATA_DIR": folder, "ERROR_REPORTING": "false", "SILENT": "true"}
    for name, value in variables.items():
        os.environ.setdefault(f"WANDB_{name}", value)
