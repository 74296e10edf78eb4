"""Preload of a grid's fork server: what every cell needs, imported and read once.

The fork server imports this module by its name. Nothing here depends on a cell or on the user's files: data, weights
and code are looked up by each cell. Measured on two cores, a cell of the built-in data spent a third of its CPU time on
this before.
"""

from __future__ import annotations

import atexit
import gc
from contextlib import suppress
from importlib import import_module

from rib.config.shipped import shipped_nodes
from rib.config.user_code import distributions

MODULES = (
    *("rib.pipeline", "rib.training.fit", "rib.training.merge", "rib.training.module", "rib.training.callbacks"),
    *("rib.training.resume", "rib.training.probe", "rib.data.datamodule", "rib.models.build", "rib.scoring.one_pass"),
    *("rib.reporting.run_figures", "lightning.fabric", "timm", "pandas", "PIL.JpegImagePlugin", "psutil"),
    *("matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf"),
)
"""Modules that cells import where they are used."""

GROUPS = ("model", "method", "optimizer", "suite", "dataset")
"""Config groups whose files cells read."""


def preload() -> None:
    """Import `MODULES`, read the default options, and keep all of it out of garbage collections after a fork.

    What fails here fails again in a cell, which records the reason.
    """
    for name in MODULES:
        with suppress(ImportError):
            import_module(name)
    with suppress(Exception):
        import_module("rib.config.defaults").default_options()
        for group in GROUPS:
            shipped_nodes(group)
        distributions()
    gc.collect()
    gc.freeze()  # a collection in a cell would look at, and so copy, every page shared with the server
    atexit.register(gc.unfreeze)  # C extensions report what is never freed as leaks


preload()
