"""The words of a command that name a user's suite: ``suite=pets.yaml dataset=photo`` for the options behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rib.config
from rib.config.schema import Config
from rib.data.worlds import open_suite
from rib.errors import RibError

OPTIONS = ("data.suite", "data.root", "suite.", "dataset.")
"""Options that the words stand for."""


@dataclass(frozen=True)
class SuiteWords:
    """Arguments by which a command names the suite of a config.

    Attributes:
        words: ``suite=FILE.yaml`` and ``dataset=DOMAIN``; empty for a suite of rib's.
        readable: False if there is no such file any more: the options behind the words are then unknown.
        missing: What the user has to fill in.
    """

    words: tuple[str, ...] = ()
    readable: bool = True
    missing: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: Config) -> SuiteWords:
        """Return the words for a config, whose suite's file may have moved."""
        if config.data.suite is None:
            return cls()
        file, source = Path(config.data.suite), config.dataset.name
        try:
            suite = open_suite(file) if file.is_absolute() else None  # metrics record no folder
        except RibError:
            suite = None
        if suite is None:
            return cls._without_file(config, file)
        dataset = [("dataset", source)] if source in suite.domains else []
        return cls(tuple(rib.config.spell_override(*word) for word in [("suite", str(file)), *dataset]))

    @classmethod
    def _without_file(cls, config: Config, file: Path) -> SuiteWords:
        """Return the words for a config whose suite's file is gone: its name, and roles other than the file's."""
        name = config.suite.name.rstrip("*")
        words: list[tuple[str, object]] = [("suite", f"{name}.yaml"), ("dataset", config.dataset.name)]
        if config.suite.name != name:
            words += [("suite.targets", config.suite.targets), ("suite.reported", config.suite.reported)]
        gone = f", which is no longer {file}" if file.is_absolute() else ""
        note = f"{name}.yaml is the file of the suite {name}{gone}"
        return cls(tuple(rib.config.spell_override(*word) for word in words), False, (note,))

    @property
    def hidden(self) -> tuple[str, ...]:
        """Prefixes of options that cannot be compared, since the file that sets them is gone."""
        return () if self.readable else OPTIONS

    def rewritten(self, command: str, words: Sequence[str]) -> list[str]:
        """Return the words of a command with the options behind them, for Hydra."""
        if not self.readable:
            return [word for word in words if word not in self.words]
        return rib.config.rewrite_suite(command, words)

    def name_kept(self, changed: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options that differ from the file's, with the suite's name where other roles would star it.

        Args:
            changed: Options of the command besides the words, by dotted name.
            wanted: All options of the config.
        """
        found = dict(changed)
        if self.words and {"suite.targets", "suite.reported"} & {*found}:
            found.pop("suite.name", None)
            if not str(wanted["suite.name"]).endswith("*"):
                found["suite.name"] = wanted["suite.name"]
        return found
