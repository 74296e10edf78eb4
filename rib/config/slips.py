"""Find slips in the form of a command's arguments, and answer each in one sentence with the right spelling.

`tidy` looks at the arguments before Hydra does: what is no ``NAME=VALUE`` (``--lr 0.01``, ``epochs = 3``, ``ewc``)
belongs together with its neighbours. `explain_syntax` is asked after Hydra has refused a single argument.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from rib.config.aliases import ALIASES
from rib.config.conditions import quote_filters
from rib.config.conf_comments import COMMANDS, options_of
from rib.config.corrections import Correction, correct, elsewhere, normalise, of_library
from rib.config.data_words import ACTIONS, name_words
from rib.config.group_names import domains, names_of
from rib.config.own_suite import hinted_domains, rewrite_suite
from rib.config.several import explain_list_of_numbers, join_values, warn_of_empty_method
from rib.config.shipped import options
from rib.config.spelling import for_shell, parses, spell_override
from rib.errors import RibError, nearest

DASHES = "-‐‑‒–—−"
QUOTES = str.maketrans({**dict.fromkeys("“”„‟«»", '"'), **dict.fromkeys("‘’‚‛", "'"), "\xa0": " "})

WITH_VALUE = (
    *("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"),
    *("--experimental-rerun", "--info", "-i", "--shell-completion", "-sc"),
)
"""Hydra's flags that a value may follow."""

HYDRA_FLAGS = (
    *WITH_VALUE,
    *("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m"),
)
"""All flags of Hydra; what else begins with a dash is a slip."""

GRID_SETS = {"model": "models", "dataset": "sources", "method": "methods", "seed": "seeds"}
"""Options of a run that a grid sets itself in each cell, with the options that it reads instead."""

POSITIONAL = {"report": "paths.runs", "evaluate": "runs", "analyze": "run", "data": "data.root"}
"""Option that a path without a name is meant for."""

WEIGHTS = (".pth", ".pt", ".bin", ".safetensors", ".ckpt")
"""Endings of files of weights."""

NAMED = ("method", "model", "dataset", "study", "suite", "head", "analysis", "pretrain", "optimizer", "trainer")
"""Config groups of which a name alone, ``ewc``, is understood."""

LISTS = ("seeds", "models", "methods", "sources", "datasets", "targets", "tags")
"""Names that several words may follow, ``--seeds 0 1 2``."""


@dataclass(frozen=True)
class Piece:
    """Neighbouring arguments that belong together.

    Attributes:
        words: As the user gave them.
        meant: What they were meant to be; None if nothing is similar.
        right: True if they can be given to Hydra as they are.
    """

    words: tuple[str, ...]
    meant: Correction | None = None
    right: bool = False


def tidy(command: str, arguments: Sequence[str]) -> list[str]:
    """Check the form of a command's arguments, and return them in the form that Hydra needs.

    What rib reads itself is rewritten: the words of `rib.data`, the filters of `rib.report`, and ``suite=FILE.yaml``.

    Args:
        command: Name of the command, ``train``.
        arguments: As the user gave them.

    Raises:
        RibError: If an argument is neither ``NAME=VALUE`` nor a flag of Hydra, with the right spelling; if the file of
            a suite is missing or invalid.
    """
    arguments = name_words(arguments) if command == "data" else arguments
    with domains(hinted_domains(arguments)):
        if wrong := [piece for piece in _pieces(command, arguments) if not piece.right]:
            raise RibError(_explain_pieces(command, wrong))
        for argument in arguments:
            _check_group(command, argument, arguments)
            warn_of_empty_method(argument)
    arguments = rewrite_suite(command, arguments)
    return normalise_arguments(quote_filters(arguments) if command == "report" else arguments)


def _check_group(command: str, argument: str, arguments: Sequence[str]) -> None:
    """Refuse arguments that Hydra accepts but that do something else than they say."""
    key, _, value = argument.partition("=")
    bare = key.lstrip("+")
    if command == "benchmark" and bare in GRID_SETS and (meant := correct(command, bare, value)):
        raise RibError(f"{argument}: a grid sets {bare} in each cell and reads {GRID_SETS[bare]}{meant.hint}")
    if bare in ("model", "dataset", "head", "optimizer", "trainer") and "," in value and value.startswith("["):
        sweep = for_shell(["-m", f"{bare}={value.strip('[]')}"])
        raise RibError(f"{argument}: expected one name, got a list; {sweep} runs one after the other")
    if told := explain_list_of_numbers(command, argument):
        raise RibError(told)
    chosen = any(re.match(r"\+*(model|experiment)=|--config", other) for other in arguments)
    if bare == "model.name" and not chosen and (meant := of_library(value)):
        raise RibError(f"{argument}: the default model is one of mini's{meant.hint}")


