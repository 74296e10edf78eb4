"""Puts ``conf/`` into the wheel as ``rib/conf``; an editable install reads it where it lies."""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ConfHook(BuildHookInterface):
    """Hatchling's ``force-include`` would copy conf into editable installs, too, where the copy goes stale."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called once a target is built."""
        if version == "standard":
            build_data["force_include"]["conf"] = "rib/conf"
