"""Labels of a network's layers on the axis of a figure: their blocks, or their names shortened in the middle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from rib.reporting.sized_figure import TICK

OUTPUT = "block output"
"""Label of a block's own output, beside those of the layers inside it."""

LINE = 0.135
"""Inches that a line of tick labels needs."""


def by_block(layers: Sequence[str]) -> list[tuple[int, str]] | None:
    """Split each layer name of a ViT into the number of its block and its name inside the block.

    Args:
        layers: Names such as ``blocks.3.mlp.fc1``.

    Returns:
        Pairs such as ``(3, "mlp.fc1")``; None if the layers are not all in one list of blocks, as in a ConvNet.
    """
    split = [name.split(".") for name in layers]
    depths = [next((i for i, word in enumerate(words) if word.isdecimal()), None) for words in split]
    if not layers or None in depths or len({tuple(words[:i]) for words, i in zip(split, depths, strict=True)}) > 1:
        return None
    pairs = [(int(words[i]), ".".join(words[i + 1 :])) for words, i in zip(split, depths, strict=True) if i is not None]
    if any(name.split(".")[-1].isdecimal() for _, name in pairs if name):
        return None
    return [(block, name or OUTPUT) for block, name in pairs]


def name_layers(axis: Any, names: list[str], room: float) -> None:
    """Label an axis of layers: every layer if there is room, else the ends of blocks or evenly spaced layers.

    Args:
        axis: The x or y axis.
        names: Names of the layers, at 0, 1, ...
        room: Length of the axis in inches.
    """
    most = max(2, int(room / LINE))
    blocks = by_block(names)
    ends = [i for i, (_, name) in enumerate(blocks or []) if name == OUTPUT]
    ticks = list(range(len(names))) if len(names) <= most else ends or list(range(len(names)))
    ticks = ticks[:: -(-len(ticks) // most)] if ticks else []
    labels = [names[i] if blocks is None else f"{blocks[i][0]}: {blocks[i][1]}" for i in ticks]
    # The middle of a long name says least: its start is the stage, its end the kind of layer.
    labels = [label if len(label) <= 24 else f"{label[:8]}…{label[-15:]}" for label in labels]
    axis.set_ticks(ticks, labels, fontsize=TICK, rotation=0 if axis.axis_name == "y" else 90)


def number_blocks(axes: Axes, names: Sequence[str], room: float) -> bool:
    """Label an x axis of layers by the numbers of their blocks, at each block's output, or else by their names.

    Args:
        axes: Axes whose x axis has the layers at 0, 1, ...
        names: Names of the layers.
        room: Length of the axis in inches.

    Returns:
        True if the labels are numbers of blocks.
    """
    blocks = by_block(names)
    ends = [i for i, (_, name) in enumerate(blocks or []) if name == OUTPUT]
    if not blocks or not ends:
        name_layers(axes.xaxis, list(names), room)
        return False
    ends = ends[:: -(-len(ends) // max(2, int(room / 0.2)))]
    axes.set_xticks(ends, [str(blocks[i][0]) for i in ends], fontsize=TICK)
    return True
