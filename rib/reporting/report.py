"""Print and write tables and figures of the finished runs in a store, one set per group of comparable runs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rib.config
from rib.config.command_schema import ReportConfig
from rib.config.schema import FiguresConfig
from rib.config.shipped import shipped_nodes
from rib.data.worlds import is_suite, logged_name
from rib.errors import RibError
from rib.reporting.comparability import Group, group_comparable
from rib.reporting.data_warning import warning_after
from rib.reporting.formatting import data_and_suite
from rib.reporting.layout import output
from rib.reporting.remedies import remedies
from rib.reporting.report_files import remove_stale, write_remedies
from rib.reporting.reported_runs import runs_to_report
from rib.reporting.sorting import Order, parse_order
from rib.runs.run import Result
from rib.runs.store import RunStore
from rib.runtime.console import say
from rib.runtime.files import write_atomically

if TYPE_CHECKING:
    from rib.reporting.paper_table import PaperTable
    from rib.schemas.metrics import Metrics

MOST_RUNS = 40
"""Most runs that are printed one by one; runs.csv has all of them."""


def report(config: ReportConfig) -> list[Path]:
    """Print tables of a store's fine-tuned runs, one set per group of comparable runs, and write them with figures.

    Args:
        config: Its ``paths.runs`` is the store, ``out`` the folder to write into (null: ``<store>/report``),
            ``models``, ``methods``, ``sources``, ``seeds``, ``suites`` and ``where`` select runs (null: all), ``sort``
            is the column to sort by, ``logger`` a dashboard that shows the tables as well.

    Returns:
        The files written, those of the first group first. Files of an earlier report in the folder are removed.

    Raises:
        RibError: If there is nothing to report; the message says what the store holds instead.
    """
    store, order = RunStore(config.paths.runs), parse_order(config.sort)
    reported, selection = runs_to_report(config, store)
    groups = group_comparable(reported)
    out = Path(config.out) if config.out else store.root / "report"
    written = []
    for number, group in enumerate(groups, start=1):
        # A source outside the suite counts if it was asked for.
        asked = [*_sources(group), *(() if config.sources is None else (m["source"] for _, m in group.results))]
        suffix = "" if number == 1 else f"_{number}"
        files, table = write_report(group.results, store, out, asked, suffix, order, selection, config.figures)
        written += files
        if table is not None:
            show_report(table, files, config.logger, config.paths.cache)
    return [*written, *finish_report(out, groups, written)]


def _sources(group: Group) -> list[str]:
    """Return the sources of the suite that a group was scored on; none, for all with runs, unless it is rib's."""
    metrics = group.results[0][1]
    if is_suite(metrics["data"]["kind"]):
        return []
    # A suite that was changed on the command line carries a star behind its name.
    return list(shipped_nodes("suite").get(metrics["suite"].rstrip("*"), {}).get("sources", []))


def finish_report(out: Path, groups: Sequence[Group], written: Sequence[Path]) -> list[Path]:
    """Say why some runs got tables of their own and how to make comparable ones, and remove stale files.

    Args:
        out: The report's folder.
        groups: All groups of the report.
        written: Files of the report.

    Returns:
        The file with all commands, if there are any.
    """
    found = remedies(groups)
    for remedy in found:
        for line in remedy.lines:
            say(line)
    commands = write_remedies(out, found)
    remove_stale(out, [*written, *commands])
    return commands


