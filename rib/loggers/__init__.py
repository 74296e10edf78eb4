"""Dashboards that show runs during training and their results: Weights & Biases, TensorBoard.

Imports `rib.runs` and the packages below it; `rib.reporting` and everything above may import it.
"""

from rib.loggers.base import Dashboard
from rib.loggers.tensorboard import TensorBoard
from rib.loggers.wandb import WandB

__all__ = ["Dashboard", "TensorBoard", "WandB"]
