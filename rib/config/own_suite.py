"""Rewrite ``suite=FILE.yaml``, a suite of the user's own, into options that Hydra knows, before Hydra sees it.

``suite=pets.yaml dataset=photo`` becomes ``data.suite=/home/me/pets.yaml data.root=/home/me suite.name=pets
'suite.sources=[...]' 'suite.targets=[...]' 'suite.reported=[...]' dataset.name=photo``. A plain name, ``suite=seven``,
stays the choice of a file in ``conf/suite``. No file is read unless an argument names one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from rib.config.corrections import split
from rib.config.group_names import is_file
from rib.config.spelling import for_shell, spell_override
from rib.config.suite_slips import explain_missing, explain_unknown
from rib.data import worlds
from rib.errors import RibError

if TYPE_CHECKING:
    from rib.data.suites.suite import Suite

OF_RUNS = ("train", "benchmark", "search", "evaluate")
"""Commands with the options of a run, ``suite.targets`` and ``dataset`` among them."""

NAMES = ("sources", "suite.sources", "suite.targets", "suite.reported", "head.reference", "datasets")
"""Options whose values are domains, besides ``dataset``."""


def rewrite_suite(command: str, arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the options that a suite's file stands for in place of ``suite=FILE.yaml``.

    Options that are given besides are kept. Without ``dataset=`` a run is on the suite's first source.

    Args:
        command: Name of the command, ``train``.
        arguments: Each ``NAME=VALUE`` or a flag of Hydra.

    Raises:
        RibError: If there is no such file, it is invalid, or an argument names a domain that it does not have.
    """
    given = [key_of(argument) for argument in arguments]
    named = [place for place, argument in enumerate(arguments) if _is_suite(command, argument, given)]
    if not named:
        return [*arguments]
    _check_one(arguments, [place for place, key in enumerate(given) if key in ("suite", "data.suite")])
    (place,) = named
    suite = open_suite(arguments[place])
    rewritten = [
        word
        for argument in (*arguments[:place], *arguments[place + 1 :])
        for word in _with_domains(command, argument, arguments, suite)
    ]
    return [*rewritten[:place], *_options(command, suite, arguments, given), *rewritten[place:]]


