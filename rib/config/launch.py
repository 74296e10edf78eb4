"""Start of every command: prepare its arguments for Hydra, and report errors and interrupts in one sentence."""

from __future__ import annotations

import errno
import functools
import os
import signal
import sys
from collections.abc import Callable
from typing import TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from rib.config.help_page import program_name, show_help
from rib.config.messages import explain, with_correction
from rib.config.slips import normalise_arguments as normalise_arguments
from rib.config.slips import tidy
from rib.config.unchecked import lacks_name
from rib.errors import RibError
from rib.runtime.command_line import rewrite_arguments
from rib.runtime.progress import show_command

T = TypeVar("T")

ONE_SENTENCE = "RIB_ONE_SENTENCE"
"""Environment variable: rib has set HYDRA_FULL_ERROR, not the user. Processes started from here inherit both."""

PRINTING = ("--cfg", "-c", "--info", "-i", "--hydra-help")
"""Hydra's flags that print something and stop."""

CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES}
"""System errors that the user can fix, by making room or choosing another folder."""


def launch(main: Callable[[], None], command: str) -> None:
    """Run a Hydra main function; an error that the user can fix ends it with one sentence on stderr and exit code 1.

    ``HYDRA_FULL_ERROR=1`` is set here, so that Hydra raises errors instead of printing its own long messages. If the
    user has set it already, errors end with their traceback.

    ``--help`` and ``-h`` print rib's own page, before Hydra starts; all other flags are Hydra's.

    Args:
        main: Function decorated with ``hydra.main``.
        command: Name of the command, ``train``.

    Raises:
        SystemExit: With code 1 after an error, 3 after a `RobustnessError` (``fail_below``), 130 after an interrupt,
            143 after SIGTERM.
    """
    # On a busy machine OpenMP's spinning threads wait for one another: a mini run of 6 s took 65 s beside two others.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if {"--help", "-h"} & {*sys.argv[1:]}:
        show_help(command, program_name(command))
        return
    if {*PRINTING} & {*sys.argv[1:]} and hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` then ends Hydra's printing without a traceback
    show_command(f"rib {command}")
    wants_traceback = "HYDRA_FULL_ERROR" in os.environ and ONE_SENTENCE not in os.environ
    os.environ |= {"HYDRA_FULL_ERROR": "1", ONE_SENTENCE: "1"}
    try:
        rewrite_arguments(tidy(command, sys.argv[1:]))
        main()
    except (KeyboardInterrupt, SystemExit) as stop:
        # Lightning turns an interrupted fit into exit(1), and SIGTERM (SLURM's time limit) into exit().
        terminated = type(stop).__name__ == "SIGTERMException"
        if not (is_interrupt(stop) or terminated):
            raise
        # A sweep or grid says in the interrupt how far it came.
        done = str(stop) if isinstance(stop, KeyboardInterrupt) else ""
        how = f": {done}" if done else "; run the same command to resume from the last checkpoint"
        print(f"rib: interrupted{how}", file=sys.stderr)
        sys.exit(143 if terminated else 130)  # 128 + the signal's number, as from a shell
    except (Stop, RibError) as stop:
        error = stop.__cause__ if isinstance(stop, Stop) else stop
        if wants_traceback:
            raise
        words = with_correction(error, command, sys.argv[1:]) if isinstance(error, RibError) else error
        print(f"rib: {words}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 1))
    except (HydraException, OmegaConfBaseException) as error:
        if wants_traceback:
            raise
        sys.exit(f"rib: {explain(error, command, sys.argv[1:])}")
    except Exception as error:
        if not wants_traceback and lacks_name(error):
            sys.exit(f"rib: {explain(error, command, sys.argv[1:])}")
        # By its name, since submitit, which raises it, may not be installed.
        if wants_traceback or type(error).__name__ != "UncompletedJobError":
            raise
        sys.exit("rib: a job was killed before it finished (out of memory or time limit); other jobs continue")


def is_interrupt(stop: BaseException) -> bool:
    """Return True for Ctrl-C, also where Lightning has turned it into ``exit(1)``."""
    return isinstance(stop, KeyboardInterrupt) or (
        isinstance(stop, SystemExit) and isinstance(stop.__context__, KeyboardInterrupt)
    )


def one_sentence_errors(task: Callable[[DictConfig], T]) -> Callable[[DictConfig], T]:
    """Decorate a Hydra task so that errors that the user can fix are reported by `launch` and not by Hydra.

    In a multirun the error is raised as it is: the job fails, and the next one starts.

    Args:
        task: Function that does the work of a command.
    """

    @functools.wraps(task)
    def run(cfg: DictConfig) -> T:
        try:
            return task(cfg)
        except (RibError, OSError) as error:
            if isinstance(error, OSError):
                if error.errno not in CANNOT_WRITE:  # a missing file and the like is a bug of rib: keep the traceback
                    raise
                where = error.filename or "a file"
                what = "open" if error.errno == errno.EACCES else "write"
                error = RibError(f"cannot {what} {where}: {error.strerror}; finished results are not affected")
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise error from None
            raise Stop(error) from error

    return run


class Stop(BaseException):
    """Wrapper that carries a `RibError` past Hydra, which would catch any `Exception` and print its own message."""
