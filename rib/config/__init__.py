"""What a command can say: schemas, and the only place besides the commands that knows Hydra and OmegaConf.

`rib.config.schema` imports nothing of rib and may be imported by every package; the rest is for `rib.runs` and above.
"""

from typing import Any

__all__ = ["compose"]


def __getattr__(name: str) -> Any:
    """``rib.config.compose``, imported when it is used, so that the schema alone brings no Hydra along."""
    if name == "compose":
        from rib.config.composition import compose

        return compose
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
