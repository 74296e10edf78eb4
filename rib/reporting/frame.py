"""pandas table whose text shows all of its columns; imported when a table is made, as pandas takes a second."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd


class WholeFrame(pd.DataFrame):
    """A DataFrame that prints every column, with two decimals, where pandas would put ``...`` in their place.

    The numbers themselves have full precision. Columns that do not fit a line continue below. A format that you have
    set with ``pandas.set_option("display.float_format", ...)`` is kept.
    """

    @property
    def _constructor(self) -> Callable[..., WholeFrame]:
        return WholeFrame

    def __repr__(self) -> str:
        with _whole():
            return super().__repr__()

    def _repr_html_(self) -> str | None:
        with _whole():
            html: str | None = super()._repr_html_()  # type: ignore[misc]
            return html


def _whole() -> pd.option_context:
    shown = pd.get_option("display.float_format") or "{:.2f}".format
    return pd.option_context("display.max_columns", None, "display.float_format", shown)
