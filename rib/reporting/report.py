"""Print and write tables and figures of the finished runs in a store, one set per group of comparable runs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rib.config
from rib.config.command_schema import ReportConfig
from rib.config.schema import FiguresConfig
from rib.config.shipped import shipped_nodes
from rib.errors import RibError, nearest
from rib.reporting.comparability import Group, group_comparable
from rib.reporting.data_warning import warning_after
from rib.reporting.formatting import world_of
from rib.reporting.layout import output
from rib.reporting.remedies import remedies
from rib.reporting.report_files import remove_stale, write_remedies
from rib.reporting.selection import describe_filters, select_runs
from rib.reporting.sorting import Order, parse_order
from rib.runs.freshness import out_of_date_in
from rib.runs.run import Result, Run
from rib.runs.store import RunStore
from rib.runs.trials import without_trials
from rib.runtime.console import say
from rib.runtime.files import write_atomically
from rib.schemas.metrics import Metrics

if TYPE_CHECKING:
    from rib.reporting.paper_table import PaperTable


FILTERS = ("models", "methods", "sources", "seeds", "suite", "where")
"""Options of `rib.report` that select runs."""

MOST_RUNS = 40
"""Most runs that are printed one by one; runs.csv has all of them."""


def report(config: ReportConfig) -> list[Path]:
    """Print tables of a store's fine-tuned runs, one set per group of comparable runs, and write them with figures.

    Args:
        config: Its ``paths.runs`` is the store, ``out`` the folder to write into (null: ``<store>/report``),
            ``models``, ``methods``, ``sources``, ``seeds``, ``suite`` and ``where`` select runs (null: all), ``sort``
            is the column to sort by, ``logger`` a dashboard that shows the tables as well.

    Returns:
        The files written, those of the first group first. Files of an earlier report in the folder are removed.

    Raises:
        RibError: If there is nothing to report; the message says what the store holds instead.
    """
    store, order = RunStore(config.paths.runs), parse_order(config.sort)
    trained = _fine_tuned(store)
    shown, selection = _select(trained, config, store)
    with_ri = _with_ri(shown, store)
    reported = with_ri if config.search_trials else without_trials(with_ri, store)
    if trials := len(with_ri) - len(reported):
        say(f"left out of the report: {trials} results of rib.search trials; include them with search_trials=true")
    if not reported:
        raise RibError(
            f"paths.runs: expected finished runs in {store.root} that are not trials of rib.search, found {trials} "
            "results of trials; include them with search_trials=true"
        )
    if selection:
        say(selection)
    groups = group_comparable(reported)
    out = Path(config.out) if config.out else store.root / "report"
    written = []
    for number, group in enumerate(groups, start=1):
        # A suite that was changed on the command line carries a star behind its name.
        suite = shipped_nodes("suite").get(group.results[0][1]["suite"].rstrip("*"), {}).get("sources", [])
        # A source outside the suite counts if it was asked for.
        asked = [*suite, *(() if config.sources is None else (m["source"] for _, m in group.results))]
        suffix = "" if number == 1 else f"_{number}"
        files, table = write_report(group.results, store, out, asked, suffix, order, selection, config.figures)
        written += files
        if table is not None:
            show_report(table, files, config.logger, config.paths.cache)
    return [*written, *finish_report(out, groups, written)]


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


def _fine_tuned(store: RunStore) -> list[Result]:
    """Return a store's fine-tuned runs.

    Raises:
        RibError: If there is none.
    """
    finished = _finished(store)
    trained = [(run, m) for run, m in finished if m["source"] != "none"]
    if not trained:
        raise RibError(
            f"paths.runs: {store.root} has {_count(finished)} without training (pretrained, or external weights "
            f"without a source) and none that was fine-tuned; make one with {_training_command(store)} +method=NAME"
        )
    return trained


def _select(trained: Sequence[Result], config: ReportConfig, store: RunStore) -> tuple[list[Result], str]:
    """Return the runs that match the config's filters, and a sentence that says how many these are, if not all."""
    filters = {name: getattr(config, name) for name in FILTERS}
    shown = select_runs(trained, **filters, kind=f"fine-tuned runs in {store.root}")
    total, number = _number(trained), _number(shown)
    given = describe_filters(**filters)
    return shown, f"{number} of {total} runs shown: {given}" if given and len(shown) < len(trained) else ""


def _with_ri(shown: Sequence[Result], store: RunStore) -> list[Result]:
    """Return the runs that have an RI and are up to date; say which are not.

    Raises:
        RibError: If there is none.
    """
    stale = out_of_date_in(store)
    if outdated := [(run, m) for run, m in shown if run.key in stale]:
        say(
            f"left out of the report: {_count(outdated)} made from runs whose weights have changed since, such as "
            f"{outdated[0][0].folder}; remake them with the commands that made them"
        )
    with_ri = [(run, m) for run, m in shown if m["robustness_improvement"] and run.key not in stale]
    if not with_ri:
        raise RibError(
            f"paths.runs: {store.root} has {_count(shown)} with fine-tuning, but no RI: each was scored on no target "
            "besides its own source; score them on a suite with python -m rib.evaluate runs=FOLDER suite=NAME"
        )
    return with_ri


