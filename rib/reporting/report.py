"""Print and write tables and figures of the finished runs in a store, one set per group of comparable runs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rib.config
from rib.config.command_schema import ReportConfig
from rib.config.shipped import shipped_nodes
from rib.data.worlds import catalog_of
from rib.errors import RibError, nearest
from rib.reporting.comparability import explain_groups, group_comparable
from rib.reporting.data_warning import warning_after
from rib.reporting.formatting import world_of
from rib.reporting.layout import output
from rib.runs.freshness import out_of_date_in
from rib.runs.run import Result, Run
from rib.runs.store import RunStore
from rib.runs.trials import without_trials
from rib.runtime.console import say
from rib.runtime.files import write_atomically
from rib.schemas.metrics import Metrics

if TYPE_CHECKING:
    from rib.reporting.paper_table import PaperTable


def report(config: ReportConfig) -> list[Path]:
    """Print tables of a store's fine-tuned runs, one set per group of comparable runs, and write them with figures.

    Args:
        config: Its ``paths.runs`` is the store, ``out`` the folder to write into (null: ``<store>/report``),
            ``sources`` the sources to report (null: all), ``logger`` a dashboard that shows the tables as well.

    Returns:
        The files written, those of the first group first.

    Raises:
        RibError: If there is nothing to report; the message says what the store holds instead.
    """
    store = RunStore(config.paths.runs)
    trained = _fine_tuned(store, config.sources)
    reported = trained if config.search_trials else without_trials(trained, store)
    if trials := len(trained) - len(reported):
        say(f"left out of the report: {trials} results of rib.search trials; include them with search_trials=true")
    if not reported:
        raise RibError(
            f"paths.runs: expected finished runs in {store.root} that are not trials of rib.search, found {trials} "
            "results of trials; include them with search_trials=true"
        )
    groups = group_comparable(reported)
    for line in explain_groups(groups):
        say(line)
    out = Path(config.out) if config.out else store.root / "report"
    written = []
    for number, group in enumerate(groups, start=1):
        # A suite that was changed on the command line carries a star behind its name.
        suite = shipped_nodes("suite").get(group.results[0][1]["suite"].rstrip("*"), {}).get("sources", [])
        asked = [*suite, *(config.sources or [])]
        files, table = write_report(group.results, store, out, asked, "" if number == 1 else f"_{number}")
        written += files
        if table is not None:
            show_report(table, files, config.logger, config.paths.cache)
    return written


def _fine_tuned(store: RunStore, sources: Sequence[str] | None) -> Sequence[Result]:
    """Return a store's fine-tuned runs that have an RI, on the given sources (None: on all).

    Raises:
        RibError: If there is none, or none on one of the sources.
    """
    finished = _finished(store)
    trained = [(run, m) for run, m in finished if m["source"] != "none"]
    if not trained:
        raise RibError(
            f"paths.runs: {store.root} has {_count(finished)} without training (pretrained, or external weights "
            f"without a source) and none that was fine-tuned; make one with {_training_command(store)} +method=NAME"
        )
    wanted = [(run, m) for run, m in trained if sources is None or m["source"] in sources]
    known = dict.fromkeys(m["source"] for _, m in trained)
    absent = [source for source in sources or () if source not in known]
    datasets = {name for _, m in trained for name in catalog_of(m["data"]["kind"]).specs}
    # A dataset without runs is no mistake as long as other sources have some; a name that is no dataset always is one.
    unknown = [name for name in absent if name not in datasets]
    if unknown or not wanted:
        name = (unknown or absent or [""])[0]
        raise RibError(
            f"sources: expected sources with fine-tuned runs in {store.root}, got "
            f"{name if unknown else ', '.join(absent) or 'an empty list'}; available: {', '.join(known)}"
            f"{nearest(name, [*known, *datasets]) if unknown else ''}"
        )
    stale = out_of_date_in(store)
    if outdated := [(run, m) for run, m in wanted if run.key in stale]:
        say(
            f"left out of the report: {_count(outdated)} made from runs whose weights have changed since, such as "
            f"{outdated[0][0].folder}; remake them with the commands that made them"
        )
    with_ri = [(run, m) for run, m in wanted if m["robustness_improvement"] and run.key not in stale]
    if not with_ri:
        raise RibError(
            f"paths.runs: {store.root} has {_count(wanted)} with fine-tuning, but no RI: each was scored on no target "
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


def _count(results: Sequence[Result]) -> str:
    number = len({run.folder for run, _ in results})
    return f"{number} run{'' if number == 1 else 's'}"


def write_report(
    results: Sequence[Result], store: RunStore, out: Path, asked: Sequence[str] = (), suffix: str = ""
) -> tuple[list[Path], PaperTable | None]:
    """Print the tables of comparable runs, and write them to a folder with their figures.

    The files are runs.csv (one row per run), the paper's table as summary.csv, .md, .tex and .png, and comparison.png,
    which is left out for more than 7 methods, since figures have 7 colours.

    Args:
        results: Fine-tuned runs that can share a table.
        store: The store that holds them.
        out: Folder to write into.
        asked: Sources that mRI is taken over; runs on others appear in runs.csv only. Empty for all sources with runs.
        suffix: Appended to every file's name, before its extension.

    Returns:
        The files, and the paper's table, which is None if no run is on one of the sources.

    Raises:
        RibError: If the folder cannot be made, or a run's predictions cannot be read.
    """
    # Imported here: pandas and matplotlib take about a second each, and the checks before should not wait for them.
    import pandas as pd

    from rib.reporting import figures, runs_table, style
    from rib.reporting.paper_table import paper_table
    from rib.reporting.summary import method_label

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RibError(f"out: cannot make the folder {out} ({error.strerror}); choose another with out=DIR") from error
    console = output()
    metrics = [m for _, m in results]
    console.print(runs_table.comparison_table(metrics), "")
    files = [out / f"runs{suffix}.csv"]
    write_atomically(files[0], pd.DataFrame(runs_table.comparison_rows(metrics)).to_csv(index=False).encode())
    table = None
    if on_sources := [(run, m) for run, m in results if m["source"] in asked or not asked]:
        table = paper_table(on_sources, store, asked)
        for shown in table.rich():
            console.print(shown, "")
        summary = out / f"summary{suffix}.csv"
        write_atomically(summary, table.frame().to_csv(index=False).encode())
        write_atomically(summary.with_suffix(".md"), table.markdown().encode())
        write_atomically(summary.with_suffix(".tex"), table.latex().encode())
        style.save(figures.summary_figure(table), summary.with_suffix(".png"))
        files += [summary.with_suffix(ending) for ending in (".csv", ".md", ".tex", ".png")]
    # With more methods than colours the figure could not be read.
    if len({method_label(m) for m in metrics}) <= len(style.SERIES):
        files.append(style.save(figures.comparison_figure(metrics), out / f"comparison{suffix}.png"))
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
