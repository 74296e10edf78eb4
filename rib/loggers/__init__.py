"""Dashboards that show runs while they are made: Weights & Biases, TensorBoard.

Imports runs and what stands below it; reporting and everything above may import it.
"""

from rib.loggers.base import Dashboard
from rib.loggers.tensorboard import TensorBoard
from rib.loggers.wandb import WandB

__all__ = ["Dashboard", "TensorBoard", "WandB"]
