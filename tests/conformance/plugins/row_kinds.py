"""Three rows of each kind, as the history of a stream and as the answer of a query.

The argument is the time of the first row in Unix ms.
"""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

from aiostream_ds import DataSource, Frame, HistoryRange, Query, Rows, query, serve, stream

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.encoding.row_examples import MAKERS, AsRow

ROWS = 3


def values(start: datetime) -> dict[str, list[Any]]:
    """The columns of all kinds: `celsius` counts the rows."""
    return {
        "time": [start + timedelta(seconds=n) for n in range(ROWS)],
        "celsius": [float(n) for n in range(ROWS)],
        "name": [f"row {n}" for n in range(ROWS)],
    }


def rows(make: Any, columns: dict[str, list[Any]]) -> Any:
    found = [
        make(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)
    ]
    return np.concatenate(found) if isinstance(found[0], np.ndarray) else found


def kinds(start: datetime) -> dict[str, Any]:
    """What a history or a query may return, by name."""
    columns = values(start)
    found = {name: rows(make, columns) for name, make in MAKERS.items()}
    found["Columns"] = AsRow.from_columns(**columns)
    found["Frame"] = Frame.from_columns(columns)
    found["pyarrow"] = pa.table(columns)
    found["pandas"] = pd.DataFrame(columns)
    found["polars"] = pl.DataFrame(columns)
    return found


class OfKind(Query):
    kind: str


class RowKinds(DataSource):
    @stream("rows/{kind:any}")
    async def rows(self, kind: str) -> Rows:
        yield []

    @rows.history
    async def past(self, history_range: HistoryRange, kind: str) -> Any:
        return KINDS[kind]

    @query("answer")
    async def answer(self, q: OfKind) -> Any:
        return KINDS[q.kind]


if __name__ == "__main__":
    KINDS = kinds(datetime.fromtimestamp(int(sys.argv[1]) / 1000, UTC))
    serve(RowKinds)
