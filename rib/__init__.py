"""Robust fine-tuning of pretrained vision models, measured with the ImageNet-RIB benchmark (arXiv 2410.21582).

The functions for Python are `rib.api`'s, reached as ``rib.finetune``, ``rib.load``, ``rib.find_runs``, ``rib.compare``
and ``rib.score``. They are imported at their first use, so that ``import rib`` waits neither for torch nor for Hydra.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rib.api import compare as compare
    from rib.api import find_runs as find_runs
    from rib.api import finetune as finetune
    from rib.api import load as load
    from rib.api import score as score
    from rib.errors import RibError as RibError
    from rib.errors import RobustnessError as RobustnessError

__version__ = "0.1.0"

_MODULES = {
    "finetune": "api",
    "load": "api",
    "find_runs": "api",
    "compare": "api",
    "score": "api",
    "RibError": "errors",
    "RobustnessError": "errors",
}
"""Module of each name that is imported at its first use, in the order of the API's page."""

__all__ = ["RibError", "RobustnessError", "__version__", "compare", "find_runs", "finetune", "load", "score"]


def __getattr__(name: str) -> Any:
    """Import ``rib.NAME`` from its module when it is first used, and return it."""
    if name not in _MODULES:
        # With name and obj Python itself suggests the most similar name.
        raise AttributeError(f"module 'rib' has no attribute {name!r}", name=name, obj=sys.modules[__name__])
    return getattr(import_module(f"rib.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


# argv is ["-m", ...] only while Python looks for the module of `python -m rib.COMMAND`. Packages that are not installed
# are reported here, before the command's own imports would end in a traceback.
if sys.argv[:1] == ["-m"]:
    from rib.runtime import requirements

    requirements.check()
