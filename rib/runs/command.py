"""The shell command that reproduces a run, with every option that is not at its default, quoted for Hydra.

First the closest file of each config group is chosen (``model=mini_tiny suite=paper``), or the file of a user's suite
(``suite=pets.yaml``); then every value that still differs is added. The command is composed again and compared with the
config that it stands for. What it cannot express (a file on ``hydra.searchpath``, a class that cannot be imported here)
follows as a shell comment.
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
from rib.data.worlds import is_suite
from rib.errors import RibError
from rib.runs import errata
from rib.runs.heads import splits_source
from rib.runs.recorded import recorded_options
from rib.runs.run import Run
from rib.runs.spec import EXTERNAL, PRETRAINED, READ_BY_PRETRAINED
from rib.runs.suite_words import SuiteWords
from rib.runtime.processes import has_gpu
from rib.schemas.metrics import Metrics, Protocol

if TYPE_CHECKING:
    from omegaconf import DictConfig

SCORING_ARGUMENTS = ("suite", "evaluation.", "predictions.", "trainer", "data.root=", "paths.cache=")
"""Prefixes of the arguments that `rib.evaluate` takes for finished runs."""

GROUPS = ("model", "dataset", "suite", "head", "optimizer", "trainer")
"""Config groups of which a command may choose a file; all other options are written value by value."""

BASE = {"trainer": "auto", "head": "default"}
"""Config groups whose files build on one of them."""

IRRELEVANT = (
    *("logger.", "figures.", "keep_memory", "profile", "given"),
    *("data.workers", "data.cache", "data.rescan", "data.damaged"),
)
"""Prefixes of options that have no influence on a run's results."""

PRETRAINED_OPTIONS = (
    *READ_BY_PRETRAINED,
    *("model.", "suite.", "head.", "trainer.", "paper.", "paths.", "predictions.", "method.", "force"),
    *("data.root", "data.suite", "data.allow_incomplete"),
)
"""Prefixes of the options that matter to a run that trains nothing."""


def command_for(made: Config | Metrics, weights: Path | None = None, **changes: Any) -> str:
    """Return the shell command that makes a run, as one line for a POSIX shell.

    Args:
        made: A run's config (`config_of` for a finished one), or its metrics where it has no config.
        weights: File of weights from elsewhere; None leaves it to the user, who is told its digest.
        **changes: Fields of the config to change, ``method={}``, ``batch_norm="frozen"``, ``force=True``.

    Returns:
        ``python -m rib.train ...``, or ``python -m rib.evaluate weights=FILE ...`` for weights from elsewhere. A
        comment at its end, ``  # ...``, lists what the user has to fill in.

    Raises:
        RibError: If the metrics name an option or a file that this version of rib does not know.
    """
    config = made if isinstance(made, Config) else _from_metrics(made)
    # Field by field, since a BenchmarkConfig is a Config too and has options that rib.train refuses.
    config = replace(Config(**{field.name: getattr(config, field.name) for field in fields(Config)}), **changes)
    program, words, missing = _Command(config, weights).build()
    line = shlex.join(["python", "-m", program, *words])
    return f"{line}  # {'; '.join(dict.fromkeys(missing))}" if missing else line


def command_of(run: Run, metrics: Metrics | None = None, **changes: Any) -> str:
    """Return the shell command that made a finished run, for a message; if its config is unreadable, a phrase instead.

    Args:
        run: A run in its store.
        metrics: One of its metrics files; None for that of the suite that it was first scored on.
        **changes: As in `command_for`.
    """
    try:
        return command_for(config_of(run, metrics), **changes)
    except RibError as error:
        return f"the command that made it, which is unknown ({error})"


def scoring_command_of(run: Run, metrics: Metrics | None = None) -> str:
    """Return the shell command that scores a finished run again, on the suite that it was scored on.

    Args:
        run: A run in its store.
        metrics: The metrics file whose suite to score; None for that of the suite that it was first scored on.
    """
    try:
        return f"{scoring_command_for(run, config_of(run, metrics))} force=true"
    except RibError:  # a run without a readable config is scored with the defaults
        folder = rib.config.spell_override("runs", str(run.folder))
        return shlex.join(["python", "-m", "rib.evaluate", folder, "force=true"])


def scoring_command_for(run: Run, config: Config) -> str:
    """Return the shell command that scores a finished run on the suite, and in the way, that a config asks for.

    Args:
        run: A run in its store.
        config: Its suite, evaluation and predictions are those of the command.

    Raises:
        RibError: If the config has an option that this version of rib does not know.
    """
    words = [word for word in _Command(config).build()[1] if word.startswith(SCORING_ARGUMENTS)]
    return shlex.join(["python", "-m", "rib.evaluate", rib.config.spell_override("runs", str(run.folder)), *words])


