"""``rib COMMAND ...`` and ``python -m rib COMMAND ...``: all commands of rib, and what can be set in them.

``rib train +method=ewc`` is ``python -m rib.train +method=ewc``. Only the command that was asked for is imported.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from rib.errors import RibError
from rib.runtime import requirements


def main() -> None:
    """Entry point of ``rib``.

    Raises:
        SystemExit: With the exit code of the command, or 1 and one sentence for a command that does not exist.
    """
    from rib.config.conf_comments import COMMANDS
    from rib.config.help_page import show, show_help

    name, arguments = (sys.argv[1], sys.argv[2:]) if sys.argv[1:] else ("help", [])
    if name == "help" and arguments and arguments[0] in COMMANDS:
        name, arguments = arguments[0], ["--help"]
    if name in COMMANDS and not {"-h", "--help"} & {*arguments}:
        run_command(name, arguments)
        return
    if name in COMMANDS:
        show_help(name, f"rib {name}")
        return
    from rib.terminal.pages import page

    try:
        show(page(name, arguments))
    except RibError as error:
        sys.exit(f"rib: {error}")


def run_command(command: str, arguments: list[str]) -> None:
    """Run a command in this process, exactly as ``python -m rib.COMMAND`` would.

    Lightning starts the other ranks of a multi-GPU run, and multiprocessing its workers, from the name of the main
    module and ``sys.argv``: both become those of the command.

    Args:
        command: Name of the command, ``train``.
        arguments: Its arguments.
    """
    requirements.check()
    if sys.path[0] != (here := str(Path.cwd())):  # `python -m` finds the user's own classes here, a script does not
        sys.path.insert(0, here)
    sys.argv[1:] = arguments
    runpy.run_module(f"rib.{command}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