def normalise_arguments(arguments: Sequence[str]) -> list[str]:
    """Rewrite command-line arguments into the form that Hydra needs.

    ``method=ewc`` becomes ``+method=ewc``, since the group ``method`` is not in the defaults list. ``axes={...}`` gets
    ``axes=null`` before it, so that a grid's axes replace those of a study; Hydra would merge them. ``~/`` at the
    start of a value becomes the home folder, which no shell sees behind ``=``. ``-m`` behind options comes before them,
    since Hydra reads no options behind it then.

    Args:
        arguments: As the user gave them.
    """
    normalised: list[str] = []
    first = next((place for place, argument in enumerate(arguments) if "=" in argument and argument[:1] != "-"), 0)
    if late := [argument for argument in arguments[first:] if argument in ("-m", "--multirun")][:1]:
        arguments = [*late, *arguments[:first], *(a for a in arguments[first:] if a not in ("-m", "--multirun"))]
    for argument in arguments:
        key, _, value = argument.partition("=")
        if value.startswith("~/"):
            argument = spell_override(key, str(Path(value).expanduser()))
        normalised += ["axes=null"] if key == "axes" else []
        normalised.append(f"+{argument}" if key == "method" else argument)
    return normalised


def explain_syntax(command: str, argument: str) -> str:
    """Explain in one sentence how to write an argument that Hydra cannot parse.

    Args:
        command: Name of the command, ``train``.
        argument: One that Hydra has refused.
    """
    key, equals, value = argument.partition("=")
    if (plain := _without_typography(argument)) != argument:
        meant = _corrected(command, plain)
        return f"{argument}: expected plain quotes, hyphens and spaces, without any around =; write {meant}"
    if not equals:
        return f"{argument}: options are given as NAME=VALUE"
    name = normalise(key)
    if (
        name in options_of(command)
        and options_of(command)[name].group
        and (nested := re.match(r"([\w]+)\.(.*)", value))
    ) and nested[1] in options(name):
        inner = f"{name}.{nested[1]}" if name == "method" else name
        two = Correction(
            (
                *_pair(command, key, nested[1]),
                *_pair(command, f"{inner}.{nested[2].partition('=')[0]}", nested[2].partition("=")[2]),
            )
        )
        return f"{argument}: two options in one; write {two}"
    for repaired in (
        re.sub(r",+(?=\]?$)", "", value),
        value.lstrip("="),
        value + "]" * (value.count("[") - value.count("]")),
    ):
        if repaired != value and repaired and parses(f"{key}={repaired}"):
            meant = Correction(_pair(command, key, repaired))
            return f"{argument}: a comma, bracket or = too many or missing; write {meant}"
    quoted = Correction((spell_override(_name(command, key), value),))
    signs = " ".join(dict.fromkeys(sign for sign in value if not re.match(r"[\w ./:+%@?|$*-]", sign, re.ASCII)))
    return f"{argument}: Hydra needs quotes around a text with {signs or 'such a form'}; write {quoted}"


def _pieces(command: str, arguments: Sequence[str]) -> Iterator[Piece]:
    """Divide arguments into those that are right and those that are not, with their neighbours."""
    rest = list(arguments)
    while rest:
        word = rest[0]
        # --run is a flag of Hydra, but not with a value behind it, which is meant for a run's folder
        named_run = word == "--run" and _plain_words(rest[1:], 1)
        if not named_run and (word if word[:2] != "--" else word.partition("=")[0]) in HYDRA_FLAGS:
            size = 2 if word in WITH_VALUE and len(rest) > 1 and "=" not in rest[1] else 1
            piece = Piece(tuple(rest[:size]), right=True)
        elif word[:1] in DASHES and word[:1] and not re.fullmatch(r"-?\.?\d.*", word):
            piece = _flag(command, rest, arguments)
        elif "=" in word[1:] or word.startswith("~"):
            piece = _continued(command, rest, arguments)
        else:
            piece = _words(command, rest, arguments)
        yield piece
        rest = rest[len(piece.words) :]


