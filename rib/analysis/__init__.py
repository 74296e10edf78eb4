"""Analyses of a fine-tuned model: CKA per layer and epoch, shared invariances, weight drift.

An analysis of a run lands in its folder: every variant in ``analysis/NAME/<key>/``, the latest one beside them as
``analysis/NAME.csv`` and ``.png``; repeating a command reads them, without torch.

Imports scoring and what stands below it, never training; studies and commands may import it.
"""

from __future__ import annotations

from pathlib import Path

from rib.analysis.cka import LayerCKA, layer_cka
from rib.analysis.drift import layer_drift
from rib.config.command_schema import AnalyzeConfig, CKAConfig

__all__ = ["LayerCKA", "analyze", "layer_cka", "layer_drift"]


def analyze(config: AnalyzeConfig) -> Path:
    """Do what ``python -m rib.analyze`` was asked for; returns the table's file.

    Raises:
        RibError: For whatever the user can mend.
    """
    if isinstance(config, CKAConfig):
        from rib.analysis.report import cka_report

        return cka_report(config)
    return layer_drift(config)