def _finished(store: RunStore) -> list[Result]:
    """Return all finished runs of a store with their metrics, one entry per metrics file.

    Raises:
        RibError: If there is no such folder, or no finished run in it, with a guess at the folder that was meant.
    """
    if not store.root.is_dir():
        near = [p.parent.name for p in store.root.absolute().parent.glob("*/datasets")]
        raise RibError(
            f"paths.runs: expected a folder of runs made by rib.train, there is no folder {store.root}"
            f"{nearest(store.root.name, near)}"
        )
    finished = [(run, metrics) for run in store.finished() for metrics in _metrics_files(run)]
    if not finished:
        # Every store has a folder claims/: look for one around and below the given path.
        around = next((p for p in store.root.absolute().parents if (p / "claims").is_dir()), None)
        meant = around or next((p.parent for p in sorted(store.root.glob("*/claims"))), None)
        how = f"make one with {_training_command(store)}" if meant is None else f"did you mean {meant}?"
        raise RibError(f"paths.runs: expected finished runs in {store.root}, found none; {how}")
    return finished


def _training_command(store: RunStore) -> str:
    return f"python -m rib.train {shlex.quote(rib.config.spell_override('paths.runs', str(store.root)))}"


def _metrics_files(run: Run) -> list[Metrics]:
    """Return the content of all metrics files of a run; if one is unreadable, print why and return none."""
    try:
        return run.all_metrics()
    except RibError as error:
        say(f"left out of the report: {error}")
        return []


def _number(results: Sequence[Result]) -> int:
    return len({run.folder for run, _ in results})


def _count(results: Sequence[Result]) -> str:
    number = _number(results)
    return f"{number} run{'' if number == 1 else 's'}"


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

    from rib.reporting import runs_table, style
    from rib.reporting.captions import options_of, running_command
    from rib.reporting.figures import comparison_figure
    from rib.reporting.paper_table import paper_table
    from rib.reporting.summary import method_label
    from rib.reporting.summary_panels import summary_figure

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RibError(f"out: cannot make the folder {out} ({error.strerror}); choose another with out=DIR") from error
    console = output()
    figures = figures or FiguresConfig()
    here = ["python", "-m", "rib.report", shlex.quote(rib.config.spell_override("paths.runs", str(store.root)))]
    command = running_command(" ".join([*here, *options_of(figures)]))
    metrics = [m for _, m in results]
    files = [out / f"runs{suffix}.csv"]
    write_atomically(files[0], pd.DataFrame(runs_table.comparison_rows(metrics, order)).to_csv(index=False).encode())
    table = None
    if on_sources := [(run, m) for run, m in results if m["source"] in asked or not asked]:
        table = paper_table(on_sources, store, asked, order, selection)
        for shown in table.rich():
            console.print(shown, "")
        summary = out / f"summary{suffix}.csv"
        write_atomically(summary, table.frame().to_csv(index=False).encode())
        write_atomically(summary.with_suffix(".md"), table.markdown().encode())
        write_atomically(summary.with_suffix(".tex"), table.latex().encode())
        files += [summary.with_suffix(ending) for ending in (".csv", ".md", ".tex")]
        files += style.save(summary_figure(table, figures.width), summary.with_suffix(""), figures, command)
    if len(metrics) <= MOST_RUNS:
        console.print(runs_table.comparison_table(metrics, order), "")
    # With more methods than colours the figure could not be read.
    if len({method_label(m) for m in metrics}) <= len(style.SERIES):
        comparison = comparison_figure(metrics, figures.width)
        files += style.save(comparison, out / f"comparison{suffix}", figures, command)
    else:
        style.remove(out / f"comparison{suffix}")
    for line in runs_table.missing_controls(results):
        say(line)
    console.print("\n".join(str(file.resolve()) for file in files), soft_wrap=True, highlight=False)
    if warning := warning_after([m["model"] for m in metrics], metrics[0]["data"]["kind"]):
        console.print(warning, highlight=False)
    return files, table


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
    page = DashboardPage(
        kind="report",
        group="report",
        name=f"report: {world_of(metadata['data'], None)}, suite {metadata['suite']}",
        tags=[metadata["data"], metadata["suite"]],
        metadata=metadata,
        tables={"mRI_table": table.frame()},
        figures=[file for file in files if file.suffix == ".png"],
        numbers=table.numbers,
        folder=files[0].resolve().parent,
        cache=cache,
    )
    show_page(logger, page)
