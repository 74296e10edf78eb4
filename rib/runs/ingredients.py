"""Configs of the runs that a run is made from: those to merge (ingredients), or the linear probe that starts LP-FT."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import rib.config
from rib.config.schema import Config
from rib.config.shipped import options
from rib.data.catalog import Catalog
from rib.errors import RibError, nearest
from rib.runs.method_stack import BY_TARGET, NO_WEIGHTS, classes_of, merging_method, stack_name, training_methods


def ingredients(config: Config, catalog: Catalog) -> list[tuple[str, Config | Path]]:
    """Return the runs to merge (ingredients), each as a label and either its config or the folder of a finished run.

    Args:
        config: Of the merged run; ``method.NAME.ingredients`` lists its ingredients (`rib.runs.method_stack`).
        catalog: Of its datasets, for ``dataset=others``.

    Raises:
        RibError: If the list is empty, or an entry cannot be parsed or cannot be an ingredient.
    """
    name = merging_method(config)
    assert name is not None, "only a merged method has ingredients"
    texts = config.method[name]["ingredients"]
    where = f"method.{name}.ingredients"
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise RibError(f"{where}: expected a list of runs, like [pretrained, finetune, 'ewc seed=1'], got {texts!r}")
    rest = training_methods(config)
    if rest and not any(text.split()[:1] == ["finetune"] for text in texts):
        raise RibError(
            f"{where}: expected an entry finetune, which stands for the run's other methods ({'+'.join(rest)}), "
            f"got {texts}"
        )
    found: list[tuple[str, Config | Path]] = []
    for text in texts:
        if Path(text).expanduser().is_dir():
            found.append((Path(text).name, Path(text).expanduser()))
        else:
            found += _parse(config, text, where, rest, catalog)
    for label, ingredient in found:
        if isinstance(ingredient, Config):
            methods = classes_of(ingredient)
        else:
            # Run folders end in <method>/<key>.
            methods = set(ingredient.resolve().parent.name.split("+"))
        for method in methods & BY_TARGET.keys():
            raise RibError(f"{where}: {label} cannot be an ingredient: {BY_TARGET[method]}")
        for method in methods & NO_WEIGHTS.keys():
            if name != "output_ensemble":
                raise RibError(f"{where}: {label} cannot be averaged with others: {NO_WEIGHTS[method]}")
    return found


def _parse(
    config: Config, text: str, where: str, rest: Mapping[str, Any], catalog: Catalog
) -> Iterable[tuple[str, Config]]:
    """Return (label, config) of each run that one entry of the ``ingredients`` option stands for."""
    names, *overrides = shlex.split(text)
    # force=true makes the merged run again, not its ingredients.
    base = replace(config, method=dict(rest) if names == "finetune" else nodes_of(names, where, text), force=False)
    sources = [config.dataset.name]
    given = []
    for override in overrides:
        key, _, value = override.partition("=")
        if (key, value) == ("dataset", "others"):
            allowed = config.data.objectnet_training is not None
            sources = [s for s in config.suite.sources if s != sources[0] and (catalog[s].may_train or allowed)]
        elif key == "seed" and value[:1] in "+-" and value[1:].isdecimal():
            base = replace(base, seed=base.seed + int(value))  # seed=+1: relative to the merged run's own
        else:
            given.append(override)
    if given:
        base = rib.config.override(base, given, where)
    if len(sources) == 1 and "dataset=others" not in overrides:
        return [(text if names != "finetune" or not rest else f"{'+'.join(rest)} {' '.join(overrides)}".strip(), base)]
    return [(f"{stack_name(base)} on {s}", replace(base, dataset=replace(base.dataset, name=s))) for s in sources]


def nodes_of(names: str, where: str, text: str) -> dict[str, Any]:
    """Return the default options of one or more methods, by method name, from their files in conf/method.

    Args:
        names: File names in conf/method, or in a folder of the user's on ``hydra.searchpath``, joined by ``+``
            (``lwf+wise_ft``).
        where: The option that names them, for the error message.
        text: The option's value, for the error message.

    Raises:
        RibError: If there is no method of such a name.
    """
    nodes: dict[str, Any] = {}
    for name in names.split("+"):
        node = rib.config.method_node(name)
        if node is None:
            suggestion = nearest(name, options("method"))
            raise RibError(
                f"{where}: expected a run folder or a method, got {text!r}; there is no method {name}"
                f"{suggestion}; known: {', '.join(options('method'))}"
            )
        nodes[name] = node
    return nodes


def probe(config: Config) -> Config | None:
    """Return the config of the linear-probe run that a method (LP-FT) starts fine-tuning from, or None.

    Options left null are the run's own, so that the probe is the run ``+method=linear_probe`` of the same command.

    Raises:
        RibError: If the method's ``probe`` has an unknown option.
    """
    name = next((name for name, node in config.method.items() if node and "probe" in node), None)
    if name is None:
        return None
    given = {key: value for key, value in (config.method[name]["probe"] or {}).items() if value is not None}
    if unknown := given.keys() - {"epochs", "lr"}:
        raise RibError(f"method.{name}.probe.{min(unknown)}: there is no such option; known: epochs, lr")
    optimizer = {**config.optimizer, **({"lr": given["lr"]} if "lr" in given else {})}
    return replace(
        config,
        method=nodes_of("linear_probe", f"method.{name}.probe", "linear_probe"),
        epochs=given.get("epochs", config.epochs),
        optimizer=optimizer,
        force=False,
    )
