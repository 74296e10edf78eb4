"""``python -m rib.report``: the table and the comparison figure of everything in the run store.

Results made on other data, suites or protocols never share a table: each kind gets its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import hydra
from omegaconf import DictConfig

from rib.config import checked, conf_dir
from rib.launch import launch, quietly, say
from rib.schema import ReportConfig


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="report")
@quietly
def _main(cfg: DictConfig) -> None:
    config = checked(cfg, ReportConfig)
    runs = Path(config.paths.runs)
    report(runs, Path(config.out) if config.out else runs / "report", config.sources)


def report(runs: Path, out: Path, sources: Sequence[str] | None = None) -> list[Path]:
    """Print a table for each group of comparable runs, and write it as csv with a figure.

    Args:
        runs: The run store.
        out: Folder for ``runs.csv``, ``summary.csv``, ``.md`` and ``.png`` (mRI), and ``comparison.png``; with ``_2``,
            ... for further groups.

        sources: Only runs that were fine-tuned on one of these.

    Returns:
        The files written.

    Raises:
        RibError: If there is no finished fine-tuned run.
    """
    import pandas as pd
    from rich.console import Console

    from rib import figures, tables
    from rib.errors import RibError
    from rib.store import RunStore
    from rib.summary import summarise

    store = RunStore(runs)
    finished = [(run, metrics) for run in store.finished() for metrics in run.views()]
    trained = [(run, m) for run, m in finished if m["source"] != "none" and m["robustness_improvement"]]
    trained = [(run, m) for run, m in trained if sources is None or m["source"] in sources]
    if not trained:
        raise RibError(f"paths.runs: expected finished runs in {runs}, found none; make one with python -m rib.train")
    before = {run.key: run for run, m in finished if m["source"] == "none"}
    groups = tables.comparable(trained)
    console = Console(width=None if Console().is_terminal else 140)
    if len(groups) > 1:
        say(f"the runs in {runs} were made in {len(groups)} ways that are not comparable; each has its own table")
    written = []
    out.mkdir(parents=True, exist_ok=True)
    for number, group in enumerate(groups, start=1):
        suffix = "" if number == 1 else f"_{number}"
        metrics = [m for _, m in group]
        console.print(tables.comparison_table(metrics))
        kind = metrics[0]["data"]["kind"]
        summaries = summarise(group, store, tables.catalog_of(kind), before)
        console.print(tables.summary_table(summaries, kind))
        table, summary = out / f"runs{suffix}.csv", out / f"summary{suffix}.csv"
        pd.DataFrame(tables.comparison_rows(metrics)).to_csv(table, index=False)
        pd.DataFrame(tables.summary_rows(summaries, kind)).to_csv(summary, index=False)
        summary.with_suffix(".md").write_text(tables.summary_markdown(summaries, kind))
        figure = figures.save(figures.comparison_figure(metrics), out / f"comparison{suffix}.png")
        overview = figures.save(
            figures.summary_figure(summaries, tables.world(metrics[0])), out / f"summary{suffix}.png"
        )
        console.print(
            f"table: {table.resolve()}\nfigures: {figure.resolve()} {overview.resolve()}",
            soft_wrap=True,
            highlight=False,
        )
        written += [table, summary, summary.with_suffix(".md"), figure, overview]
        for line in tables.missing_controls(metrics):
            say(line)
    return written


def main() -> None:
    """Entry point of ``rib-report``."""
    launch(_main)


if __name__ == "__main__":
    main()
