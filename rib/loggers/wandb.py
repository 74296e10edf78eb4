"""Show runs on Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from rib.data.worlds import cache_dir
from rib.errors import RibError
from rib.loggers.base import PRIVATE, Dashboard, DashboardPage, describe_run, shareable, summary
from rib.runs.run import Run
from rib.runs.spec import RunSpec
from rib.runtime.console import say
from rib.schemas.metrics import Metrics

SECONDS_TO_FINISH = 60.0
"""How long the end of a run may wait for W&B to take what is left; all of it is on disk too."""


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

    def open(self, spec: RunSpec, run: Run) -> None:
        """Begin a W&B run in the run's folder, or go on with one that a killed process left on the service."""
        _quieten(spec.config.paths.cache)
        from lightning.pytorch.loggers import WandbLogger

        seed = f" seed {spec.config.seed}" if spec.source is not None else ""
        self.about |= {
            "group": f"{spec.start.name}/{spec.source_name}",
            "job_type": spec.method,
            "name": f"{spec.method}{seed} {run.key[:6]}",
            "tags": [*self.tags, spec.catalog.kind, spec.suite],
            "config": describe_run(spec, run),
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

    def publish(self, metrics: Metrics, figures: Sequence[Path]) -> None:
        """RI and accuracies into the summary; a table, accuracies in percent; the figures as images."""
        columns = ["dataset", "role", "images", "before %", "after %", "change", "low", "high"]
        rows = []
        improvement = metrics["robustness_improvement"]
        counted = improvement["targets"] if improvement else []
        for name, entry in metrics["accuracy"].items():
            role = "source" if name == metrics["source"] else "target" if name in counted else "reported"
            change = entry["change"]
            points = (change["value"], change["low"], change["high"])
            rows.append([name, role, entry["num_images"], 100 * entry["before"], 100 * entry["after"], *points])
        self._show("datasets", columns, rows, figures)
        self.run.summary.update(summary(metrics))

    def show(self, exhibit: DashboardPage) -> None:
        """A W&B run of its own in the exhibit's folder: tables, figures, the main numbers in the summary."""
        _quieten(exhibit.cache)
        self.about |= {
            "group": exhibit.group,
            "job_type": exhibit.kind,
            "name": exhibit.name,
            "tags": [*self.tags, *exhibit.tags],
            "config": shareable(exhibit.metadata),
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
