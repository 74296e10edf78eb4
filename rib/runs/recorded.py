"""The options of a run, and a command for it, from what its metrics record; milliseconds, as nothing is composed.

The file of a user's suite is recorded by the suite's name alone: ``suite=pets.yaml``, in whatever folder it is.
"""

from __future__ import annotations

from typing import Any

import rib.config
from rib.config.shipped import options
from rib.data.worlds import is_suite
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
    own = is_suite(metrics["data"]["kind"])
    found = {**(_data_of_own(metrics) if own else _data(metrics)), **_others(metrics)}
    words = [rib.config.spell_override(key, value) for key, value in found.items()]
    if metrics["data"]["kind"] == "user":
        words.append("data.root=DIR")
    if metrics["method"] == EXTERNAL:
        return clean(["python", "-m", "rib.evaluate", "weights=FILE", *words])
    return clean(["python", "-m", "rib.train", *words])


def recorded_options(metrics: Metrics) -> dict[str, Any]:
    """Return the options of a run, by name, from its metrics; ``suite=FILE.yaml`` as the options that it stands for."""
    return {**_data(metrics), **_others(metrics)}


def suite_word(kind: str, suite: str) -> str:
    """Return the argument that asks for a suite that results name, ``suite=paper`` or ``suite=pets.yaml``.

    Args:
        kind: Kind of data of the results.
        suite: Name of the suite.
    """
    return f"suite={kind}.yaml" if is_suite(kind) else f"suite={suite}"


def _data(metrics: Metrics) -> dict[str, Any]:
    """Return the options that say which datasets are trained and scored on."""
    kind, suite, source = metrics["data"]["kind"], metrics["suite"], _source(metrics)
    trained = source != "none"
    if is_suite(kind):
        given = {"dataset.name": source} if trained else {}
        return {**given, "data.suite": f"{kind}.yaml", "suite.name": suite, **_roles(metrics)}
    name = suite.rstrip("*")
    return {
        **({"dataset": source} if trained else {}),
        **({"suite": name} if name in options("suite") else {"suite.name": name}),
        **(_roles(metrics) if name != suite else {}),
    }


def _data_of_own(metrics: Metrics) -> dict[str, Any]:
    """Return the arguments that say the same of a user's suite: its file, the source, and roles other than its own."""
    source = {"dataset": name} if (name := _source(metrics)) != "none" else {}
    roles = _roles(metrics) if metrics["suite"].endswith("*") else {}
    return {"suite": f"{metrics['data']['kind']}.yaml", **source, **roles}


def _source(metrics: Metrics) -> str:
    """Return the source; of a pretrained model that whose part its probe was fitted to, or ``none``."""
    kind, _, source = (metrics["protocol"].get("head") or "").partition(":")
    return source if kind == "probe" else metrics["source"]


def _roles(metrics: Metrics) -> dict[str, Any]:
    protocol = metrics["protocol"]
    return {f"suite.{name}": protocol[name] for name in ("targets", "reported")} if "targets" in protocol else {}


def _others(metrics: Metrics) -> dict[str, Any]:
    """Return the options of the model, the method, the head and the training."""
    model = metrics["model"]
    methods = [] if metrics["method"] == EXTERNAL else metrics["method"].split("+")
    return {
        **({"model": model} if model in options("model") else {"model": "timm", "model.name": model}),
        **({"experiment": name} if (name := metrics["protocol"].get("experiment")) is not None else {}),
        **({"+method": methods if len(methods) > 1 else methods[0]} if methods else {}),
        **({"seed": metrics["seed"]} if metrics["seed"] is not None else {}),
        **_head(metrics),
        # Digests of the user's code and files are recorded with the options, but are not options themselves.
        **{key: value for key, value in metrics["options"].items() if not key.endswith((".code", ".content"))},
    }


def _head(metrics: Metrics) -> dict[str, Any]:
    """Return the options of the head that a model got for the suite; none where it has its own outputs."""
    kind, _, domain = (metrics["protocol"].get("head") or "").partition(":")
    if kind == "reference":
        return {"head": "probe", "head.reference": domain}
    return {"head": kind} if kind else {}
