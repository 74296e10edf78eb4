"""Fine-tuning methods: Lightning callbacks that run in rib's commands and in your own Trainer.

The contract is in `rib.methods.base`. Importing this package loads nothing heavy; commands, runs and training build on
it, and it imports only data, models, metrics and what lies below them.
"""

from typing import Any

__all__ = ["penalties"]


def __getattr__(name: str) -> Any:
    """Import `penalties` when it is first used: it needs torch and Lightning."""
    if name == "penalties":
        from rib.methods.own_trainer import penalties

        return penalties
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
