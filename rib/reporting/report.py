"""Print and write the tables, mRI and figures of all comparable runs in a store."""

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
from rib.reporting.comparability import comparable, what_differs
from rib.runs.freshness import out_of_date_in
from rib.runs.run import Result, Run
from rib.runs.store import RunStore
from rib.runs.trials import without_trials
from rib.runtime.console import say
from rib.runtime.files import write_atomically
from rib.schemas.metrics import Metrics

if TYPE_CHECKING:
    from rib.reporting.table import PaperTable


def report(config: ReportConfig) -> list[Path]:
    """Print the tables of each group of comparable runs in a store, and write them with their figures.

    Args:
        config: The store (``paths.runs``), where to write (``out``), ``sources`` if not all, and a dashboard.

    Returns:
        The files written, those of the largest group first.

    Raises:
        RibError: If there is nothing to report, with what there is in its place.
    """
    store = RunStore(config.paths.runs)
    trained = _trained(store, config.sources)
    shown = trained if config.search_trials else without_trials(trained, store)
    if left := len(trained) - len(shown):
        say(f"left out: {left} results of runs that rib.search made to choose a setting; search_trials=true shows them")
    if not shown:
        raise RibError(
            f"paths.runs: expected finished runs in {store.root} that are no trials of rib.search, found {left} "
            "results of trials; search_trials=true shows them"
        )
    groups = comparable(shown)
    for line in what_differs(groups):
        say(line)
    out = Path(config.out) if config.out else store.root / "report"
    written = []
    for number, group in enumerate(groups, start=1):
        suite = shipped_nodes("suite").get(group.results[0][1]["suite"].rstrip("*"), {}).get("sources", [])
        asked = [*suite, *(config.sources or [])]
        files, table = write_report(group.results, store, out, asked, "" if number == 1 else f"_{number}")
        written += files
        if table is not None:
            show_report(table, files, config.logger, config.paths.cache)
    return written


def _trained(store: RunStore, sources: Sequence[str] | None) -> Sequence[Result]:
    """Fine-tuned runs with an RI, on some sources.

    Raises:
        RibError: If there is none, or none on one of the sources.
    """
    if not store.root.is_dir():
        near = [p.parent.name for p in store.root.absolute().parent.glob("*/datasets")]
        raise RibError(
            f"paths.runs: expected a store of runs that rib.train has made, there is no folder {store.root}"
            f"{nearest(store.root.name, near)}"
        )
    finished = [(run, view) for run in store.finished() for view in _views(run)]
    trained = [(run, m) for run, m in finished if m["source"] != "none"]
    make = f"python -m rib.train {shlex.quote(rib.config.spell_override('paths.runs', str(store.root)))}"
    if not finished:
        around = next((p for p in store.root.absolute().parents if (p / "claims").is_dir()), None)
        meant = around or next((p.parent for p in sorted(store.root.glob("*/claims"))), None)
        how = f"make one with {make}" if meant is None else f"did you mean {meant}?"
        raise RibError(f"paths.runs: expected finished runs in {store.root}, found none; {how}")
    if not trained:
        raise RibError(
            f"paths.runs: {store.root} has {_count(finished)} that trained nothing (pretrained, or weights from "
            f"elsewhere without a source) and none that was fine-tuned; make one with {make} +method=NAME"
        )
    wanted = [(run, m) for run, m in trained if sources is None or m["source"] in sources]
    known = dict.fromkeys(m["source"] for _, m in trained)
    absent = [source for source in sources or () if source not in known]
    datasets = {name for _, m in trained for name in catalog_of(m["data"]["kind"]).specs}
    wrong = [name for name in absent if name not in datasets]
    if wrong or not wanted:
        name = (wrong or absent or [""])[0]
        raise RibError(
            f"sources: {store.root} has {_count(trained)} that trained, none of them on "
            f"{name if wrong else ', '.join(absent) or 'an empty list'}; there are: {', '.join(known)}"
            f"{nearest(name, [*known, *datasets]) if wrong else ''}"
        )
    stale = out_of_date_in(store)
    if old := [(run, m) for run, m in wanted if run.key in stale]:
        say(
            f"left out: {_count(old)} made from others that hold other weights by now, such as {old[0][0].folder}; "
            "their commands make them again"
        )
    measured = [(run, m) for run, m in wanted if m["robustness_improvement"] and run.key not in stale]
    if not measured:
        raise RibError(
            f"paths.runs: {store.root} has {_count(wanted)} that trained, and RI of none: each was scored on no target "
            "but its own source; score them on a suite with python -m rib.evaluate runs=FOLDER suite=NAME"
        )
    return measured