def restore_suite(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with ``suite=FILE.yaml`` for the options that `rewrite_suite` has put in its place.

    Args:
        arguments: Of a command with runs, as Hydra got them.
    """
    files = [argument for argument in arguments if key_of(argument) == "data.suite"]
    if len(files) != 1 or not path_of(value_of(files[0])).is_file():
        return [*arguments]
    word = spell_override("suite", value_of(files[0]))
    others = [argument for argument in arguments if key_of(argument) in ("suite.targets", "suite.reported")]
    starred = [a for a in rewrite_suite("train", [word, *others]) if key_of(a) == "suite.name"]
    written = {*rewrite_suite("train", [word]), *starred} - {*files}
    shown = {argument: re.sub(r"^dataset\.name=", "dataset=", argument) for argument in arguments} | {files[0]: word}
    return [shown[a] for a in arguments if a not in written or key_of(a) == "dataset.name"]


def open_suite(argument: str) -> Suite:
    """Return the suite of an argument ``suite=FILE.yaml``.

    Raises:
        RibError: If there is no such file, with the nearest one of its folder; or if it is invalid.
    """
    file = path_of(value_of(argument))
    if not file.is_file():
        raise RibError(f"{argument}: {explain_missing(file, Path(value_of(argument)))}")
    return worlds.open_suite(file)


def hinted_domains(arguments: Iterable[str]) -> tuple[str, ...]:
    """Return the domains of the suite that arguments name in whatever form, ``--suite pets.yaml``; never an error."""
    for argument in arguments:
        text = value_of(argument) if "=" in argument else argument
        if is_file(text) and path_of(text).is_file() and path_of(text).suffix.lower() in (".yaml", ".yml"):
            with suppress(RibError):
                return tuple(open_suite(f"suite={text}").domains)
    return ()


def path_of(text: str) -> Path:
    """Return the absolute path that a text stands for, ``~/pets.yaml`` or ``../pets.yaml``."""
    return Path(os.path.abspath(Path(text).expanduser()))  # noqa: PTH100 - resolve would follow links


def key_of(argument: str) -> str:
    """Return the name in ``NAME=VALUE``, without ``+``."""
    return argument.partition("=")[0].lstrip("+")


def value_of(argument: str) -> str:
    """Return the value in ``NAME=VALUE`` as a text, without quotes that only Hydra needs."""
    value = argument.partition("=")[2].strip()
    if value[:1] not in ("'", '"'):
        return value
    try:
        return str(OverridesParser.create().parse_override(f"key={value}").value())
    except HydraException:
        return value


def _is_suite(command: str, argument: str, given: Sequence[str]) -> bool:
    """Return True if an argument names the file of a suite; data.suite= counts unless it stands for itself already."""
    key, text = key_of(argument), value_of(argument)
    if command == "pretrain" or key not in ("suite", "data.suite", *["suites"] * (command == "report")):
        return False
    if key == "data.suite":
        return command in OF_RUNS and text not in ("", "null") and "suite.name" not in given
    return is_file(text)


def _check_one(arguments: Sequence[str], places: Sequence[int]) -> None:
    """Refuse two suites, as ``suite=a.yaml,b.yaml`` or as two arguments."""
    texts = [arguments[place] for place in places]
    for text in texts:
        if "," in (value := value_of(text)) and not path_of(value).is_file():
            one, two = split(value)[0], split(value)[-1]
            raise RibError(
                f"{text}: expected one suite, got several; run one command for each, with "
                f"{for_shell([spell_override('suite', one)])} and with {for_shell([spell_override('suite', two)])}"
            )
    if len(texts) > 1:
        raise RibError(f"{' '.join(texts)}: expected one suite, got {len(texts)}; leave one of them out")


def _options(command: str, suite: Suite, arguments: Sequence[str], given: Sequence[str]) -> list[str]:
    """Return the options that a suite stands for in a command, without those that are given."""
    if command == "report":
        return [spell_override("suites", [suite.name])]
    found: dict[str, object] = {"data.root": str(suite.root)}
    if command in OF_RUNS:
        found |= {
            "suite.name": _label(suite, arguments),
            "suite.sources": list(suite.sources),
            "suite.targets": list(suite.targets),
            "suite.reported": list(suite.reported),
        }
    if command in ("train", "search") and suite.sources and "dataset" not in given:
        found["dataset.name"] = suite.sources[0]
    file = next(value_of(argument) for argument in arguments if key_of(argument) in ("suite", "data.suite"))
    more = [spell_override(key, value) for key, value in found.items() if key not in given]
    return [spell_override("data.suite", str(path_of(file))), *more]


def _label(suite: Suite, arguments: Sequence[str]) -> str:
    """Return the suite's name, with a star if other datasets are scored than its file says."""
    own = {"suite.targets": suite.targets, "suite.reported": suite.reported}
    given = {key_of(argument): split(value_of(argument)) for argument in arguments if key_of(argument) in own}
    changed = any(sorted(names) != sorted(own[key]) for key, names in given.items())
    return f"{suite.name}*" if changed else suite.name


def _with_domains(command: str, argument: str, arguments: Sequence[str], suite: Suite) -> Iterator[str]:
    """Yield an argument that names domains in the form that Hydra needs, once they are checked."""
    key, value = key_of(argument), value_of(argument)
    names = split(value)
    plain = re.fullmatch(r"[\w\s,\[\]'\".-]*", value) is not None and value != "null"  # no choice(...) or ${...}
    if key in ("dataset", "dataset.name") and command in OF_RUNS:
        _check_dataset(command, argument, names, arguments, suite)
        if plain and {*names} - {*suite.domains} - {"none"}:
            raise RibError(explain_unknown(argument, names, suite))
        yield spell_override("dataset.name", names[0]) if plain and len(names) == 1 else f"dataset.name={value}"
        return
    if key in NAMES and plain and {*names} - {*suite.domains}:
        raise RibError(explain_unknown(argument, names, suite))
    yield argument


def _check_dataset(command: str, argument: str, names: Sequence[str], arguments: Sequence[str], suite: Suite) -> None:
    """Refuse several sources without a sweep, and ``dataset=all``."""
    sweeps = bool({"-m", "--multirun"} & {*arguments})
    every = names in (["all"], ["*"]) and "all" not in suite.domains
    if not every and (len(names) < 2 or sweeps):
        return
    chosen = ",".join(suite.sources if every else names)
    how = f"-m dataset={chosen} runs one after the other" if command in ("train", "search") else "give one name"
    expected = "one source" if every else "one source without -m (a sweep)"
    raise RibError(f"{argument}: expected {expected}; {how}, and rib benchmark makes a grid of all")
