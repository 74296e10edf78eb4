"""What a person sees of an analysis: the latest files in front, a few lines on stdout, and the run's dashboard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from rib.analysis.cka import LayerCKA, epoch_cka, layer_cka, read_layers
from rib.analysis.place import put_in_front
from rib.analysis.subject import Subject
from rib.loggers import Analysis, show_analysis
from rib.schema import CKAConfig


def cka_report(config: CKAConfig) -> Path:
    """CKA on every dataset asked for, with what stands beside it; returns ``RUN/analysis/cka.csv``.

    The first dataset's files are ``cka.csv``, ``cka_heatmap.png`` and ``cka.npz``, those of others
    ``cka.<dataset>.csv``, ...; ``cka.png`` has a panel for each.
    """
    from rib.analysis.figures import curve_figure, epochs_figure, heat_figure

    subject = Subject.of(config.run, config)
    found = [layer_cka(config, dataset) for dataset in config.datasets]
    new = any(one.made for one in found)
    front, shown = [], {}
    for number, (dataset, one) in enumerate(zip(config.datasets, found, strict=True)):
        suffix = "" if number == 0 else f".{dataset}"
        heat = one.folder / "cka_heatmap.png"
        if not heat.is_file():
            heat_figure(one.arrays, one.facts, heat)
            curve_figure([(one.table, one.facts)], one.folder / "cka.png")
        files = {"cka.csv": f"cka{suffix}.csv", "cka.npz": f"cka{suffix}.npz", heat.name: f"cka_heatmap{suffix}.png"}
        front += [put_in_front(one.folder, name, there) for name, there in files.items()]
        shown[f"cka/{dataset}"] = one.table
        _say(dataset, one)
    front.append(curve_figure([(one.table, one.facts) for one in found], front[0].with_name("cka.png")))
    if config.checkpoints:
        folder, made = epoch_cka(config, config.datasets[0])
        new |= made
        table = read_layers(folder / "cka_epochs.csv")
        epochs_figure(table, found[0].facts, folder / "cka_epochs.png")
        front += [put_in_front(folder, name, name) for name in ("cka_epochs.csv", "cka_epochs.png")]
        shown["cka/epochs"] = table
        for epoch, mean in table.groupby("epoch")["cka"].mean().items():
            print(f"after epoch {epoch}: mean CKA {mean:.3f}")
    if config.stir:
        from rib.analysis.stir import shared_invariances

        folder, made = shared_invariances(config, config.datasets[0])
        new |= made
        front.append(put_in_front(folder, "stir.csv", "stir.csv"))
        shown["stir"] = pd.read_csv(front[-1])
        for row in shown["stir"].itertuples():
            print(f"STIR({row.model} | {row.given}) {row.stir:.3f}, CKA {row.cka:.3f}, residual {row.residual:.3f}")
    means = {f"cka/{dataset}/mean": one.mean for dataset, one in zip(config.datasets, found, strict=True)}
    say_where(front)
    if new:
        show_analysis(config, Analysis.of(subject.run, "cka", shown, front, means))
    return front[0]


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


def say_where(files: Sequence[Path]) -> None:
    """Name the figures."""
    print(f"figures: {' '.join(str(file.resolve()) for file in files if file.suffix == '.png')}")