def _flag(command: str, rest: Sequence[str], arguments: Sequence[str]) -> Piece:
    """Read ``--lr 0.01``, ``--lr=0.01``, ``--force``, or a flag of Hydra with a typographic dash."""
    body = rest[0].lstrip(DASHES)
    for flag in (f"-{body}", f"--{body}"):
        if flag in HYDRA_FLAGS and flag != rest[0]:
            return Piece((rest[0],), Correction((flag,)))
    key, equals, value = body.partition("=")
    words = 1
    if not equals:
        following = _plain_words(rest[1:], len(rest) if normalise(key) in LISTS else 1)
        known = options_of(command).get(normalise(key))
        if following and not (known and known.default in ("true", "false") and following[0] not in ("true", "false")):
            value, words = ",".join(following), 1 + len(following)
    if normalise(key).startswith("no_") and not value:
        key, value = normalise(key)[3:], "false"
    value = f"[{value}]" if words > 2 and key in options_of(command) else value
    if not value and not _is_flag(command, key):
        return Piece(tuple(rest[:words]))
    return Piece(tuple(rest[:words]), correct(command, key, value, arguments))


def _continued(command: str, rest: Sequence[str], arguments: Sequence[str]) -> Piece:
    """Read ``NAME=VALUE``, and what belongs to it where its value contains spaces: ``epochs= 3``, ``x=[a, b]``."""
    key, _, value = rest[0].partition("=")
    words = _plain_words(rest[1:], len(rest))
    if words and value and (value.endswith(",") or normalise(key) in LISTS) and not re.search(r"[/\[{]", value):
        return Piece((rest[0], *words), join_values(command, key, [value, *words], arguments))
    if not words or (value and "/" not in value and _is_name(words[0])):
        return Piece((rest[0],), right=True)
    size = 1
    depth = value.count("[") + value.count("{") - value.count("]") - value.count("}")
    while size <= len(words) and depth > 0:
        more = words[size - 1]
        value, size = f"{value.rstrip(',')},{more}" if value.endswith(",") else f"{value} {more}", size + 1
        depth += more.count("[") + more.count("{") - more.count("]") - more.count("}")
    if size == 1 and not value:
        value, size = words[0], 2
    elif size == 1 and "/" not in value and normalise(words[0]) in (*options_of(command), *ALIASES[command]):
        return Piece((rest[0],), right=True)
    elif size == 1:
        value, size = " ".join([value, *words]), 1 + len(words)
    return Piece(
        tuple(rest[:size]), correct(command, key, value, arguments) or Correction((spell_override(key, value),))
    )


def _words(command: str, rest: Sequence[str], arguments: Sequence[str]) -> Piece:
    """Read words without ``=``: ``epochs 3``, ``epochs = 3``, ``lr: 0.1``, the name of a method, a path."""
    if " " in rest[0].strip():  # one argument, quoted as a whole or from Python
        inner = [*_pieces(command, rest[0].split())]
        found = [piece.meant.arguments if piece.meant else piece.words for piece in inner]
        known = all(piece.right or piece.meant for piece in inner)
        return Piece((rest[0],), Correction(tuple(a for part in found for a in part)) if known else None)
    joined = re.match(r"([\w.+/]+?)\s*(?::=|:|=)?\s*=?\s*(.*)$", " ".join(rest[:3]))
    if command == "data" and (close := get_close_matches(rest[0].lower(), ACTIONS, n=1)):
        return Piece((rest[0],), Correction((f"action={close[0]}",)))
    if re.search(r"\.ya?ml$", rest[0], re.I) and command != "pretrain":
        return Piece((rest[0],), Correction((spell_override("suite", rest[0]),)))
    key, _, behind = rest[0].partition(":")
    is_option = normalise(key) in (*options_of(command), *ALIASES[command])
    if joined and len(rest) > 1 and (rest[1].startswith(("=", ":")) or (rest[0].endswith(":") and is_option)):
        size = 3 if rest[1] in ("=", ":", ":=", "==") else 2
        value = rest[size - 1].lstrip("=:") if len(rest) >= size else ""
        return Piece(tuple(rest[:size]), correct(command, key, value, arguments))
    if behind and is_option:
        return Piece((rest[0],), correct(command, key, behind.lstrip("="), arguments))
    for group in NAMED:
        if group in options_of(command) and normalise(rest[0]) in names_of(group):
            return Piece((rest[0],), correct(command, group, rest[0], arguments))
    following = _plain_words(rest[1:], len(rest) if normalise(key) in LISTS else 1)
    if is_option and following:
        value = ",".join(following)
        return Piece(tuple(rest[: 1 + len(following)]), correct(command, key, value, arguments))
    if command in POSITIONAL and ("/" in rest[0] or Path(rest[0]).exists()):
        option = "weights" if command == "evaluate" and rest[0].endswith(WEIGHTS) else POSITIONAL[command]
        return Piece((rest[0],), Correction((spell_override(option, rest[0]),)))
    return Piece((rest[0],), correct(command, key, "", arguments) if is_option and _is_flag(command, key) else None)


