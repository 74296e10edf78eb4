"""What every command does around its work: arguments before Hydra, one-sentence errors, interrupts."""

from __future__ import annotations

import errno
import functools
import os
import re
import shlex
import sys
from collections.abc import Callable
from typing import TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from rib.config.messages import explain
from rib.errors import RibError

T = TypeVar("T")

ONE_SENTENCE = "RIB_ONE_SENTENCE"
"""Says that HYDRA_FULL_ERROR is ours and not the user's, to the processes started from here as well."""

CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES}
"""Of what the system says, what the user can mend by making room or choosing another folder."""


def launch(main: Callable[[], None]) -> None:
    """Run a Hydra main; a user's mistake is one sentence on stderr and exit code 1.

    ``HYDRA_FULL_ERROR=1`` makes Hydra raise instead of printing its own long messages; where the user has set it
    already, they see the traceback.
    """
    # On a busy machine OpenMP's spinning threads wait for one another: a mini run of 6 s took 65 s beside two others.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.argv[1:] = accept(sys.argv[1:])
    wants_traceback = "HYDRA_FULL_ERROR" in os.environ and ONE_SENTENCE not in os.environ
    os.environ |= {"HYDRA_FULL_ERROR": "1", ONE_SENTENCE: "1"}
    try:
        main()
    except (KeyboardInterrupt, SystemExit) as stop:
        # Lightning turns an interrupted fit into exit(1), and SIGTERM (SLURM's time limit) into exit().
        terminated = type(stop).__name__ == "SIGTERMException"
        interrupted = isinstance(stop, KeyboardInterrupt) or isinstance(stop.__context__, KeyboardInterrupt)
        if not (interrupted or terminated):
            raise
        print("rib: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(143 if terminated else 130)
    except (Stop, RibError) as stop:
        error = stop.__cause__ if isinstance(stop, Stop) else stop
        if wants_traceback:
            raise
        sys.exit(f"rib: {error}")
    except (HydraException, OmegaConfBaseException) as error:
        if wants_traceback:
            raise
        sys.exit(f"rib: {_misread(error) or explain(error)}")
    except Exception as error:
        if not wants_traceback and str(error).startswith("Config group override must be"):
            sys.exit("rib: an option that names a file of conf/ (study, model, dataset, ...) takes a name, got null")
        if wants_traceback or type(error).__name__ != "UncompletedJobError":
            raise
        sys.exit("rib: a job was killed before it could end (out of memory, a time limit); what else runs goes on")


def quietly(task: Callable[[DictConfig], T]) -> Callable[[DictConfig], T]:
    """Let a user's mistake leave a Hydra job without Hydra's own line about it; in a sweep the next job goes on."""

    @functools.wraps(task)
    def run(cfg: DictConfig) -> T:
        try:
            return task(cfg)
        except (RibError, OSError) as error:
            if isinstance(error, OSError):
                if error.errno not in CANNOT_WRITE:
                    raise
                where = error.filename or "a file"
                what = "open" if error.errno == errno.EACCES else "write"
                error = RibError(f"cannot {what} {where}: {error.strerror}; nothing that was finished is lost")
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise error from None
            raise Stop(error) from error

    return run


def _misread(error: Exception) -> str | None:
    """One sentence for an argument that Hydra's lexer reads otherwise than it was meant, with one that it would not."""
    from rib.config.messages import spell_override

    several = re.search(r"Ambiguous value for argument '(.*?)'\n", str(error))
    if not several and not isinstance(error, OverrideParseException):
        return None
    argument = several[1] if several else str(getattr(error, "override", ""))
    key, equals, value = argument.partition("=")
    if not equals:
        return f"{argument}: expected NAME=VALUE"
    as_text = shlex.quote(spell_override(key, value))
    if several:
        return f"{argument}: several values are a sweep, given with -m; a list is {key}=[{value}], and a text {as_text}"
    return f"{argument}: Hydra reads quotes, brackets, commas and = itself; for a text of these give {as_text}"


class Stop(BaseException):
    """Carries a `RibError` past Hydra, which reports only exceptions."""


def accept(arguments: list[str]) -> list[str]:
    """Arguments as Hydra wants them.

    ``method=ewc`` means ``+method=ewc``: the group is not in the defaults list, so that ``+`` is Hydra's way. A grid's
    ``axes={...}`` takes the place of a study's, which Hydra would add to it.
    """
    accepted: list[str] = []
    for argument in arguments:
        if re.match(r"axes=", argument):
            accepted += ["axes=null", argument]
        else:
            accepted.append(f"+{argument}" if re.match(r"method=", argument) else argument)
    return accepted
