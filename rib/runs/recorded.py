"""The options of a run, and a command for it, from what its metrics record; milliseconds, as nothing is composed."""

from __future__ import annotations

from typing import Any

import rib.config
from rib.config.shipped import options
from rib.runs.spec import EXTERNAL
from rib.runtime.command_line import clean
from rib.schemas.metrics import Metrics


def recorded_command(metrics: Metrics) -> str:
    """Return the shell command that makes a run, from what its metrics record; nothing is composed or compared.

    It takes milliseconds where `command_for` takes a second. The folders of data and store are left to the user, and so
    are devices, which do not change a result.

    Args:
        metrics: Of the run.
    """
    words = [rib.config.spell_override(key, value) for key, value in recorded_options(metrics).items()]
    if metrics["data"]["kind"] != "mini":
        words.append("data.root=DIR")
    if metrics["method"] == EXTERNAL:
        return clean(["python", "-m", "rib.evaluate", "weights=FILE", *words])
    return clean(["python", "-m", "rib.train", *words])


def recorded_options(metrics: Metrics) -> dict[str, Any]:
    """Return the options of a command for a run, by name, from its metrics."""
    model, suite, protocol = metrics["model"], metrics["suite"].rstrip("*"), metrics["protocol"]
    changed = metrics["suite"] != suite and "targets" in protocol
    methods = [] if metrics["method"] == EXTERNAL else metrics["method"].split("+")
    return {
        **({"dataset": metrics["source"]} if metrics["source"] != "none" else {}),
        **({"model": model} if model in options("model") else {"model": "timm", "model.name": model}),
        **({"suite": suite} if suite in options("suite") else {"suite.name": suite}),
        **({"experiment": name} if (name := metrics["protocol"].get("experiment")) is not None else {}),
        **({"+method": methods if len(methods) > 1 else methods[0]} if methods else {}),
        **({"seed": metrics["seed"]} if metrics["seed"] is not None else {}),
        **({f"suite.{name}": protocol[name] for name in ("targets", "reported")} if changed else {}),
        # Digests of the user's code and files are recorded with the options, but are not options themselves.
        **{key: value for key, value in metrics["options"].items() if not key.endswith((".code", ".content"))},
    }
