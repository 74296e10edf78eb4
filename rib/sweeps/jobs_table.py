"""The table of a sweep's jobs, which its command ends with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rib.data.worlds import describe_kind, title_of
from rib.reporting.formatting import describe_cost, with_interval
from rib.reporting.layout import NO_LIMIT, FittedTable, output
from rib.runtime.counting import plural
from rib.schemas.files import Job
from rib.sweeps.jobs_view import other_overrides, record, records_of


def read_jobs(sweep: Path) -> list[Job]:
    """Read the record that each job of a sweep wrote (started, finished or failed), in the order of the jobs."""
    return [_record(file) for _, file in sorted(records_of(sweep).items())]


def _record(file: Path) -> Job:
    """Read a job's record; a missing or damaged one counts as a failed job."""
    empty: Job = {"overrides": "", "model": "", "source": "", "method": "", "seed": None}
    return record(file) or {**empty, "error": f"{file} is damaged"}


def show_jobs(sweep: Path, total: int = 0, interrupted: bool = False) -> None:
    """Print the table of a sweep's jobs, if there are any, and the folder of each run, or why there is none.

    Args:
        sweep: The folder of the sweep.
        total: Number of jobs that were asked for; 0 if unknown.
        interrupted: True after Ctrl-C: that a job is unfinished needs no explanation.
    """
    if not (jobs := read_jobs(sweep)):
        return
    console = output()
    # A file or pipe has room for long rows, and other programs find a job's folder in its row.
    wide = console.width >= NO_LIMIT
    console.print(job_table(jobs, sweep, wide, total))
    for number, job in enumerate(jobs, start=1):
        text = job.get("folder", "") if "folder" in job else _reason(job, sweep, interrupted)
        if text and not (wide and "folder" in job):
            console.print(f"{number}  {text}", soft_wrap=True, highlight=False, markup=False)


def job_table(jobs: Sequence[Job], sweep: Path, with_folders: bool = False, total: int = 0) -> FittedTable:
    """Return a table with one row per job, without the overrides that all jobs share.

    Args:
        jobs: Records of the jobs, at least one.
        sweep: The folder of the sweep.
        with_folders: Add a column with the folder of each run.
        total: Number of jobs that were asked for; 0 if unknown.
    """
    shared = set.intersection(*({*job["overrides"].split()} for job in jobs))
    more = [" ".join(o for o in other_overrides(job) if o not in shared) for job in jobs]
    worlds = dict.fromkeys(describe_kind(job["kind"]) for job in jobs if "kind" in job)
    some = total > len(jobs)
    begun = f"{len(jobs)} of {plural(total, 'job')} begun:" if some else f"{plural(len(jobs), 'job')} of"
    table = FittedTable(
        f"{begun} {sweep.resolve()}{', ' * bool(worlds)}{' and '.join(worlds)}",
        words=("job", "model", "source", "method", "seed", *(["overrides"] if any(more) else [])),
        numbers=("RI, points", "seconds"),
        prose=("folder",) * with_folders,
        notes=("RI in percentage points, with 95 % intervals over images only.", *_total_cost(jobs)),
    )
    for number, job in enumerate(jobs, start=1):
        improvement = job.get("robustness_improvement")
        failed = "failed" if "error" in job else "unfinished"
        table.add_row(
            str(number),
            job["model"],
            title_of(job["source"], job.get("kind", "user")),
            job["method"],
            "" if job["seed"] is None else str(job["seed"]),
            *([more[number - 1]] if any(more) else []),
            with_interval(improvement) if improvement else "" if "folder" in job else failed,
            f"{job['seconds']:.1f}" if "seconds" in job else "",
            *[job.get("folder", "")] * with_folders,
        )
    return table


def _reason(job: Job, sweep: Path, interrupted: bool) -> str:
    """Return the reason why a job has no result; empty for one that Ctrl-C has ended."""
    if "error" in job:
        return job["error"]
    logs = sweep / ".submitit"  # a job of a cluster may go on after the sweep's command
    hint = f"; see {logs}" if logs.is_dir() else ""
    return "" if interrupted and not hint else f"it began but left no result: it was killed, or is still running{hint}"


def _total_cost(jobs: Sequence[Job]) -> list[str]:
    """Return a line on what the finished jobs' runs cost together; empty if none has finished."""
    costs = [job["cost"] for job in jobs if "cost" in job]
    if not costs:
        return []
    return [f"All runs: {describe_cost(costs, sum(job.get('seconds', 0.0) for job in jobs))}."]