def _is_name(word: str) -> bool:
    """Return True if a word is the name of a command or of a file in one of the groups of `NAMED`."""
    return word in COMMANDS or any(normalise(word) in options(group) for group in NAMED)


def _is_flag(command: str, key: str) -> bool:
    """Return True if an option is true or false, so that its name alone means true."""
    meant = correct(command, key, "")
    return meant is not None and not any(argument.endswith("=") for argument in meant.arguments)


def _plain_words(words: Sequence[str], most: int) -> list[str]:
    """Return the first words that are neither flags nor ``NAME=VALUE``."""
    found: list[str] = []
    for word in words[:most]:
        if "=" in word or (word[:1] in DASHES and not re.fullmatch(r"-?\.?\d.*", word)):
            break
        found.append(word)
    return found


def _explain_pieces(command: str, wrong: Sequence[Piece]) -> str:
    """Explain in one sentence how to write arguments that are not ``NAME=VALUE``."""
    for piece in wrong:
        if piece.meant is None:
            word = piece.words[0]
            if word in COMMANDS:
                return f"{word}: expected options (NAME=VALUE) after rib {command}, got a second command; leave it out"
            if (option := correct(command, word.lstrip(DASHES), "0")) and len(option.arguments) == 1:
                name = option.arguments[0].partition("=")[0]
                return f"{word}: this option needs a value, {name}=VALUE; `rib options {name.lstrip('+')}` explains it"
            close = nearest(normalise(word), [*options_of(command), *ALIASES[command]]) if len(word) > 5 else ""
            what = "there is no such option" if word[0] in DASHES else "options are given as NAME=VALUE"
            other = elsewhere(command, word.lstrip(DASHES))
            return f"{word}: {what}{other or f'{close}; `rib options` lists all'}"
    arguments = tuple(argument for piece in wrong if piece.meant for argument in piece.meant.arguments)
    notes = dict.fromkeys(piece.meant.note for piece in wrong if piece.meant and piece.meant.note)
    given = " ".join(word for piece in wrong for word in piece.words)
    return f"{given}: options are given as NAME=VALUE{Correction(arguments, '; '.join(notes)).hint}"


def _without_typography(argument: str) -> str:
    """Return an argument with plain quotes and spaces, none of them around the whole, the name, or a quoted value."""
    plain = argument.translate(QUOTES).strip()
    while len(plain) > 1 and plain[0] in "\"'" and plain[-1] == plain[0]:
        plain = plain[1:-1]
    key, equals, value = plain.partition("=")
    if not equals:
        return plain
    key = key.strip().rstrip(":").strip("\"'").lstrip(DASHES).strip()
    if (
        value.strip() != argument.partition("=")[2]
        and len(value) > 1
        and value.strip()[0] == value.strip()[-1] in "\"'"
    ):
        value = value.strip()[1:-1]
    return f"{key}={value.strip()}"


def _pair(command: str, key: str, value: str) -> tuple[str, ...]:
    meant = correct(command, key, value)
    return meant.arguments if meant else (spell_override(key, value),)


def _name(command: str, key: str) -> str:
    """Return the right name of an option that is only given another value."""
    meant = correct(command, key, "0")
    return meant.arguments[-1].partition("=")[0] if meant and len(meant.arguments) == 1 else key


def _corrected(command: str, argument: str) -> Correction:
    key, _, value = argument.partition("=")
    return Correction(_pair(command, key, value))