def write_report(
    results: Sequence[Result],
    store: RunStore,
    out: Path,
    asked: Sequence[str] = (),
    suffix: str = "",
    order: Order | None = None,
    selection: str = "",
    figures: FiguresConfig | None = None,
) -> tuple[list[Path], PaperTable | None]:
    """Print the tables of comparable runs, and write them to a folder with their figures.

    The files are runs.csv (one row per run), the paper's table as summary.csv, .md, .tex and a figure, and the figure
    comparison, which is left out for more than 7 methods, since figures have 7 colours.

    Args:
        results: Fine-tuned runs that can share a table.
        store: The store that holds them.
        out: Folder to write into.
        asked: Sources that mRI is taken over; runs on others appear in runs.csv only. Empty for all sources with runs.
        suffix: Appended to every file's name, before its extension.
        order: Order of the rows; None for that of each table.
        selection: Sentence that says which runs were left out by filters.
        figures: Formats and width of the figures; None: png and pdf, as wide as they are on screen.

    Returns:
        The files, and the paper's table, which is None if no run is on one of the sources.

    Raises:
        RibError: If the folder cannot be made, or a run's predictions cannot be read.
    """
    # Imported here: pandas and matplotlib take about a second each, and the checks before should not wait for them.
    import pandas as pd

    from rib.reporting import runs_table
    from rib.reporting.paper_table import paper_table

    _make_folder(out)
    console, figures = output(), figures or FiguresConfig()
    command = _command(store, figures)
    metrics = [m for _, m in results]
    files = [out / f"runs{suffix}.csv"]
    write_atomically(files[0], pd.DataFrame(runs_table.comparison_rows(metrics, order)).to_csv(index=False).encode())
    table = None
    if on_sources := [(run, m) for run, m in results if m["source"] in asked or not asked]:
        table = paper_table(on_sources, store, asked, order, selection)
        for shown in table.rich():
            console.print(replace(shown, file=f"summary{suffix}.csv"), "")
        files += _write_table(table, out / f"summary{suffix}.csv", figures, command)
    elif selection:  # else it stands below the table
        say(selection)
    if len(metrics) <= MOST_RUNS:
        console.print(replace(runs_table.comparison_table(metrics, order), file=files[0].name), "")
    files += _draw_comparison(metrics, out / f"comparison{suffix}", figures, command)
    for line in runs_table.missing_controls(results):
        say(line)
    console.print("\n".join(str(file.resolve()) for file in files), soft_wrap=True, highlight=False)
    if warning := warning_after([m["model"] for m in metrics], metrics[0]["data"]["kind"]):
        console.print(warning, highlight=False)
    return files, table


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RibError(f"out: cannot make the folder {out} ({error.strerror}); choose another with out=DIR") from error


def _write_table(table: PaperTable, file: Path, figures: FiguresConfig, command: str) -> list[Path]:
    """Write the paper's table as CSV, and beside it as Markdown, LaTeX and a figure; return the files."""
    from rib.reporting import style
    from rib.reporting.summary_panels import summary_figure

    write_atomically(file, table.frame().to_csv(index=False).encode())
    write_atomically(file.with_suffix(".md"), table.markdown().encode())
    write_atomically(file.with_suffix(".tex"), table.latex().encode())
    written = style.save(summary_figure(table, figures.width), file.with_suffix(""), figures, command)
    return [file, file.with_suffix(".md"), file.with_suffix(".tex"), *written]


def _draw_comparison(metrics: Sequence[Metrics], stem: Path, figures: FiguresConfig, command: str) -> list[Path]:
    """Write the figures that compare runs, and return their files; with more methods than colours there is none."""
    from rib.reporting import style
    from rib.reporting.comparison_panels import comparison_figures
    from rib.reporting.summary import method_label

    if len({method_label(m) for m in metrics}) > len(style.SERIES):
        style.remove(stem)
        most = len(style.SERIES)
        say(f"no figure {stem.name}: it can tell {most} methods apart, and there are more; give methods=[..]")
        return []
    drawn = comparison_figures(metrics, figures.width)
    if "" not in drawn:
        style.remove(stem)
    parts = {stem.with_name(stem.name + end): figure for end, figure in drawn.items()}
    return [file for part, figure in parts.items() for file in style.save(figure, part, figures, command)]


def _command(store: RunStore, figures: FiguresConfig) -> str:
    """Return the command that draws a store's figures again, for their captions."""
    from rib.reporting.captions import options_of, running_command

    runs = shlex.quote(rib.config.spell_override("paths.runs", str(store.root)))
    return running_command(" ".join(["python", "-m", "rib.report", runs, *options_of(figures)]))


def show_report(table: PaperTable, files: Sequence[Path], logger: Mapping[str, Any], cache: str | None) -> None:
    """Show the paper's table and its figures on a dashboard, such as Weights & Biases.

    Args:
        table: From `write_report`.
        files: From `write_report`; their PNG files are shown. W&B writes its own files beside the first one.
        logger: The config's section ``logger``; nothing is shown if it names no class.
        cache: ``paths.cache``.
    """
    from rib.loggers.base import DashboardPage, show_page

    metadata = table.metadata
    columns = {f"ri.{name}": f"ri.{logged_name(name, table.kind)}" for name in table.sources}
    page = DashboardPage(
        kind="report",
        group="report",
        name=f"report: {data_and_suite(metadata['data'], None, metadata['suite'])}",
        tags=[metadata["data"], metadata["suite"]],
        metadata=metadata,
        tables={"mRI_table": table.frame().rename(columns=columns)},
        figures=[file for file in files if file.suffix == ".png"],
        numbers=table.numbers,
        folder=files[0].resolve().parent,
        cache=cache,
    )
    show_page(logger, page)