def config_of(run: Run, metrics: Metrics | None = None) -> Config:
    """Return the config of a finished run: its config.yaml or, if that is unreadable, one rebuilt from its metrics.

    ``paths.runs`` is the store that the run now lies in. A precision that was chosen by another kind of machine is set
    explicitly.

    Args:
        run: A run in its store.
        metrics: One of its metrics files; None for that of the suite that it was first scored on.

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
    if len(run.folder.parents) > 4:  # <store>/<data>/<model>/<source>/<method>/<key>; the store may have been moved
        config = replace(config, paths=replace(config.paths, runs=str(run.folder.parents[4])))
    # `precision: null` means another number format on a GPU than on a CPU, so the key would be another one here.
    trained_in = None if metrics is None else metrics["protocol"]["precision"]
    here = config.gpu_precision if has_gpu(config.trainer.get("accelerator", "auto")) else "32-true"
    if config.precision is None and trained_in not in (None, here):
        config = replace(config, precision=trained_in)
    return config


class _Command:
    """Builder of the shell command (program and Hydra overrides) that reproduces one config."""

    def __init__(self, config: Config, weights: Path | None = None) -> None:
        self.config = config
        self.weights = weights
        self.external = EXTERNAL in config.method
        self.trains = not (self.external or PRETRAINED in config.method)
        self.missing: list[str] = []
        self.suite = SuiteWords.of(self.config)

    def build(self) -> tuple[str, list[str], list[str]]:
        """Return the module to run, its arguments, and notes on what the user has to fill in or cannot set."""
        wanted = self._options(self.config)
        experiment = [] if self.config.experiment is None else [f"experiment={self.config.experiment}"]
        known = experiment if self.config.experiment in options("experiment") else []
        known = [*self.suite.words, *known, *self._methods()]
        known += self._files(known)
        raw = self._compose(*known)
        composed = self._options(self._validate(raw))
        changed = {key: value for key, value in wanted.items() if composed.get(key, ...) != value}
        # Left out as defaults, these would be taken from the paper's switch again.
        changed |= {
            key: value for key, value in errata.options_kept_from_switches(self.config).items() if key in wanted
        }
        changed = self.suite.name_kept(changed, wanted)
        words = [
            rib.config.spell_override(key if rib.config.has_key(raw, key) else f"++{key}", value)
            for key, value in changed.items()
        ]
        words += [f"~{key}" for key in composed if key not in wanted]
        self._verify(wanted, *known, *words)
        self.missing += self.suite.missing
        own_files = [word for word in experiment if word not in known]
        return *self._program([*self._searchpath(own_files), *own_files, *known, *words]), self.missing

    def _program(self, words: list[str]) -> tuple[str, list[str]]:
        if not self.external:
            return "rib.train", words
        node = self.config.method[EXTERNAL]
        if self.weights is None:
            self.missing.append(f"FILE is the file of weights whose SHA-256 begins with {node['digest'][:16]}")
        file = rib.config.spell_override("weights", "FILE" if self.weights is None else str(self.weights))
        return "rib.evaluate", [file, rib.config.spell_override("name", node["name"]), *words]

    def _compose(self, *words: str) -> DictConfig:
        command = "evaluate" if self.external else "train"
        return rib.config.compose_node(command, *self.suite.rewritten(command, words))

    def _validate(self, cfg: DictConfig) -> Config:
        return rib.config.check_config(cfg, EvaluateConfig if self.external else Config)

    def _options(self, config: Config) -> dict[str, Any]:
        """Return the values, by dotted name, of all options of a config that affect its run."""
        plain = rib.config.to_plain(config)
        flat = dict(_leaves({field.name: plain[field.name] for field in fields(Config)}))
        if not self.trains:
            source = ("dataset.",) if self.suite.words or self._reads_source else ()
            relevant = (*PRETRAINED_OPTIONS, *source, *(("precision",) if self.external else ()))
            flat = {key: value for key, value in flat.items() if key.startswith(relevant)}
        # `experiment` is both a file and an option of that name; only choosing the file sets it.
        hidden = (*IRRELEVANT, *self.suite.hidden, "experiment", f"method.{EXTERNAL}.")
        return {key: value for key, value in flat.items() if not key.startswith(hidden)}

    @property
    def _reads_source(self) -> bool:
        """True if a run that trains nothing has a source: to leave it out of the targets, or to fit a probe to."""
        return self.external or splits_source(self.config)

    def _methods(self) -> list[str]:
        """Return the ``+method=...`` argument that chooses rib's own methods, in the config's order; empty if none.

        Methods of the user's are set option by option.
        """
        ours = [name for name in self.config.method if name in shipped_nodes("method")]
        return [rib.config.spell_override("+method", ours if len(ours) > 1 else ours[0])] if ours else []

    def _files(self, known: Sequence[str]) -> list[str]:
        """Return arguments (``model=NAME``) that choose in each config group the file with the fewest values to change.

        A group in which that is the default file needs no argument.
        """
        default, plain = self._compose(*known), rib.config.to_plain(self.config)
        own = bool(self.suite.words)
        read = {"dataset": not own and (self.trains or self._reads_source), "suite": not own, "optimizer": self.trains}
        chosen = []
        for group in (group for group in GROUPS if read.get(group, True)):
            node = dict(_leaves(plain[group]))
            # Files of these groups hold only what differs from one of them.
            base = dict(_leaves(shipped_nodes(group)[BASE[group]])) if group in BASE else {}
            files = {name: {**base, **dict(_leaves(file))} for name, file in shipped_nodes(group).items()}
            default_node = dict(_leaves(rib.config.to_plain(default[group])))
            distance, name = min((_distance(file, node), name) for name, file in files.items())
            if distance < _distance(default_node, node):
                chosen.append(f"{group}={name}")
                chosen += [
                    rib.config.spell_override(f"{group}.{key}", node[key])
                    for key, value in files[name].items()
                    if value == UNSET
                ]
        return chosen

    def _verify(self, wanted: Mapping[str, Any], *words: str) -> None:
        """Compose a config from the arguments, and add a note for every option whose value is not the wanted one."""
        try:
            again = self._options(self._validate(self._compose(*words)))
        except (RibError, *rib.config.CONFIG_ERRORS) as error:
            self.missing.append(" ".join(str(error).split()))
            return
        lost = [key for key in {**again, **wanted} if again.get(key, ...) != wanted.get(key, ...)]
        self.missing += [f"{key} cannot be set on a command line" for key in lost]
        for key, value in wanted.items():
            texts = value if isinstance(value, list) else [value]
            absent = [text for text in texts if isinstance(text, str) and _is_foreign_path(key, text)]
            self.missing += [f"{text} ({key}) is not in this folder: give its full path" for text in absent]

    def _searchpath(self, own_files: Sequence[str]) -> list[str]:
        """Return the ``hydra.searchpath`` argument if the command names the user's own config files, else nothing."""
        names = {name for text in _ingredients(self.config) for name in text.partition(" ")[0].split("+")}
        own_methods = sorted(n for n in names if n not in shipped_nodes("method") and not Path(n).exists())
        if not own_files and not own_methods:
            return []
        if folders := rib.config.search_path():
            return [rib.config.spell_override("hydra.searchpath", folders)]
        files = [f"{word.replace('=', '/')}.yaml" for word in own_files] + [f"method/{n}.yaml" for n in own_methods]
        self.missing.append(f"DIR is the folder that holds {' and '.join(files)}")
        return ["hydra.searchpath=[DIR]"]


