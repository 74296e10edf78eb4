"""Analyses of a fine-tuned model: CKA per layer and epoch, shared invariances, weight drift.

Results are kept in the run's folder: each combination of options in ``analysis/NAME/<key>/``, and a copy of the latest
as ``analysis/NAME.csv`` and ``.png``. Repeating a command reads the saved result and does not import torch.

Imports scoring and the layers below it, never training; imported by studies and commands.
"""

from __future__ import annotations

from pathlib import Path

from rib.analysis.cka import LayerCKA, layer_cka
from rib.analysis.drift import layer_drift
from rib.config.command_schema import AnalyzeConfig, CKAConfig

__all__ = ["LayerCKA", "analyze", "layer_cka", "layer_drift"]


def analyze(config: AnalyzeConfig) -> Path:
    """Run one analysis: CKA or weight drift of a finished run.

    Args:
        config: The composed config of ``python -m rib.analyze``; its class selects the analysis.

    Returns:
        Path of the table, ``RUN/analysis/cka.csv`` or ``RUN/analysis/drift.csv``.

    Raises:
        RibError: If an option is invalid, or a run has no weights to analyse.
    """
    if isinstance(config, CKAConfig):
        from rib.analysis.report import cka_report

        return cka_report(config)
    return layer_drift(config)
