"""The command that makes a run again: every option that is not default, spelt for the shell and for Hydra.

The groups whose files come nearest (``model=mini_tiny suite=paper``) are chosen first, and every value that still
differs is said. What comes out is composed again and compared with the config that it stands for; what a command cannot
say by itself (a file on ``hydra.searchpath``, a class that cannot be imported here) stands behind it as a comment.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rib.config
from rib.config.command_schema import EvaluateConfig
from rib.config.schema import Config, SuiteConfig
from rib.config.shipped import UNSET, options, shipped_nodes
from rib.errors import RibError
from rib.runs import errata
from rib.runs.run import Run
from rib.runs.spec import EXTERNAL, PRETRAINED, READ_BY_PRETRAINED
from rib.runtime.processes import has_gpu
from rib.schemas.metrics import Metrics

if TYPE_CHECKING:
    from omegaconf import DictConfig

SAID_OF_SCORING = ("suite", "evaluation.", "predictions.", "trainer", "data.root=", "paths.cache=")
"""Beginnings of words that `rib.evaluate` takes for finished runs."""

GROUPS = ("model", "dataset", "suite", "optimizer", "trainer")
"""Config groups that a command may choose a file of; what else a config holds is said value by value."""

NOT_SAID = ("logger.", "keep_memory", "data.workers", "data.rescan", "data.damaged", "given")
"""Beginnings of dotted names that decide nothing about a run."""

SAID_OF_PRETRAINED = (
    *READ_BY_PRETRAINED,
    *("model.", "suite.", "trainer.", "paper.", "paths.", "predictions.", "method.", "force"),
    *("data.root", "data.allow_incomplete"),
)
"""Beginnings of dotted names that a run reads which trains nothing."""


def command_for(made: Config | Metrics, **changes: Any) -> str:
    """The command that makes a run, as a line for a POSIX shell.

    Args:
        made: A question's config, that of a finished run (`config_of`), or its metrics.json where it has none.
        changes: Fields of the config that are to be otherwise, ``method={}``, ``batch_norm="frozen"``, ``force=True``.

    Returns:
        ``python -m rib.train ...``, or ``python -m rib.evaluate weights=FILE ...`` for weights from elsewhere. A
        comment behind it, ``  # ...``, says what the user has to fill in.

    Raises:
        RibError: If metrics.json names what this version of rib does not know.
    """
    config = made if isinstance(made, Config) else _from_metrics(made)
    # A field at a time: a BenchmarkConfig is a Config, too.
    config = replace(Config(**{field.name: getattr(config, field.name) for field in fields(Config)}), **changes)
    program, words, missing = _Command(config).spelt()
    line = shlex.join(["python", "-m", program, *words])
    return f"{line}  # {'; '.join(dict.fromkeys(missing))}" if missing else line


def command_of(run: Run, metrics: Metrics | None = None, **changes: Any) -> str:
    """`command_for` a finished run, or words that stand for it where its files do not tell.

    Args:
        run: In its store.
        metrics: Of a view of it; None: of the one that was asked for first.
        changes: As in `command_for`.
    """
    try:
        return command_for(config_of(run, metrics), **changes)
    except RibError as error:
        return f"the command that made it, which cannot be told ({error})"


def scoring_command_of(run: Run, metrics: Metrics | None = None) -> str:
    """The command that scores a finished run anew, on the suite that it was scored on.

    Args:
        run: In its store.
        metrics: Of the view of it that is meant; None: of the one that was asked for first.
    """
    words = [rib.config.spell_override("runs", str(run.folder))]
    try:
        said = _Command(config_of(run, metrics)).spelt()[1]
        words += [word for word in said if word.startswith(SAID_OF_SCORING)]
    except RibError:
        pass  # what is not told is as the defaults have it
    return shlex.join(["python", "-m", "rib.evaluate", *words, "force=true"])


def config_of(run: Run, metrics: Metrics | None = None) -> Config:
    """What a finished run was made with, from its config.yaml, else as far as its metrics tell.

    Its store is the one that it lies in, and a precision that another kind of machine settled is said.

    Args:
        run: In its store.
        metrics: Of a view of it; None: of the one that was asked for first.

    Raises:
        RibError: If this version of rib can read neither.
    """
    if metrics is None:
        with suppress(RibError):
            metrics = run.metrics()
    try:
        config = rib.config.load_config(run.folder / "config.yaml")
    except RibError:
        if metrics is None:
            raise
        config = _from_metrics(metrics)
    config = replace(config, force=False, suite=_suite_of(metrics, config))
    if len(run.folder.parents) > 4:
        config = replace(config, paths=replace(config.paths, runs=str(run.folder.parents[4])))
    trained_in = None if metrics is None else metrics["protocol"]["precision"]
    here = config.gpu_precision if has_gpu(config.trainer.get("accelerator", "auto")) else "32-true"
    if config.precision is None and trained_in not in (None, here):
        config = replace(config, precision=trained_in)
    return config


class _Command:
    """Finds the words for one config."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.external = EXTERNAL in config.method
        self.trains = not (self.external or PRETRAINED in config.method)
        self.missing: list[str] = []

    def spelt(self) -> tuple[str, list[str], list[str]]:
        """The program, its arguments, and what they lack."""
        wanted = self._said(self.config)
        experiment = [] if self.config.experiment is None else [f"experiment={self.config.experiment}"]
        known = experiment if self.config.experiment in options("experiment") else []
        known = [*known, *self._methods()]
        known += self._files(known)
        raw = self._compose(*known)
        there = self._said(self._checked(raw))
        changed = {key: value for key, value in wanted.items() if there.get(key, ...) != value}
        changed |= {
            key: value for key, value in errata.options_kept_from_switches(self.config).items() if key in wanted
        }
        words = [
            rib.config.spell_override(key if rib.config.has_key(raw, key) else f"++{key}", value)
            for key, value in changed.items()
        ]
        words += [f"~{key}" for key in there if key not in wanted]
        self._try(wanted, *known, *words)
        theirs = [word for word in experiment if word not in known]
        return *self._program([*self._searchpath(theirs), *theirs, *known, *words]), self.missing

    def _program(self, words: list[str]) -> tuple[str, list[str]]:
        if not self.external:
            return "rib.train", words
        node = self.config.method[EXTERNAL]
        self.missing.append(f"FILE is the file of weights whose SHA-256 begins with {node['digest'][:16]}")
        return "rib.evaluate", ["weights=FILE", rib.config.spell_override("name", node["name"]), *words]

    def _compose(self, *words: str) -> DictConfig:
        return rib.config.compose_node("evaluate" if self.external else "train", *words)

    def _checked(self, cfg: DictConfig) -> Config:
        return rib.config.check_config(cfg, EvaluateConfig if self.external else Config)

    def _said(self, config: Config) -> dict[str, Any]:
        """Of a config, the dotted names that a command has to say, with their values."""
        plain = rib.config.to_plain(config)
        flat = dict(_leaves({field.name: plain[field.name] for field in fields(Config)}))
        if not self.trains:
            said = (*SAID_OF_PRETRAINED, *(("dataset.", "precision") if self.external else ()))
            flat = {key: value for key, value in flat.items() if key.startswith(said)}
        # The experiment is a file and a value of one name, which only the file can set.
        hidden = (*NOT_SAID, "experiment", f"method.{EXTERNAL}.")
        return {key: value for key, value in flat.items() if not key.startswith(hidden)}

    def _methods(self) -> list[str]:
        """Rib's own methods, in the order of the stack; those of the user are said value by value."""
        ours = [name for name in self.config.method if name in shipped_nodes("method")]
        return [rib.config.spell_override("+method", ours if len(ours) > 1 else ours[0])] if ours else []

    def _files(self, known: Sequence[str]) -> list[str]:
        """Of each group the file that comes nearest, where the default one is further away."""
        default, plain = self._compose(*known), rib.config.to_plain(self.config)
        read = {"dataset": self.trains or self.external, "optimizer": self.trains}
        chosen = []
        for group in (group for group in GROUPS if read.get(group, True)):
            node = dict(_leaves(plain[group]))
            under = dict(_leaves(shipped_nodes(group)["auto"])) if group == "trainer" else {}
            files = {name: {**under, **dict(_leaves(file))} for name, file in shipped_nodes(group).items()}
            usual = rib.config.to_plain(default[group])
            near, name = min((_distance(file, node), name) for name, file in files.items())
            if near < _distance(dict(_leaves(usual)), node):
                chosen.append(f"{group}={name}")
                chosen += [
                    rib.config.spell_override(f"{group}.{key}", node[key])
                    for key, value in files[name].items()
                    if value == UNSET
                ]
        return chosen

    def _try(self, wanted: Mapping[str, Any], *words: str) -> None:
        """See that the words mean what is wanted."""
        try:
            again = self._said(self._checked(self._compose(*words)))
        except (RibError, *rib.config.CONFIG_ERRORS) as error:
            self.missing.append(" ".join(str(error).split()))
            return
        lost = [key for key in {**again, **wanted} if again.get(key, ...) != wanted.get(key, ...)]
        self.missing += [f"{key} cannot be said on a command line" for key in lost]
        for key, value in wanted.items():
            texts = value if isinstance(value, list) else [value]
            away = [text for text in texts if isinstance(text, str) and _is_relative(key, text)]
            self.missing += [f"{text} ({key}) is not here: say where it lies" for text in away]

    def _searchpath(self, theirs: Sequence[str]) -> list[str]:
        """Where files of the user's are, for what is chosen by a file's name alone."""
        names = {name for text in _ingredients(self.config) for name in text.partition(" ")[0].split("+")}
        own = sorted(name for name in names if name not in shipped_nodes("method") and not Path(name).exists())
        if not theirs and not own:
            return []
        if places := rib.config.search_path():
            return [rib.config.spell_override("hydra.searchpath", places)]
        files = [f"{word.replace('=', '/')}.yaml" for word in theirs] + [f"method/{name}.yaml" for name in own]
        self.missing.append(f"DIR is the folder that holds {' and '.join(files)}")
        return ["hydra.searchpath=[DIR]"]


