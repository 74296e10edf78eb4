"""The finished runs of a store that match a search, as a sequence and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, overload

from rib.data.worlds import in_distribution_of, is_suite, title_of
from rib.reporting.data_warning import warning_after
from rib.reporting.formatting import before_after, cost_of, percent, with_interval, world
from rib.results import display
from rib.results.finished_run import EXTERNAL_NAME, FinishedRun
from rib.runs.run import Result
from rib.runs.store import RunStore
from rib.runs.trials import trials_in

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 20
"""Largest number of rows that a notebook shows; the first half and the second half of them."""


class FoundRuns(Sequence[FinishedRun]):
    """Finished runs of a store: a sequence of `FinishedRun`, and a table with one row per run.

    Made by `rib.find_runs`. Slices are again of this class. In a notebook it shows as a table.

    Args:
        runs: The runs.
        store: The store that holds them.
        reason: Sentence on why there is none; shown with an empty sequence.
    """

    def __init__(self, runs: Iterable[FinishedRun], store: RunStore, reason: str = "") -> None:
        self._runs = list(runs)
        self._store = store
        self._reason = reason

    @overload
    def __getitem__(self, index: int) -> FinishedRun: ...
    @overload
    def __getitem__(self, index: slice) -> FoundRuns: ...
    def __getitem__(self, index: int | slice) -> FinishedRun | FoundRuns:
        if isinstance(index, slice):
            return FoundRuns(self._runs[index], self._store)
        return self._runs[index]

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[FinishedRun]:
        return iter(self._runs)

    def table(self) -> pd.DataFrame:
        """Return a table with one row per run, sorted by source, model, method, options and seed.

        Returns:
            By key: ``model``, ``source``, ``method`` (external weights have the name that they were given), ``seed``
            (nullable integers), ``ri`` with the ends ``ri_low`` and ``ri_high`` of its 95 % interval over images in
            percentage points (NaN for pretrained models), ``options`` that are not default, ``suite``, ``data`` (mini,
            user for ImageNet's, or the name of a suite of one's own, whose runs stand together behind the others),
            accuracy in percent on the source and in distribution (ImageNet val) before and after, images trained (an
            image once per epoch) and scored, ``seconds`` for both, the ``device``, and ``trial``, True for a trial
            of `rib.search`.
        """
        import pandas as pd

        from rib.reporting.frame import WholeFrame

        trials = trials_in(self._store)
        rows = [{**_row(run), "trial": run.key in trials} for run in self._runs]
        columns = None if rows else [*COLUMNS, "trial"]
        table = WholeFrame(rows, columns=columns).set_index("key")
        return table.astype({"seed": pd.Int64Dtype()})  # merged runs may have no seed

    def __repr__(self) -> str:
        lines = [f"<FoundRuns: {_count(self)} in {self._store.root}{f'; {self._reason}' * bool(self._reason)}>"]
        return "\n  ".join([*lines, *(repr(run) for run in self._runs[:SHOWN]), *self._more()])

    def _more(self) -> list[str]:
        return [f"and {len(self) - SHOWN} more"] if len(self) > SHOWN else []

    def _repr_html_(self) -> str:
        suites = dict.fromkeys(_suite_of(run) for run in self._runs)
        if len(suites) > 1:  # results of two suites never share a table
            parts = [FoundRuns([run for run in self._runs if _suite_of(run) == one], self._store) for one in suites]
            return "".join(part._repr_html_() for part in parts)
        kinds = dict.fromkeys(world(run.brief) for run in self._runs)
        models = [run.brief["model"] for run in self._runs if run.brief["data"]["kind"] == "mini"]
        lines = [*(["; ".join(kinds)] if kinds else []), *filter(None, [warning_after(models, "mini")])]
        lines += [self._reason] if self._reason else []
        rows = [_cells(run) for run in self._runs[:SHOWN]]
        val = _heading_of_val(self._runs)
        headers = (*HEADERS, *([] if val is None else [val]))
        rows = [row[: len(headers)] for row in rows] + [(text, *[""] * (len(headers) - 1)) for text in self._more()]
        return display.page(f"{_count(self)} in {self._store.root}", lines, headers, rows)


COLUMNS = (
    *("key", "model", "source", "method", "seed", "ri", "ri_low", "ri_high", "options", "suite", "data"),
    *("source_before", "source_after", "val_before", "val_after"),
    *("images_trained", "images_scored", "seconds", "device"),
)
"""Columns of the table of runs, the key first."""

HEADERS = ("key", "model", "source", "method", "seed", "RI, points [95 %]", "source %")


def order(result: Result) -> list[str]:
    """Return what sorts runs: source, model, method, options and seed, behind the suite of a user's own."""
    m = result[1]
    kind = m["data"]["kind"] if is_suite(m["data"]["kind"]) else ""
    return [str(value) for value in (kind, m["source"], m["model"], m["method"], m["options"], m["seed"])]


def _suite_of(run: FinishedRun) -> str:
    """Return the suite of a user's own that a run was scored on; empty for ImageNet and toy data."""
    kind = run.brief["data"]["kind"]
    return kind if is_suite(kind) else ""


def _heading_of_val(runs: Sequence[FinishedRun]) -> str | None:
    """Return the heading of accuracies in distribution: ``ImageNet val %``; None if the suite has no such dataset."""
    # Toy data have the columns of the data that they stand for.
    kind = next(filter(None, map(_suite_of, runs)), "user")
    name = in_distribution_of(kind)
    return None if name is None else f"{title_of(name, kind)} %"


def _row(run: FinishedRun) -> dict[str, object]:
    m, improvement = run.brief, run.ri
    source, val = m["accuracy"].get(m["source"]), m["accuracy"].get(in_distribution_of(m["data"]["kind"]) or "")
    nothing, cost = float("nan"), cost_of(m)
    values = (
        *(run.key, m["model"], m["source"], run.method, m["seed"]),
        *((improvement.value, improvement.low, improvement.high) if improvement else [nothing] * 3),
        *(_options(run), m["suite"], m["data"]["kind"]),
        *(percent(source, "before"), percent(source, "after"), percent(val, "before"), percent(val, "after")),
        *(cost["images_trained"], cost["images_scored"]),
        *(m["seconds"]["fit"] + m["seconds"]["evaluate"], cost.get("device", "")),
    )
    return dict(zip(COLUMNS, values, strict=True))


def _cells(run: FinishedRun) -> tuple[object, ...]:
    m, row, improvement = run.metrics, _row(run), run.metrics["robustness_improvement"]
    options_ = f" ({row['options']})" if row["options"] else ""
    source, val = m["accuracy"].get(m["source"]), m["accuracy"].get(in_distribution_of(m["data"]["kind"]) or "")
    return (
        run.key[:8],
        m["model"],
        title_of(m["source"], m["data"]["kind"]),
        f"{run.method}{' (external)' if EXTERNAL_NAME in m['options'] else ''}{options_}",
        "" if m["seed"] is None else m["seed"],
        with_interval(improvement) if improvement and run.ri else "",
        before_after(percent(source, "before"), percent(source, "after")) if source else "",
        before_after(percent(val, "before"), percent(val, "after")) if val else "",
    )


def _options(run: FinishedRun) -> str:
    return ", ".join(f"{name}={value}" for name, value in run.brief["options"].items() if name != EXTERNAL_NAME)


def _count(runs: Sequence[FinishedRun]) -> str:
    return f"{len(runs)} run{'' if len(runs) == 1 else 's'}"
