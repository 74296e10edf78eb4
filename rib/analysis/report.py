"""What a person sees of an analysis: the latest files in front, a few lines on stdout, and the run's dashboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

from rib.analysis.cache import copy_as_latest
from rib.analysis.cka import LayerCKA, Pair, epoch_cka, layer_cka, read_layers
from rib.config.command_schema import AnalyzeConfig, CKAConfig
from rib.loggers.base import DashboardPage, show_page
from rib.runs.run import Run

NOT_SHOWN = ("paths", "logger", "force", "device", "data")
"""What of an analysis's config a dashboard need not know."""


@dataclass
class Shown:
    """What a command has found so far: files in front, tables by name, and whether anything of it is new."""

    files: list[Path] = field(default_factory=list)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    new: bool = False


def cka_report(config: CKAConfig) -> Path:
    """CKA on every dataset asked for, with what stands beside it; returns ``RUN/analysis/cka.csv``.

    The first dataset's files are ``cka.csv``, ``cka_heatmap.png`` and ``cka.npz``, those of others
    ``cka.<dataset>.csv``, ...; ``cka.png`` has a panel for each.

    Raises:
        RibError: For whatever the user can mend.
    """
    pair = Pair.of(config)
    run, shown = pair.one.run, Shown()
    if config.checkpoints:
        _ = pair.one.epochs  # refused before anything is made
    found = _on_each_dataset(config, shown)
    if config.checkpoints:
        _over_epochs(config, found[0], shown)
    if config.stir:
        _stir(config, shown)
    say_where(shown.files)
    if shown.new:
        means = {f"cka/{dataset}/mean": one.mean for dataset, one in zip(config.datasets, found, strict=True)}
        show_page(config.logger, exhibit_of(config, run, "cka", shown.tables, shown.files, means))
    return shown.files[0]


def _on_each_dataset(config: CKAConfig, shown: Shown) -> list[LayerCKA]:
    from rib.analysis.figures import curve_figure, heat_figure

    found = [layer_cka(config, dataset) for dataset in config.datasets]
    for number, (dataset, one) in enumerate(zip(config.datasets, found, strict=True)):
        heat, suffix = one.folder / "cka_heatmap.png", f".{dataset}" if number else ""
        if one.made or not heat.is_file():
            curve_figure([(one.table, one.facts)], one.folder / "cka.png")
            heat_figure(one.arrays, one.facts, heat)
        files = {"cka.csv": f"cka{suffix}.csv", "cka.npz": f"cka{suffix}.npz", heat.name: f"cka_heatmap{suffix}.png"}
        shown.files += [copy_as_latest(one.folder, name, there) for name, there in files.items()]
        shown.tables[f"cka/{dataset}"] = one.table
        shown.new |= one.made
        _say(dataset, one)
    curves = [(one.table, one.facts) for one in found]
    shown.files.append(curve_figure(curves, shown.files[0].with_name("cka.png")))
    return found


def _over_epochs(config: CKAConfig, last: LayerCKA, shown: Shown) -> None:
    from rib.analysis.figures import epochs_figure

    folder, made = epoch_cka(config, config.datasets[0])
    table = read_layers(folder / "cka_epochs.csv")
    epochs_figure(table, last.facts, folder / "cka_epochs.png")
    shown.files += [copy_as_latest(folder, name, name) for name in ("cka_epochs.csv", "cka_epochs.png")]
    shown.tables["cka/epochs"] = table
    shown.new |= made
    for epoch, mean in table.groupby("epoch")["cka"].mean().items():
        print(f"after epoch {epoch}: mean CKA {mean:.3f}")


def _stir(config: CKAConfig, shown: Shown) -> None:
    from rib.analysis.stir import shared_invariances

    folder, made = shared_invariances(config, config.datasets[0])
    shown.files.append(copy_as_latest(folder, "stir.csv", "stir.csv"))
    shown.tables["stir"] = pd.read_csv(shown.files[-1])
    shown.new |= made
    for row in shown.tables["stir"].itertuples():
        print(f"STIR({row.model} | {row.given}) {row.stir:.3f}, CKA {row.cka:.3f}, residual {row.residual:.3f}")


def _say(dataset: str, one: LayerCKA) -> None:
    table, facts = one.table, one.facts
    about = f"{dataset}, {facts['images']} images in {facts['batches']} batches, tokens {'/'.join(facts['read'])}"
    known = table.dropna(subset="cka")
    if known.empty:
        print(f"{about}: no layer of the two has the same name; see the heat map")
        return
    least = known.iloc[int(known["cka"].to_numpy().argmin())]
    ends = "no interval" if pd.isna(least["low"]) else f"[{least['low']:.3f}, {least['high']:.3f}]"
    print(
        f"{about}: mean CKA {one.mean:.3f} of {len(known)} layers, least {least['cka']:.3f} {ends} at {least['layer']}"
    )
    for note, layers in table[table["note"] != ""].groupby("note")["layer"]:
        print(f"{note}: {', '.join(layers)}")


def exhibit_of(
    config: AnalyzeConfig,
    run: Run,
    name: str,
    tables: Mapping[str, pd.DataFrame],
    files: Sequence[Path],
    numbers: Mapping[str, float],
) -> DashboardPage:
    """An analysis of a run as a dashboard may know it, in the run's group."""
    m = run.metrics()
    assert m is not None, "an analysis is of a finished run"
    asked = {key: value for key, value in asdict(config).items() if key not in NOT_SHOWN}
    return DashboardPage(
        kind=name,
        group=f"{m['model']}/{m['source']}",
        name=f"{name} of {m['method']} {m['fingerprint'][:6]}",
        tags=[m["data"]["kind"]],
        metadata={**asked, "fingerprint": m["fingerprint"]},
        tables=tables,
        figures=[file for file in files if file.suffix == ".png"],
        numbers=numbers,
        folder=run.folder / "analysis",
        cache=config.paths.cache,
    )


def say_where(files: Sequence[Path]) -> None:
    """Name the figures."""
    print(f"figures: {' '.join(str(file.resolve()) for file in files if file.suffix == '.png')}")