def _from_metrics(metrics: Metrics) -> Config:
    """As much of a run's config as its metrics tell."""
    model, suite, protocol = metrics["model"], metrics["suite"].rstrip("*"), metrics["protocol"]
    changed = metrics["suite"] != suite and "targets" in protocol
    methods = [] if metrics["method"] == EXTERNAL else metrics["method"].split("+")
    words = {
        **({"dataset": metrics["source"]} if metrics["source"] != "none" else {}),
        **({"model": model} if model in options("model") else {"model": "timm", "model.name": model}),
        **({"suite": suite} if suite in options("suite") else {"suite.name": suite}),
        **({"experiment": name} if (name := metrics["protocol"].get("experiment")) is not None else {}),
        **({"+method": methods} if methods else {}),
        **({"seed": metrics["seed"]} if metrics["seed"] is not None else {}),
        **({f"suite.{name}": protocol[name] for name in ("targets", "reported")} if changed else {}),
        # Digests of the user's code and files tell runs apart, and cannot be asked for.
        **{key: value for key, value in metrics["options"].items() if not key.endswith((".code", ".content"))},
    }
    return rib.config.compose(*(rib.config.spell_override(key, value) for key, value in words.items()))


def _suite_of(metrics: Metrics | None, config: Config) -> SuiteConfig:
    """The suite that a view of a run is about, which may be another than the run was made for.

    Its datasets are stamped; of a view from before that its name is known, and means rib's own suite of that name.
    """
    if metrics is None:
        return config.suite
    named, protocol = metrics["suite"].removesuffix("*"), metrics["protocol"]
    if "targets" in protocol and "reported" in protocol:
        said = [sorted(config.suite.targets), sorted(config.suite.reported)]
        if said == [sorted(protocol["targets"]), sorted(protocol["reported"])]:
            return config.suite
        own = SuiteConfig(**shipped_nodes("suite")[named]) if named in options("suite") else config.suite
        return replace(own, name=named, targets=list(protocol["targets"]), reported=list(protocol["reported"]))
    if named == config.suite.name or named not in options("suite"):
        return config.suite
    return SuiteConfig(**shipped_nodes("suite")[named])


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values by dotted name; a block without entries has none."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _distance(file: Mapping[str, Any], node: Mapping[str, Any]) -> int:
    """How many values a file has otherwise than a config's block."""
    return sum(node.get(key, ...) != value for key, value in file.items())


def _is_relative(key: str, text: str) -> bool:
    """Whether a value is a path that begins in another working directory than this."""
    named = key in ("data.root", "model.weights") or (key.startswith("method.") and "/" in text and " " not in text)
    path = Path(text).expanduser()
    return named and not path.is_absolute() and not path.exists()


def _ingredients(config: Config) -> list[str]:
    """Texts that name the runs which a run is made from."""
    given = [node["ingredients"] for node in config.method.values() if isinstance(node, dict) and "ingredients" in node]
    return [text for texts in given if isinstance(texts, list) for text in texts if isinstance(text, str)]
