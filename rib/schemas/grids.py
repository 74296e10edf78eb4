"""Types of the JSON output of rib.benchmark: the state of a grid, and its plan."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class RunningCell(TypedDict):
    """A cell (one run of a grid) that is running now; keys from progress.json are absent until it is written.

    Attributes:
        label: "mini_small, ewc on imagenet_r, seed 0".
        host: Machine that it runs on.
        pid: Process id on that machine.
        what: Current task.
        done: Units done.
        total: Units of the whole task.
        unit: "images", "steps".
        note: Short remark; may be empty.
        rate: Units per second.
        seconds_left: Expected remaining time of this task; null before there is a rate.
    """

    label: str
    host: str
    pid: int
    what: NotRequired[str]
    done: NotRequired[int]
    total: NotRequired[int]
    unit: NotRequired[str]
    note: NotRequired[str]
    rate: NotRequired[float]
    seconds_left: NotRequired[float | None]


class CellReason(TypedDict):
    """A cell (one run of a grid) that has no result, and the reason.

    Attributes:
        label: "mini_small, ewc on imagenet_r, seed 0".
        reason: One sentence.
    """

    label: str
    reason: str


class Status(TypedDict):
    """State of a grid of runs (cells), as `rib.benchmark action=status format=json` prints it.

    Attributes:
        counts: Number of the grid's cells by state: done, running, failed, refused, missing.
        running: Cells that are running now.
        failed: Cells that failed.
        refused: Cells whose source must not be trained on.
        seconds_left: Expected time of all missing cells, one after another; null if no similar cell was measured.
    """

    counts: dict[str, int]
    running: list[RunningCell]
    failed: list[CellReason]
    refused: list[CellReason]
    seconds_left: float | None


class PlannedCell(TypedDict):
    """One run (cell) in the plan of a grid.

    Attributes:
        id: Name of its folder under <store>/cells.
        label: "mini_small, ewc on imagenet_r, seed 0".
        state: done, failed, refused or missing.
        wanted: True if the cell is in the grid, false if only other cells need it.
        needs: Ids of the cells that must finish before it starts.
        axes: Values of the grid's axes, by option.
        folder: The run's folder, which may not exist yet; null if the cell's config is invalid.
    """

    id: str
    label: str
    state: str
    wanted: bool
    needs: list[str]
    axes: dict[str, Any]
    folder: str | None


class PlanReport(TypedDict):
    """Plan of a grid of runs (cells), as `rib.benchmark plan_only=true format=json` prints it.

    Attributes:
        cells: Planned cells; each comes after those that it needs.
        shared: Number of runs that other cells need, by method, and number of Fisher matrices.
        failed: Cells that failed.
        refused: Cells whose source must not be trained on.
        seconds: Expected time until the grid is done, with start-up, parallel jobs and the report; null if unknown.
        in_parallel: Largest number of cells that run at the same time.
        images_trained: Images that the missing cells train on, an image once per epoch.
        images_scored: Images that the missing cells predict, without the further models of curves and ensembles.
        num_bytes: Expected disk space of the missing cells, in bytes.
        load: Load average of this machine over the last minute; null if unknown.
        busy: True if that is above the number of cores, so that the grid may take longer.
    """

    cells: list[PlannedCell]
    shared: dict[str, int]
    failed: list[CellReason]
    refused: list[CellReason]
    seconds: float | None
    in_parallel: int
    images_trained: int
    images_scored: int
    num_bytes: int
    load: float | None
    busy: bool
