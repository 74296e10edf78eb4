"""Translate errors of Hydra and OmegaConf into one sentence that names the option and suggests a valid one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException, ValidationError

from rib.config.conf_comments import options_of
from rib.config.corrections import FLAGS, Correction, choose, correct, elsewhere, is_named, selected_methods
from rib.config.group_names import domains
from rib.config.own_suite import hinted_domains
from rib.config.schema import Config
from rib.config.several import explain_several
from rib.config.shipped import shipped_nodes
from rib.config.slips import explain_syntax
from rib.config.spelling import spell_text
from rib.config.unchecked import lacks_name
from rib.errors import RibError, UnknownOptionError, nearest

SHORT = 12
"""Largest number of names that a message lists."""


def explain(error: Exception, command: str = "train", arguments: Sequence[str] = ()) -> str:
    """Translate an error of Hydra or OmegaConf into one sentence: what was given, and the most similar valid spelling.

    Args:
        error: Exception raised when a config was composed or checked.
        command: Name of the command whose config it was.
        arguments: The command's arguments.
    """
    with domains(hinted_domains(arguments)):
        return _explain(error, command, arguments)


def _explain(error: Exception, command: str, arguments: Sequence[str]) -> str:
    text = str(error)
    if isinstance(error, OverrideParseException):
        return explain_syntax(command, str(error.override))
    if found := re.search(r"Ambiguous value for argument '(.*?)'\n", text):
        return explain_several(command, str(found[1]))
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        file = str(error.missing_cfg_file)
        group, _, name = file.rpartition("/") if file.startswith("hydra/") else file.partition("/")
        if group:
            return _explain_choice(command, group, name, error.options)
    if lacks_name(error):
        return _explain_no_name(command, arguments)
    if found := re.search(r"Could not load '(\w+)/", text):
        group = str(found[1])
        return f"{group}: expected the name of one file in conf/{group}, got a list; `rib options {group}` shows all"
    if found := re.search(r"Multiple values for (\w+)\.", text):
        return _explain_twice(command, str(found[1]), arguments)
    if found := re.search(r"Could not override '([^']+)'", text):
        return _explain_missing(command, str(found[1]).lstrip("+"), arguments)
    if isinstance(error, OmegaConfBaseException):
        return explain_omegaconf(error, Config)
    return " ".join(text.split())


def with_correction(error: RibError, command: str, arguments: Sequence[str]) -> RibError:
    """Return an error of an unknown option with the whole corrected argument, or another error as it is.

    Args:
        error: Raised when a composed config was checked.
        command: Name of the command.
        arguments: The command's arguments.
    """
    with domains(hinted_domains(arguments)):
        return _with_correction(error, command, arguments)


def _with_correction(error: RibError, command: str, arguments: Sequence[str]) -> RibError:
    needs_list = re.match(r"(\S+): expected a list, ", str(error))
    for argument in arguments if needs_list else ():
        key, _, value = argument.partition("=")
        if needs_list and key.lstrip("+") == needs_list[1] and value:
            return RibError(f"{argument}: expected a list; did you mean {Correction((f'{key}=[{value}]',))}?")
    of_user = re.match(r"method\.(\w+)\.", error.option) if isinstance(error, UnknownOptionError) else None
    if of_user and of_user[1] not in shipped_nodes("method"):  # a class of the user's, whose options only it knows
        return error
    if isinstance(error, UnknownOptionError):
        for argument in arguments:
            key, _, value = argument.partition("=")
            if key.lstrip("+") == error.option or key.lstrip("+").startswith(f"{error.option}."):
                if other := elsewhere(command, key):
                    return RibError(f"{error.option}: there is no such option of rib {command}{other}")
                meant = correct(command, key.lstrip("+"), value, arguments)
                return RibError(f"{error.option}: there is no such option{meant.hint}") if meant else error
    return error


def explain_omegaconf(error: OmegaConfBaseException, schema: type[Any]) -> str:
    """Translate an error of OmegaConf into one sentence, which suggests the most similar option of the command.

    Args:
        error: Exception raised by OmegaConf.
        schema: Dataclass of the command's options.
    """
    where = str(error.full_key or error.key or "")
    if isinstance(error, ConfigKeyError):
        parent, _, key = where.rpartition(".")
        prefix = f"{parent}." if parent else ""
        return f"{where}: there is no such option{nearest(key, _fields(schema, parent), prefix)}"
    message = str(error.msg or error).split("\n")[0]
    if "not a ListConfig" in message:
        return f"{where}: expected a list, {where}=[..]"
    if "missing mandatory value" in message:
        return f"{where}: this option has no default; add {where}=VALUE"
    if isinstance(error, ValidationError) and (told := _explain_type(where, message)):
        return told
    return f"{where}: {message[:1].lower()}{message[1:]}" if where else message


def _explain_type(where: str, message: str) -> str | None:
    """Explain a value of the wrong type, and suggest one of the right type where it is clear which."""
    if found := re.search(r"[Ii]nvalid value '(.*)', expected one of \[(.*)\]", message):
        known, value = found[2].split(", "), found[1].lower()
        close = f"; did you mean {where}={value}?" if value in known else nearest(value, known, f"{where}=")
        return f"{where}: expected one of {found[2]}, got {found[1]!r}{close}"
    found = re.search(r"[Vv]alue '(.*?)'(?: of type '\w+')? (?:could not be|is not)", message)
    kind = re.search(r"(Integer|Float|[Bb]ool)", message.partition("' ")[2].replace("of type 'bool'", ""))
    if not found or not kind:
        return None
    value, number = str(found[1]), _number(str(found[1]), in_points=where in PERCENTAGE_POINTS)
    if kind[1].lower() == "bool":
        flag = FLAGS.get(value.lower())
        return f"{where}: expected true or false, got {value!r}" + (f"; did you mean {where}={flag}?" if flag else "")
    expected = "a whole number" if kind[1] == "Integer" else "a number"
    meant = "null" if value.lower() in ("none", "nan", "") else None
    if meant is None and number is not None and (kind[1] == "Float" or number == int(number)):
        meant = f"{number:g}" if kind[1] == "Float" else f"{int(number)}"
    return f"{where}: expected {expected}, got {value!r}" + (f"; did you mean {where}={meant}?" if meant else "")


_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


PERCENTAGE_POINTS = ("fail_below",)
"""Options in percentage points: 1% is 1, not 0.01."""


def _number(text: str, in_points: bool = False) -> float | None:
    """Return the number that a text probably stands for: ``three``, ``10%``, ``3.0``."""
    if text.lower() in _WORDS:
        return _WORDS.index(text.lower())
    try:
        return float(text.rstrip("%").replace("_", "")) / (100 if text.endswith("%") and not in_points else 1)
    except ValueError:
        return None


def _explain_choice(command: str, group: str, name: str, known: Sequence[str]) -> str:
    """Explain that a config group has no file of a name."""
    every = f"rib {_LISTED.get(group, f'options {group}')}"
    listed = f"; known: {', '.join(known)}" if len(known) <= SHORT else f"; `{every}` shows all"
    if group == "data" and is_named("dataset", name) and (meant := correct(command, "dataset", name)):
        return f"data={name}: data is the folder and the loading of images{meant.hint}"
    if group in ("data", "paths"):
        option = "data.root" if group == "data" else "paths.runs"
        return f"{group}={name}: expected options of this group by their names; did you mean {option}={name}?"
    if group == "suite" and (files := [f for f in (f"{name}.yaml", f"{name}.yml") if Path(f).is_file()]):
        meant = Correction((spell_text("suite", files[0]),))
        return f"suite={name}: expected the file of a suite of your own{meant.hint}"
    listed += ", and FILE.yaml of your own (`rib data init DIR` writes one)" if group == "suite" else ""
    meant = choose(group, name)
    return f"{group}={name}: there is no such {group}{meant.hint if meant else ''}{listed}"


_LISTED = {"model": "models", "method": "methods"}
"""Subcommand of rib that lists the files of a config group."""


def _explain_no_name(command: str, arguments: Sequence[str]) -> str:
    """Explain that an option that selects a file of ``conf/`` was given a number or null."""
    for argument in arguments:
        key, _, value = argument.partition("=")
        option = options_of(command).get(key.lstrip("+"))
        if option and option.group and re.fullmatch(r"-?\d+|null|true|false", value, re.I):
            devices = Correction(("trainer=ddp", f"trainer.devices={value}"))
            meant = devices if key == "trainer" and value.isdigit() else choose(option.name, value)
            return f"{argument}: expected the name of a file in conf/{option.name}{meant.hint if meant else ''}"
    return "expected a name for an option that selects a file of conf/ (study, model, ...), got null"


def _explain_twice(command: str, group: str, arguments: Sequence[str]) -> str:
    """Explain that a config group was selected twice, or added although it is selected by default."""
    given = [argument for argument in arguments if argument.lstrip("+").startswith(f"{group}=")]
    if group == "method":
        names = ",".join(dict.fromkeys(selected_methods(arguments)))
        meant = Correction((f"+method=[{names}]",))
        return f"{' '.join(given)}: methods are given in one argument; write {meant}, which stacks them"
    value = given[-1].partition("=")[2] if given else ""
    meant = correct(command, group, value) or Correction((f"{group}={value}",))
    return f"{' '.join(given)}: {group} has a default, which is replaced without +; write {meant}"


def _explain_missing(command: str, key: str, arguments: Sequence[str]) -> str:
    """Explain that an option does not exist, and suggest the argument that was meant."""
    value = next((a.partition("=")[2] for a in arguments if a.partition("=")[0].lstrip("+") == key), "")
    methods = {f"method.{name}.{k}": name for name, node in shipped_nodes("method").items() for k in node}
    if key in methods and methods[key] not in selected_methods(arguments):
        return f"{key}: method {methods[key]} is not selected; add +method={methods[key]}"
    if key in options_of(command) and key.startswith("logger."):
        return f"{key}: this logger has no such option; add logger=wandb"
    if other := elsewhere(command, key):
        return f"{key}: there is no such option of rib {command}{other}"
    if meant := correct(command, key, value, arguments):
        return f"{key}: there is no such option{meant.hint}"
    return f"{key}: there is no such option{nearest(key, [*options_of(command), *methods])}"


def _fields(schema: Any, path: str) -> list[str]:
    """Return the names of the options below a dotted name, ``optimizer``, according to a command's dataclass."""
    for part in filter(None, path.split(".")):
        schema = get_type_hints(schema).get(part)
    return [field.name for field in fields(schema)] if is_dataclass(schema) else []
