"""Show an analysis to the user: copies of the latest files, a few printed lines, and a dashboard page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from rib.analysis.cache import copy_as_latest
from rib.analysis.cka import LayerCKA, Pair, epoch_cka, layer_cka, read_layers
from rib.config.command_schema import AnalyzeConfig, CKAConfig
from rib.config.schema import FIGURE_FORMATS, FiguresConfig
from rib.data.worlds import logged_name, suffix_of, title_of
from rib.loggers.base import DashboardPage, show_page
from rib.reporting.data_warning import warning_after
from rib.runs.run import Run
from rib.schemas.metrics import Metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOT_SHOWN = ("paths", "logger", "figures", "force", "device", "data")
"""Options of an analysis that are not sent to a dashboard: paths of this machine, and what changes no number."""


@dataclass
class Output:
    """Files and tables that a CKA command has produced so far.

    Attributes:
        files: Copies of the latest files, in the run's analysis folder.
        tables: Tables by name, for the dashboard.
        new: True if any of these results was computed by this command, so that the dashboard does not show it yet.
    """

    files: list[Path] = field(default_factory=list)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    new: bool = False


def cka_report(config: CKAConfig) -> Path:
    """Compute, print and plot CKA on every requested dataset, and CKA over epochs and STIR if requested.

    The first dataset's files are ``cka.csv``, ``cka_heatmap.png`` and ``cka.npz``, those of others
    ``cka.<dataset>.csv``, ...; ``cka.png`` has a panel for each. ``figures.format`` may ask for others than png.

    Args:
        config: Options of the analysis.

    Returns:
        Path of ``RUN/analysis/cka.csv``.

    Raises:
        RibError: If an option is invalid, or a run has no weights to analyse.
    """
    pair = Pair.of(config)
    config, run, output = pair.config, pair.one.run, Output()
    if config.checkpoints:
        _ = pair.one.epochs  # raises if none were kept, before anything is computed
    results = _on_each_dataset(config, pair.datasets, output)
    if config.checkpoints:
        _over_epochs(config, pair.datasets, results[0], output)
    if config.stir:
        _stir(config, pair.datasets, output)
    print_figures(output.files, pair.one.metrics)
    if output.new:
        means = {f"cka/{one.logged_name}/mean": one.mean for one in results}
        show_page(config.logger, dashboard_page(config, run, "cka", output.tables, output.files, means))
    return output.files[0]


def _on_each_dataset(config: CKAConfig, datasets: Sequence[str], output: Output) -> list[LayerCKA]:
    from rib.analysis.figures import curve_figure, heat_figure
    from rib.reporting.captions import running_command
    from rib.reporting.style import save

    width, command = config.figures.width, running_command("")
    results = [layer_cka(config, dataset) for dataset in datasets]
    for number, (dataset, one) in enumerate(zip(datasets, results, strict=True)):
        suffix = f".{dataset}" if number else ""
        files = {"cka.csv": f"cka{suffix}.csv", "cka.npz": f"cka{suffix}.npz"}
        output.files += [copy_as_latest(one.folder, name, copy) for name, copy in files.items()]
        output.tables[f"cka/{one.logged_name}"] = one.table
        curve = curve_figure([(one.table, one.metadata)], width)
        if len(results) == 1:
            curves = save_as_latest(curve, one.folder, "cka", "cka", config.figures)
        else:
            save(curve, one.folder / "cka", config.figures, command)
        heat = heat_figure(one.arrays, one.metadata, width)
        output.files += save_as_latest(heat, one.folder, "cka_heatmap", f"cka_heatmap{suffix}", config.figures)
        output.new |= one.made
        _print_layers(one)
    if len(results) > 1:
        panels = [(one.table, one.metadata) for one in results]
        curves = save(curve_figure(panels, width), output.files[0].with_name("cka"), config.figures, command)
    output.files += curves
    return results


def _over_epochs(config: CKAConfig, datasets: Sequence[str], last: LayerCKA, output: Output) -> None:
    from rib.analysis.figures import epochs_figure

    folder, made = epoch_cka(config, datasets[0])
    table = read_layers(folder / "cka_epochs.csv")
    output.files.append(copy_as_latest(folder, "cka_epochs.csv", "cka_epochs.csv"))
    figure = epochs_figure(table, last.metadata, config.figures.width)
    output.files += save_as_latest(figure, folder, "cka_epochs", "cka_epochs", config.figures)
    output.tables["cka/epochs"] = table
    output.new |= made
    for epoch, mean in table.groupby("epoch")["cka"].mean().items():
        print(f"after epoch {epoch}: mean CKA {mean:.3f}")


def _stir(config: CKAConfig, datasets: Sequence[str], output: Output) -> None:
    from rib.analysis.stir import shared_invariances

    folder, made = shared_invariances(config, datasets[0])
    output.files.append(copy_as_latest(folder, "stir.csv", "stir.csv"))
    output.tables["stir"] = pd.read_csv(output.files[-1])
    output.new |= made
    for row in output.tables["stir"].itertuples():
        print(f"STIR({row.model} | {row.given}) {row.stir:.3f}, CKA {row.cka:.3f}, residual {row.residual:.3f}")


def _print_layers(one: LayerCKA) -> None:
    table, metadata = one.table, one.metadata
    tokens = "/".join(metadata["read"])
    dataset = title_of(metadata["dataset"], metadata["kind"])
    sample = f"{dataset}, {metadata['images']} images in {metadata['batches']} batches, tokens {tokens}"
    known = table.dropna(subset="cka")
    if known.empty:
        print(f"{sample}: the two models share no layer name; see the heat map")
        return
    least = known.iloc[int(known["cka"].to_numpy().argmin())]
    ends = "no interval" if pd.isna(least["low"]) else f"[{least['low']:.3f}, {least['high']:.3f}]"
    lowest = f"lowest {least['cka']:.3f} {ends} at {least['layer']}"
    print(f"{sample}: mean CKA {one.mean:.3f} of {len(known)} layers, {lowest}")
    for note, layers in table[table["note"] != ""].groupby("note")["layer"]:
        print(f"{note}: {', '.join(layers)}")


def dashboard_page(
    config: AnalyzeConfig,
    run: Run,
    name: str,
    tables: Mapping[str, pd.DataFrame],
    files: Sequence[Path],
    numbers: Mapping[str, float],
) -> DashboardPage:
    """Return the dashboard page of an analysis, grouped with its run.

    Args:
        config: Options of the analysis.
        run: The run that was analysed.
        name: Name of the analysis, ``cka``.
        tables: Tables by name.
        files: Files of the analysis, of which the PNG ones are shown.
        numbers: Scalars by name, for comparison between runs.
    """
    m = run.metrics()
    assert m is not None, "only finished runs are analysed"
    kind = m["data"]["kind"]
    options = {key: value for key, value in asdict(config).items() if key not in NOT_SHOWN}
    return DashboardPage(
        kind=name,
        group=f"{m['model']}/{logged_name(m['source'], kind)}",
        name=f"{name} of {m['method']} {m['fingerprint'][:6]}{suffix_of(kind)}",
        tags=[kind],
        metadata={**options, "fingerprint": m["fingerprint"]},
        tables=tables,
        figures=[file for file in files if file.suffix == ".png"],
        numbers=numbers,
        folder=run.folder / "analysis",
        cache=config.paths.cache,
    )


def save_as_latest(figure: Figure, folder: Path, name: str, latest: str, figures: FiguresConfig) -> list[Path]:
    """Write a figure's files into the folder of a cached analysis, and copy them to where users find the latest.

    Args:
        figure: The figure.
        folder: `CachedAnalysis.folder`.
        name: Name of the files in it, without an ending.
        latest: Name of the copies in ``RUN/analysis``, without an ending.
        figures: Formats and width.

    Returns:
        The copies.
    """
    from rib.reporting.captions import running_command
    from rib.reporting.style import remove, save

    written = save(figure, folder / name, figures, running_command(""))
    copies = [copy_as_latest(folder, file.name, f"{latest}{file.suffix}") for file in written]
    remove(folder.parents[1] / latest, but=copies)
    return copies


def print_figures(files: Sequence[Path], metrics: Metrics) -> None:
    """Print the paths of all figures in a list of files, and a warning if the run's data make no sense for its model.

    Args:
        files: The files of an analysis.
        metrics: Of the run that was analysed.
    """
    print(f"figures: {' '.join(str(file.resolve()) for file in files if file.suffix[1:] in FIGURE_FORMATS)}")
    if warning := warning_after([metrics["model"]], metrics["data"]["kind"]):
        print(warning)
