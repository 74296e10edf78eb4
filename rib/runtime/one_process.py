"""Interface to the processes of a run, and its implementation for a single process.

Lightning's Fabric answers for several processes and for rare devices. For one process on a CPU or a CUDA GPU the
answers are known, and Fabric, which takes seconds to import, is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


class Processes(Protocol):
    """Interface of the processes of a run, seen from one of them; `lightning.fabric.Fabric` has it too."""

    @property
    def device(self) -> torch.device:
        """Device that this process computes on."""

    @property
    def world_size(self) -> int:
        """Number of processes."""

    @property
    def global_rank(self) -> int:
        """Index of this process."""

    @property
    def is_global_zero(self) -> bool:
        """True in the process with index 0, which writes."""

    def barrier(self) -> None:
        """Wait until all processes are here."""

    def broadcast(self, obj: T) -> T:
        """Return the object that the process with index 0 gave."""

    def all_gather(self, data: Any) -> Any:
        """Return the tensors of all processes, stacked along a new first axis if there are several."""


@dataclass(frozen=True)
class OneProcess:
    """A process that works alone.

    Args:
        device: The device it computes on.
    """

    device: torch.device
    world_size: ClassVar[int] = 1
    global_rank: ClassVar[int] = 0
    is_global_zero: ClassVar[bool] = True

    def barrier(self) -> None:
        """Return at once: there is nobody to wait for."""

    def broadcast(self, obj: T) -> T:
        """Return the object."""
        return obj

    def all_gather(self, data: Any) -> Any:
        """Return the tensors as they are."""
        return data


def one_process(trainer: Mapping[str, Any]) -> OneProcess | None:
    """Return the only process that ``trainer`` asks for, on the device that Lightning would choose; else None.

    Args:
        trainer: The options ``accelerator``, ``devices``, ``num_nodes`` and ``strategy``.

    Returns:
        None for several processes, a strategy, a device by its index, an Apple GPU or a TPU, and where the device that
        is asked for is missing: these are left to Lightning and its messages.
    """
    import torch

    alone = trainer.get("devices", 1) in (1, "1") and trainer.get("num_nodes", 1) == 1
    if not alone or trainer.get("strategy", "auto") != "auto":
        return None
    accelerator = trainer.get("accelerator", "auto")
    if accelerator == "cpu":
        return OneProcess(torch.device("cpu"))
    others = find_spec("torch_xla") is not None or torch.backends.mps.is_available()
    if accelerator in ("auto", "gpu", "cuda") and not others and torch.cuda.is_available():
        device = torch.device("cuda", 0)
        torch.cuda.set_device(device)
        return OneProcess(device)
    return OneProcess(torch.device("cpu")) if accelerator == "auto" and not others else None
