"""The same table in the classes of each library that has tables."""

import importlib
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from tests.requirements import require

Make = Callable[[pa.Table], Any]


class Stream:
    """A table with nothing but the interface of batches."""

    def __init__(self, table: pa.Table):
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


class Batch:
    """A table with nothing but the interface of one batch."""

    def __init__(self, batch: pa.RecordBatch):
        self._batch = batch

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]:
        found: tuple[object, object] = self._batch.__arrow_c_array__(requested_schema)
        return found


def library(name: str) -> Any:
    """The module, or a skipped test."""
    try:
        return importlib.import_module(name)
    except ImportError:
        require(name, False, f"{name} is not installed")


def record_batch(table: pa.Table) -> pa.RecordBatch:
    (batch,) = table.combine_chunks().to_batches()
    return batch


def chunked(table: pa.Table) -> pa.Table:
    """The same table in chunks of one row."""
    return pa.Table.from_batches([table.slice(row, 1).to_batches()[0] for row in range(len(table))])


def pandas(table: pa.Table) -> Any:
    library("pandas")
    return table.to_pandas()


def pandas_arrow(table: pa.Table) -> Any:
    return table.to_pandas(types_mapper=library("pandas").ArrowDtype)


def pandas_nullable(table: pa.Table) -> Any:
    return pandas(table).convert_dtypes()


def pandas_index(table: pa.Table) -> Any:
    """With the column `time` as a DatetimeIndex without a name."""
    return pandas(table).set_index("time").rename_axis(None)


def polars(table: pa.Table) -> Any:
    return library("polars").from_arrow(table)


def duckdb(table: pa.Table) -> Any:
    return library("duckdb").connect().from_arrow(table)


LIBRARIES: dict[str, Make] = {
    "pyarrow.Table": lambda table: table,
    "pyarrow.Table in chunks": chunked,
    "pyarrow.RecordBatch": record_batch,
    "pyarrow.RecordBatchReader": pa.Table.to_reader,
    "a stream of batches": Stream,
    "one batch": lambda table: Batch(record_batch(table)),
    "pandas": pandas,
    "pandas of Arrow": pandas_arrow,
    "pandas with nullable types": pandas_nullable,
    "pandas with a DatetimeIndex": pandas_index,
    "polars": polars,
    "duckdb": duckdb,
}