def _from_metrics(metrics: Metrics) -> Config:
    """Return a run's config rebuilt from its metrics: the defaults, with every difference that the metrics record."""
    return rib.config.compose(
        *(rib.config.spell_override(key, value) for key, value in recorded_options(metrics).items())
    )


def _suite_of(metrics: Metrics | None, config: Config) -> SuiteConfig:
    """Return the suite (datasets to score) behind a metrics file; a run may be scored on further suites later.

    Metrics of older versions have only the suite's name, which then means rib's own suite of that name.
    """
    if metrics is None:
        return config.suite
    name, protocol = metrics["suite"].removesuffix("*"), metrics["protocol"]
    if is_suite(metrics["data"]["kind"]):
        if "targets" not in protocol or "reported" not in protocol or _same_roles(config.suite, protocol):
            return config.suite
        roles = {"targets": list(protocol["targets"]), "reported": list(protocol["reported"])}
        return replace(config.suite, name=metrics["suite"], **roles)
    if "targets" in protocol and "reported" in protocol:
        if _same_roles(config.suite, protocol):
            return config.suite
        base = SuiteConfig(**shipped_nodes("suite")[name]) if name in options("suite") else config.suite
        return replace(base, name=name, targets=list(protocol["targets"]), reported=list(protocol["reported"]))
    if name == config.suite.name or name not in options("suite"):
        return config.suite
    return SuiteConfig(**shipped_nodes("suite")[name])


def _same_roles(suite: SuiteConfig, protocol: Protocol) -> bool:
    return [sorted(suite.targets), sorted(suite.reported)] == [
        sorted(protocol["targets"]),
        sorted(protocol["reported"]),
    ]


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) for every value of a nested config; an empty block yields nothing."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _distance(file: Mapping[str, Any], node: Mapping[str, Any]) -> int:
    """Return the number of values in a config file that differ from those in the same block of a config."""
    return sum(node.get(key, ...) != value for key, value in file.items())


def _is_foreign_path(key: str, text: str) -> bool:
    """Return True if an option's value is a relative path that does not exist in the current working directory."""
    is_path = key in ("data.root", "model.weights") or (key.startswith("method.") and "/" in text and " " not in text)
    path = Path(text).expanduser()
    return is_path and not path.is_absolute() and not path.exists()


def _ingredients(config: Config) -> list[str]:
    """Return the entries of the ``ingredients`` option, which names the runs to merge; empty if nothing is merged."""
    given = [node["ingredients"] for node in config.method.values() if isinstance(node, dict) and "ingredients" in node]
    return [text for texts in given if isinstance(texts, list) for text in texts if isinstance(text, str)]