def _views(run: Run) -> list[Metrics]:
    """What was measured of a run; a view that cannot be read is said, and the run left out."""
    try:
        return run.all_metrics()
    except RibError as error:
        say(f"left out: {error}")
        return []


def _count(results: Sequence[Result]) -> str:
    number = len({run.folder for run, _ in results})
    return f"{number} run{'' if number == 1 else 's'}"


def write_report(
    results: Sequence[Result], store: RunStore, out: Path, asked: Sequence[str] = (), suffix: str = ""
) -> tuple[list[Path], PaperTable | None]:
    """Print and write runs.csv, the table as summary.csv, .md, .tex and .png, and (up to 7 methods) comparison.png.

    Args:
        results: Fine-tuned runs that may share a table.
        store: Where they are.
        out: Folder to write into.
        asked: Sources that mRI is over; runs on others stand in runs.csv only. Empty for all that are there.
        suffix: Behind every file's name.

    Returns:
        The files, and the table; None where no run is on a source that was asked for.
    """
    import pandas as pd
    from rich.console import Console

    from rib.reporting import figures, runs_table, style
    from rib.reporting.summary import method_label
    from rib.reporting.table import paper_table

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RibError(f"out: cannot make the folder {out} ({error.strerror}); choose another with out=DIR") from error
    console = Console(width=None if Console().is_terminal else 200)
    metrics = [m for _, m in results]
    console.print(runs_table.comparison_table(metrics))
    files = [out / f"runs{suffix}.csv"]
    write_atomically(files[0], pd.DataFrame(runs_table.comparison_rows(metrics)).to_csv(index=False).encode())
    table = None
    if inside := [(run, m) for run, m in results if m["source"] in asked or not asked]:
        table = paper_table(inside, store, asked)
        console.print(*table.rich(), sep="\n")
        summary = out / f"summary{suffix}.csv"
        write_atomically(summary, table.frame().to_csv(index=False).encode())
        write_atomically(summary.with_suffix(".md"), table.markdown().encode())
        write_atomically(summary.with_suffix(".tex"), table.latex().encode())
        style.save(figures.summary_figure(table), summary.with_suffix(".png"))
        files += [summary.with_suffix(ending) for ending in (".csv", ".md", ".tex", ".png")]
    if len({method_label(m) for m in metrics}) <= len(style.SERIES):
        files.append(style.save(figures.comparison_figure(metrics), out / f"comparison{suffix}.png"))
    for line in runs_table.missing_controls(results):
        say(line)
    console.print("\n".join(str(file.resolve()) for file in files), soft_wrap=True, highlight=False)
    return files, table


def show_report(table: PaperTable, files: Sequence[Path], logger: Mapping[str, Any], cache: str | None) -> None:
    """Show a table on a dashboard.

    Args:
        table: From `write_report`, as are the
        files: whose pictures go with it; beside the first W&B's own files are put.
        logger: The config's ``logger`` node; nothing happens where it names no class.
        cache: ``paths.cache``.
    """
    from rib.loggers.base import DashboardPage, show_page

    about = table.facts
    exhibit = DashboardPage(
        kind="report",
        group="report",
        name=f"report: {about['data']}, suite {about['suite']}",
        tags=[about["data"], about["suite"]],
        metadata=about,
        tables={"mRI_table": table.frame()},
        figures=[file for file in files if file.suffix == ".png"],
        numbers=table.numbers,
        folder=files[0].resolve().parent,
        cache=cache,
    )
    show_page(logger, exhibit)
